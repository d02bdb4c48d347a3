"""A reward for which nothing is fitted: a function in the reward model's place, and published models by themselves."""

import json
import os
import sys
import time

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from actors.group import InlineGroup
from actors.reward import RewardRole, RewardWorker
from framework.config import parse_config
from framework.errors import RunError, UserError
from framework.gold import Python
from framework.models.reward_folder import read_reference
from framework.models.reward_model import RewardModel
from framework.types import Answers
from jobs import chain as chain_module
from jobs.best_of_n import load_scores
from jobs.chain import Chain
from jobs.run_folder import RunContext, make_run, resume_run
from tests.tiny import TINY, contents, merged
from tests.tiny_reward import published_folder

RULE = "def score(prompts, responses):\n    return [{} * len(r.split()) + 0.25 * len(p) for p, r in zip(prompts, responses)]\n"
NAMES = iter(range(1000))
ONE_HEAD = {"aggregation": {"kind": "mean"}, "reference_texts": 70, "train": {"steps": 3, "exact_kl_every": 0}}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """One start policy for all tests of this file."""
    return tmp_path_factory.mktemp("stages")


@pytest.fixture
def rule(tmp_path, monkeypatch):
    """The name of a function in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"own_reward_{next(NAMES)}"
    (tmp_path / f"{name}.py").write_text(RULE.format(2.0))
    return f"{name}:score"


@pytest.fixture
def no_pairs(monkeypatch):
    """Fails a test that makes pairs or fits a reward model."""

    def refuse(*_, **__):
        raise AssertionError("nothing is to be labelled or fitted")

    monkeypatch.setattr(chain_module, "pairs_stage", refuse)
    monkeypatch.setattr(chain_module, "reward_stage", refuse)


def config(function, **changes):
    reward = {"reward": {"kind": "python", "function": function}}
    return parse_config(merged(merged(TINY, ONE_HEAD), reward | changes))


def words(prompts, responses, factor=2.0):
    return [factor * len(r.split()) + 0.25 * len(p) for p, r in zip(prompts, responses, strict=True)]


def test_the_policy_is_paid_what_the_function_says(rule, workspace, no_pairs, tmp_path):
    import pyarrow.parquet as pq

    inputs = Chain(config(rule), workspace).inputs
    result = make_run(inputs, tmp_path / "run", RunContext())
    assert result.ended == "all steps"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for step, line in enumerate(lines):
        rows = pq.read_table(tmp_path / "run" / "rollouts" / f"step_{step:06d}.parquet").to_pydict()
        expected = words(rows["prompt"], rows["response"])
        assert rows["proxy"] == expected
        assert rows["scores"] == [[value] for value in expected]
        assert line["heads"] == [line["proxy"]]
        assert (line["disagreement"], line["head_correlation"], line["feature_distance"]) == (0, None, None)
    again = make_run(Chain(config(rule), workspace).inputs, tmp_path / "again", RunContext())
    assert contents(again.run) == contents(result.run)


def test_no_pairs_are_asked_for_and_none_need_be_enough(rule):
    cfg = config(rule, label={"pairs": 2}, fit_reward={"batch": 4096})
    assert (cfg.needs_pairs, cfg.num_heads) == (False, 1)
    with pytest.raises(UserError, match=r"label\.pairs=2"):
        parse_config({"label": {"pairs": 2}})


def test_its_folder_serves_the_reference_scores_and_whoever_loads_it(rule, workspace, no_pairs):
    reward = Chain(config(rule), workspace).reward
    assert reward.figures == {"reference_texts": 70.0, "cut": 0.0}
    reference = read_reference(reward.path)
    assert reference.scores.shape == (1, 70)
    assert reference.scores.std() > 0
    model = RewardModel.load(reward.path)
    assert model.num_heads == 1
    assert model.score(["ab"], ["x y z"]).values.tolist() == [[6.5]]
    assert model.reference.scores.equal(reference.scores)


@pytest.mark.parametrize("transform", ["length_calibration", "par", "log_sigmoid", "clip"])
def test_transforms_work_on_it(rule, workspace, no_pairs, tmp_path, transform):
    settings = {"kind": transform} | ({"low": -1.0, "high": 1.0} if transform == "clip" else {})
    cfg = config(rule, train={"steps": 1, "transforms": [settings]})
    assert make_run(Chain(cfg, workspace).inputs, tmp_path / "run", RunContext()).ended


def test_replicas_that_divide_rows_or_members_give_the_same_scores(rule, workspace, no_pairs):
    cfg = config(rule)
    folder = Chain(cfg, workspace).reward.path
    rows = Answers(
        ("p",) * 9, tuple("w " * n for n in range(9)), torch.arange(9) > 4, torch.zeros(9, dtype=torch.long), 0
    )
    found = []
    for replicas, divide in ((1, "rows"), (2, "rows"), (1, "members"), (2, "members"), (3, "members")):
        arguments = (str(folder), 4, 0.0, "float32", divide, cfg.reward)
        role = RewardRole(InlineGroup("reward", RewardWorker, arguments, replicas), 4, divide)
        found.append(role.score(rows).get().values)
    assert all(torch.equal(one, found[0]) for one in found)
    assert found[0].tolist() == [[2.0 * n + 0.25 for n in range(9)]]


def test_best_of_n_is_scored_by_it(rule, workspace, no_pairs, tmp_path):
    import pyarrow.parquet as pq

    made = Chain(config(rule, best_of_n={"prompts": 3, "samples": 8}), workspace)
    scores, pool = load_scores(made.scores.path), pq.read_table(made.pool.path / "pool.parquet").to_pydict()
    assert scores.heads.shape == (1, 3, 8)
    assert scores.heads.flatten().tolist() == words(pool["prompt"], pool["response"])


def test_an_edited_function_is_another_reward_and_a_run_refuses_to_go_on_with_it(rule, workspace, no_pairs, tmp_path):
    cfg, path = config(rule), tmp_path / f"{rule.partition(':')[0]}.py"
    inputs = Chain(cfg, workspace).inputs
    asked = iter(range(100))
    assert make_run(inputs, tmp_path / "run", RunContext(stop_asked=lambda: next(asked) >= 2)).ended is None
    path.write_text(RULE.format(3.0))
    os.utime(path, (time.time() + 10, time.time() + 10))
    assert Chain(cfg, workspace).reward.path != inputs.parents["reward"].path
    with pytest.raises(UserError, match=r"the reward .* is not what .* was made with: put it back"):
        resume_run(tmp_path / "run", RunContext())
    path.write_text(RULE.format(2.0))
    assert resume_run(tmp_path / "run", RunContext()).ended == "all steps"


def test_a_function_that_fails_in_a_run_is_named_with_the_way_on(rule, workspace, no_pairs, tmp_path):
    (tmp_path / "fails_later.py").write_text(
        "seen = []\ndef score(p, r):\n    seen.append(r)\n    return [float('nan') if len(seen) > 3 else 1.0 for _ in r]\n"
    )
    inputs = Chain(config("fails_later:score"), workspace).inputs
    with pytest.raises(RunError, match=r"function=fails_later:score gave nan for row 0.*go on with `goldilocks train"):
        make_run(inputs, tmp_path / "run", RunContext())


def test_a_published_model_needs_texts_and_no_pairs(workspace, no_pairs, tmp_path):
    place = published_folder(tmp_path / "hub")
    ensemble = {"kind": "full", "members": 0, "published": [place]}
    cfg = parse_config(
        merged(TINY, ONE_HEAD | {"fit_reward": {"ensemble": ensemble, "batch": 4096}, "label": {"pairs": 2}})
    )
    assert not cfg.needs_pairs
    reward = Chain(cfg, workspace).reward
    model, alone = RewardModel.load(reward.path), RewardModel.published(place, field="f")
    scores = model.reference.scores
    assert scores.shape == (1, 70)
    torch.testing.assert_close(scores.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(scores.std(correction=0), torch.tensor(1.0))
    texts = ["the room :"] * 2, [" it was grand .", " it was poor ."]
    expected = (alone.score(*texts).values - model.centre[:, None]) / model.scale[:, None]
    torch.testing.assert_close(model.score(*texts).values, expected)
    assert parse_config(merged(TINY, {"fit_reward": {"ensemble": ensemble | {"members": 1}}})).needs_pairs
    assert parse_config(
        merged(TINY, ONE_HEAD | {"fit_reward": {"ensemble": ensemble, "pairs": {"path": "mine.parquet"}}})
    ).needs_pairs
    assert len(model.reference.lengths) == 70


def spoilt(folder):
    """A published model that says the same of every text."""
    model = AutoModelForSequenceClassification.from_pretrained(published_folder(folder))
    torch.nn.init.zeros_(model.score.weight)
    model.save_pretrained(folder)
    return str(folder)


def test_a_published_head_that_says_nothing_is_refused_in_its_own_words(workspace, tmp_path):
    ensemble = {"kind": "full", "members": 0, "published": [spoilt(tmp_path / "hub")]}
    cfg = parse_config(merged(TINY, ONE_HEAD | {"fit_reward": {"ensemble": ensemble}}))
    with pytest.raises(UserError, match=r"reward heads \[0\] give .*the same score: .* or name another published"):
        assert Chain(cfg, workspace).reward


def test_texts_that_a_published_model_cannot_read_whole_are_refused_in_its_own_words(workspace, tmp_path):
    place = published_folder(tmp_path / "hub")
    settings = json.loads((tmp_path / "hub" / "config.json").read_text()) | {"max_position_embeddings": 4}
    (tmp_path / "hub" / "config.json").write_text(json.dumps(settings))
    ensemble = {"kind": "full", "members": 0, "published": [place]}
    cfg = parse_config(merged(TINY, ONE_HEAD | {"fit_reward": {"ensemble": ensemble}}))
    with pytest.raises(UserError, match=r"reference texts are longer than the 4 tokens that a published model reads"):
        assert Chain(cfg, workspace).reward


def test_the_function_is_checked_with_the_configuration(rule):
    cfg = config(rule.replace("score", "absent"))
    with pytest.raises(UserError, match="has no absent"):
        cfg.check_scorers()
    assert callable(Python(function=rule).check())


def test_an_aggregation_over_its_one_head_is_refused(rule):
    with pytest.raises(UserError, match=r"aggregation.kind=worst_case does nothing: the reward has one head"):
        config(rule, aggregation={"kind": "worst_case"})
