"""Gold signals beside gold: each at its own cadence, in every table, and in nothing that is learnt."""

import json
import sys

import pyarrow.parquet as pq
import pytest

from framework.analysis.records import RunRecord
from framework.analysis.table import build_table, record_of
from framework.config import load_config, parse_config
from framework.errors import RunError, UserError
from framework.report.sections.curves import curves
from framework.worlds.reviews import judge
from jobs.run_folder import RunContext, resume_run
from tests.tiny import contents, make_tiny

LENGTH = "def score(prompts, responses):\n    return [len(r.split()) for r in responses]\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def golds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_length_gold", raising=False)  # of an earlier test's folder
    (tmp_path / "own_length_gold.py").write_text(LENGTH)
    words = {"kind": "python", "function": "own_length_gold:score"}
    return {"again": {"kind": "rule"}, "words": words | {"every": 4}}


def read(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [pq.read_table(path).to_pydict() for path in sorted((run / "rollouts").glob("*.parquet"))]
    return lines, rows


def test_each_is_measured_when_it_is_due_and_stands_in_every_table(tiny, golds, tmp_path):
    run = tiny.run(tmp_path / "run", golds=golds, train={"gold_every": 2}).run
    lines, rows = read(run)
    for step, (line, own) in enumerate(zip(lines, rows, strict=True)):
        again = [judge(*texts) for texts in zip(own["prompt"], own["response"], strict=True)]
        assert own["gold_again"] == pytest.approx(again)
        assert line["gold_again"] == pytest.approx(sum(again) / len(again), abs=1e-6)
        if step in (0, 2, 4, 5):
            assert (line["gold"], line["gold_se"]) == (line["gold_again"], line["gold_again_se"])
        words = [float(len(response.split())) for response in own["response"]]
        due = step in (0, 4, 5)  # every four steps, and at the last
        assert own["gold_words"] == (words if due else [None] * len(words))
        assert (line["gold_words"] is None) == (line["gold_words_se"] is None) == (not due)
        if due:
            assert line["gold_words"] == pytest.approx(sum(words) / len(words), abs=1e-6)
    table = build_table([record_of(run)])
    assert {"gold_again", "gold_again_se", "gold_words", "gold_words_se"} <= set(table.data.column_names)
    (curve,) = table.curves
    assert curve.series("gold_words").tolist()[4] == lines[4]["gold_words"]


def test_they_change_nothing_of_the_run(tiny, golds, tmp_path):
    with_them, without = (tiny.run(tmp_path / name, golds=own).run for name, own in (("with", golds), ("without", {})))
    (seen, _), (plain, _) = read(with_them), read(without)
    assert [{k: v for k, v in line.items() if not k.startswith(("gold_again", "gold_words"))} for line in seen] == plain
    weights = [contents(run)["checkpoints/step_6/model.safetensors"] for run in (with_them, without)]
    assert weights[0] == weights[1]


def test_a_resumed_run_is_the_same_run(tiny, golds, tmp_path):
    whole = tiny.run(tmp_path / "whole", golds=golds)
    asked = iter(range(100))
    assert tiny.run(tmp_path / "part", RunContext(lambda: next(asked) >= 5), golds=golds).ended is None
    assert resume_run(tmp_path / "part", RunContext()).ended
    assert contents(tmp_path / "part") == contents(whole.run)


def test_the_report_draws_them(tiny, golds, tmp_path):
    from framework.analysis.experiment import analyse

    run = tiny.run(tmp_path / "run", golds=golds).run
    record: RunRecord = record_of(run)
    section = curves(analyse("run", build_table([record]), [record]))
    (figure,) = [figure for figure in section.figures if figure.name == "golds"]
    assert [panel.title for panel in figure.panels] == ["gold_again (its own units)", "gold_words (its own units)"]


def test_one_that_fails_is_named(tiny, golds, tmp_path):
    (tmp_path / "own_bad_gold.py").write_text("def score(p, r):\n    return [0.0] * (len(r) - 1)\n")
    with pytest.raises(RunError, match="function=own_bad_gold:score gave 15 scores for 16 texts"):
        tiny.run(tmp_path / "run", golds={"bad": {"kind": "python", "function": "own_bad_gold:score"}})


def test_they_are_written_as_gold_is_and_read_back(golds):
    cfg = parse_config({"golds": golds})
    assert {name: (own.scorer.kind, own.every) for name, own in cfg.golds.items()} == {
        "again": ("rule", 1), "words": ("python", 4),
    }  # fmt: skip
    assert parse_config(json.loads(cfg.model_dump_json())) == cfg
    assert load_config(None, {"golds.a.kind": "rule", "golds.a.every": 3}).golds["a"].every == 3
    assert parse_config({}).run_fingerprint() == parse_config({"golds": {}}).run_fingerprint()
    assert cfg.run_fingerprint() != parse_config({}).run_fingerprint()


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"se": {"kind": "rule"}}, "golds: 'se' must be letters"),
        ({"a_se": {"kind": "rule"}}, "golds: 'a_se' must be letters"),
        ({"a b": {"kind": "rule"}}, "golds: 'a b' must be letters"),
        ({"a": {"kind": "rules"}}, "golds.a.scorer.kind='rules' is not known; did you mean 'rule'"),
        ({"a": {"kind": "rule", "every": 0}}, "golds.a.every=0"),
        ({"a": {"kind": "rule", "evry": 2}}, "evry"),
        ({"a": {"kind": "python", "function": "no_such_module:f"}}, "function=no_such_module:f: there is no module"),
    ],
)
def test_what_cannot_be_measured_is_refused(tree, says):
    with pytest.raises(UserError) as caught:
        parse_config({"golds": tree}).check_scorers()
    assert says in str(caught.value)


def test_a_rule_of_another_world_is_refused(golds):
    world = {"kind": "text", "source": {"path": "x.csv"}}
    own = {"kind": "python", "function": "own_length_gold:score"}
    tree = {"world": world, "policy": {"kind": "pretrained", "path": "x"}, "gold": own}
    assert parse_config(tree).golds == {}
    with pytest.raises(UserError, match=r"golds\.again\.kind=rule judges world\.kind=reviews only"):
        parse_config(tree | {"golds": golds})
