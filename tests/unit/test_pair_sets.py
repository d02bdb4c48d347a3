"""Agreement with labelled pairs: ties, intervals, subsets, RewardBench's sections, and the verb."""

import json
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from framework.aggregation import Mean, WorstCase
from framework.analysis.over_seeds import wilson
from framework.analysis.reward_quality import SECTIONS, Accuracy, ScorePairs, accuracy_of, rewardbench_sections
from framework.errors import UserError
from framework.types import Scores
from jobs.verbs import score_pairs as verb


def test_a_tie_counts_one_half():
    found = accuracy_of(np.array([2.0, 1.0, 0.0, 3.0]), np.array([1.0, 1.0, 1.0, 1.0]))
    assert (found.pairs, found.ties, found.accuracy) == (4, 1, 2.5 / 4)
    assert (found.low, found.high) == wilson(2.5 / 4, 4)


def test_subsets_are_measured_apart_in_the_order_they_appear():
    chosen, rejected = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0])
    heads = torch.from_numpy(chosen)[None], torch.from_numpy(rejected)[None]
    found = verb.measured(heads, (chosen, rejected), ["b", "a", "a", "b"])["subsets"]
    assert list(found) == ["b", "a"]
    assert (found["b"]["reward"]["accuracy"], found["b"]["reward"]["pairs"]) == (1.0, 2)
    assert (found["a"]["mean"]["accuracy"], found["a"]["mean"]["ties"]) == (0.25, 1)


def bench(**subsets):
    return {name.replace("_", "-"): Accuracy(pairs, 0, share, 0.0, 1.0) for name, (pairs, share) in subsets.items()}


def test_the_sections_are_rewardbenchs():
    assert {name: len(subsets) for name, subsets in SECTIONS.items()} == {
        "Chat": 5,
        "Chat Hard": 6,
        "Safety": 5,
        "Reasoning": 7,
    }
    assert len({subset for subsets in SECTIONS.values() for subset in subsets}) == 23


def test_sections_weigh_subsets_by_size_and_math_as_much_as_code():
    accuracies = bench(
        alpacaeval_easy=(30, 1.0), mt_bench_med=(10, 0.5), mt_bench_hard=(8, 0.25),
        donotanswer=(4, 0.0), xstest_should_respond=(4, 1.0),
        math_prm=(5, 0.2), hep_cpp=(20, 0.9), hep_rust=(20, 0.7),
    )  # fmt: skip
    found = rewardbench_sections(accuracies)
    assert found["sections"] == pytest.approx(
        {"Chat": 0.875, "Chat Hard": 0.25, "Safety": 0.5, "Reasoning": (0.2 + 0.8) / 2}
    )
    assert found["score"] == pytest.approx((0.875 + 0.25 + 0.5 + 0.5) / 4)


def test_sections_without_pairs_leave_no_score_and_other_subsets_no_sections():
    found = rewardbench_sections(bench(math_prm=(5, 0.2), mt_bench_easy=(5, 1.0)))
    assert found["sections"] == {"Chat": 1.0, "Reasoning": 0.2}
    assert found["score"] is None
    assert rewardbench_sections(bench(math_prm=(5, 0.2), helpful=(5, 1.0))) is None


def test_a_source_is_needed():
    with pytest.raises(ValidationError, match="source"):
        ScorePairs()


class FakeReward:
    """Two heads: the length of the response, and how many times it says `good`."""

    asked: ClassVar[list[tuple[str, str]]] = []

    @classmethod
    def load(cls, folder, device="cpu", **_):
        cls.asked = []
        return cls()

    published = load

    def score(self, prompts, responses):
        self.asked += zip(prompts, responses, strict=True)
        heads = [[float(len(r)) for r in responses], [float(r.count("good")) for r in responses]]
        return Scores(torch.tensor(heads), sum(len(r) > 30 for r in responses), torch.zeros(0, len(responses)))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(verb, "RewardModel", FakeReward)
    monkeypatch.setattr(verb, "TOGETHER", 2)

    def go(records, aggregation=WorstCase(), **section):  # noqa: B008
        path = tmp_path / "set.jsonl"
        path.write_text("\n".join(map(json.dumps, records)))
        settings = ScorePairs(model="some/model", source={"path": str(path)}, **section)
        cfg = SimpleNamespace(score_pairs=settings, aggregation=aggregation, scorer_rows=4)
        assert verb.score_pairs(cfg, tmp_path / "out") == 0
        return json.loads((tmp_path / "out" / "score_pairs.json").read_text())

    return go


RECORDS = [
    {"prompt": "p0", "chosen": "good", "rejected": "bad", "subset": "x", "id": 0, "chosen_model": "m"},
    {"prompt": "p1", "chosen": "ok", "rejected": "a good one", "subset": "x", "id": 1, "chosen_model": "m"},
    {"prompt": "p2", "chosen": "good " * 9, "rejected": "good", "subset": "y", "id": 2, "chosen_model": "m"},
    {"prompt": "p3", "chosen": "same", "rejected": "same", "subset": "y", "id": 3, "chosen_model": "m"},
    {"prompt": "p4", "chosen": "long but no use", "rejected": "good", "subset": "y", "id": 4, "chosen_model": "m"},
]


def test_the_verb_measures_reward_mean_and_heads(run, tmp_path, capsys):
    record = run(RECORDS)
    # Worst case is the smaller of length and count: x: 1 > 0, 0 < 1; y: 9 > 1, 0 = 0, 0 < 1.
    assert record["total"]["reward"]["accuracy"] == 2.5 / 5
    assert record["total"]["mean"]["accuracy"] == 3.5 / 5
    assert record["total"]["heads"] == [3.5 / 5, 2.5 / 5]
    assert record["total"]["head_mean"] == pytest.approx(3 / 5)
    assert {name: row["reward"]["pairs"] for name, row in record["subsets"].items()} == {"x": 2, "y": 3}
    assert record["subsets"]["y"]["reward"]["accuracy"] == 0.5
    assert (record["heads"], record["cut"], record["identical"], record["empty"]) == (2, 1, 1, 0)
    assert record["rewardbench"] is None
    assert [p for p, _ in FakeReward.asked] == ["p0", "p1", "p0", "p1", "p2", "p3", "p2", "p3", "p4", "p4"]
    table = pq.read_table(tmp_path / "out" / "score_pairs.parquet").to_pylist()
    assert table[2] == {
        "row": 3, "subset": "y", "reward_chosen": 9.0, "scores_chosen": [45.0, 9.0], "reward_rejected": 1.0,
        "scores_rejected": [4.0, 1.0],
    }  # fmt: skip
    shown = capsys.readouterr().out
    assert "total" in shown and "worst_case" in shown
    assert "identical: 1 pairs have the same response twice" in shown
    assert "cut: 1 texts were longer" in shown


def test_a_subset_column_of_another_name_and_a_set_without_one(run):
    other = [{("source" if k == "subset" else k): v for k, v in r.items()} for r in RECORDS]
    assert list(run(other, subset_column="source")["subsets"]) == ["x", "y"]
    assert list(run(other, aggregation=Mean())["subsets"]) == ["all"]
    with pytest.raises(UserError, match="no column 'sorce'"):
        run(other, subset_column="sorce")
    with pytest.raises(UserError, match=r"row 2: column 'subset' is empty"):
        run([RECORDS[0], RECORDS[1] | {"subset": None}])


def test_rewardbench_sections_are_printed_where_the_subsets_are_its_own(run, capsys):
    names = ["alpacaeval-easy", "mt-bench-hard", "donotanswer", "hep-go", "math-prm"]
    record = run([r | {"subset": name} for r, name in zip(RECORDS, names, strict=True)], aggregation=Mean())
    assert record["rewardbench"]["sections"] == {"Chat": 1.0, "Chat Hard": 0.0, "Safety": 1.0, "Reasoning": 0.75}
    assert record["rewardbench"]["score"] == pytest.approx(2.75 / 4)
    assert "RewardBench: Chat 1.000, Chat Hard 0.000" in capsys.readouterr().out


def test_conversations_that_part_early_are_left_out_and_counted(run):
    parted = {
        "prompt": [{"role": "user", "content": "q"}],
        "chosen": [{"role": r, "content": c} for r, c in (("assistant", "a"), ("user", "b"), ("assistant", "c"))],
        "rejected": [{"role": "assistant", "content": "d"}],
        "subset": "x",
    }
    record = run([*RECORDS, parted])
    assert (record["parted"], record["total"]["reward"]["pairs"]) == (1, 5)
    with pytest.raises(UserError, match="in all 1 rows the conversations part"):
        run([parted])


def test_the_section_is_needed(tmp_path):
    with pytest.raises(UserError, match="score_pairs is not set"):
        verb.score_pairs(SimpleNamespace(score_pairs=None), tmp_path)
