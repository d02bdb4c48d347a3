"""The stages of best-of-n: one pool, reproducible and extensible, scored once by gold and by every head."""

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from framework.aggregation import Entropic, Mean, Uncertainty, WorstCase
from framework.artifacts import Artifact, read_artifact
from framework.best_of_n import BestOfN
from framework.config import parse_config
from framework.errors import RunError, UserError
from framework.types import Scores
from framework.worlds.reviews import judge
from jobs import best_of_n as stages
from jobs import chain
from jobs.stages import policy_stage
from jobs.verbs import best_of_n as verb
from tests.tiny import TINY

SECTION = {"prompts": 5, "samples": 20, "batch": 32}


class FakeReward:
    """Two heads that anyone can work out: characters of the response, and words of it."""

    num_heads, cut_each = 2, 0

    @classmethod
    def load(cls, folder, device="cpu", **_):
        return cls()

    def score(self, prompts, responses, ended=None):
        characters = torch.tensor([float(len(r)) for r in responses])
        words = torch.tensor([float(len(r.split())) for r in responses])
        return Scores(torch.stack([characters, words]), self.cut_each, torch.zeros(0, len(responses)))


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return policy_stage(parse_config(TINY), tmp_path_factory.mktemp("policy"))


@pytest.fixture
def reward(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "RewardModel", FakeReward)
    return Artifact(tmp_path / "reward", "fake", "fa" * 32, {})


def config(**section):
    return parse_config(TINY | {"best_of_n": SECTION | section})


def rows(pool):
    table = pq.read_table(pool.path / stages.POOL_FILE).to_pylist()
    return {(row["prompt_index"], row["sample"]): row for row in table}


def test_the_pool_holds_every_prompt_and_sample_once_in_order_with_its_gold(policy, tmp_path):
    pool = stages.pool_stage(config(), tmp_path, policy)
    table = pq.read_table(pool.path / stages.POOL_FILE)
    assert table.schema.equals(stages.POOL_SCHEMA)
    listed = list(zip(table["prompt_index"].to_pylist(), table["sample"].to_pylist(), strict=True))
    assert listed == [(p, s) for p in range(5) for s in range(20)]
    found = rows(pool).values()
    assert len({row["prompt"] for row in found}) == 5
    assert all(row["gold"] == pytest.approx(judge(row["prompt"], row["response"]), abs=1e-6) for row in found)
    assert all(1 <= row["tokens"] <= TINY["max_new_tokens"] for row in found)
    assert pool.figures["gold_mean"] == pytest.approx(np.mean([row["gold"] for row in found]))
    assert 0 < pool.figures["distinct_share"] <= 1


def test_a_larger_pool_begins_with_the_smaller_one(policy, tmp_path):
    small = rows(stages.pool_stage(config(), tmp_path, policy))
    more = rows(stages.pool_stage(config(samples=40, prompts=7, batch=64), tmp_path, policy))
    assert len(more) == 280
    assert {key: more[key]["response"] for key in small} == {key: r["response"] for key, r in small.items()}
    again = rows(stages.pool_stage(config(), tmp_path / "again", policy))
    assert again == small
    texts = [row["response"] for (prompt, _), row in more.items() if prompt == 0]
    assert texts[:16] != texts[16:32], "each sample has random numbers of its own"


def test_a_pool_is_sampled_once_and_does_not_depend_on_the_proxy(policy, tmp_path, monkeypatch):
    made = stages.pool_stage(config(), tmp_path, policy)
    monkeypatch.setattr(stages, "sample_pool", None)
    other = parse_config(
        TINY | {"best_of_n": SECTION | {"ns": [2]}, "fit_reward": {"epochs": 2}, "aggregation": {"kind": "mean"}}
    )
    assert stages.pool_stage(other, tmp_path, policy) == made
    with pytest.raises(TypeError):
        stages.pool_stage(config(samples=21), tmp_path, policy)


def test_a_world_with_fewer_prompts_gives_all_it_has(policy, tmp_path):
    pool = stages.pool_stage(config(prompts=1000, samples=2, batch=256), tmp_path, policy)
    texts = [row["prompt"] for (_, sample), row in rows(pool).items() if sample == 0]
    assert sorted(texts) == sorted(config().world.prompts("train"))


def test_gold_that_is_no_number_stops_the_pool(policy, tmp_path, monkeypatch):
    class Broken:
        def score(self, prompts, responses, ended=None):
            return Scores(torch.full((len(responses),), math.nan))

    monkeypatch.setattr("framework.gold.rule.Rule.build", lambda self, device: Broken())
    with pytest.raises(RunError, match="gold score"):
        stages.pool_stage(config(), tmp_path, policy)
    assert not list(tmp_path.iterdir())


def test_scores_stand_in_the_order_of_the_pool(policy, reward, tmp_path):
    workspace = tmp_path
    pool = stages.pool_stage(config(), workspace, policy)
    scores = stages.scores_stage(config(), workspace, pool, reward)
    loaded = stages.load_scores(scores.path)
    assert loaded.heads.shape == (2, 5, 20)
    for (prompt, sample), row in rows(pool).items():
        assert loaded.heads[0, prompt, sample] == len(row["response"])
        assert loaded.heads[1, prompt, sample] == len(row["response"].split())
        assert loaded.gold[prompt, sample] == np.float32(row["gold"])
    assert read_artifact(scores.path, "scores").figures == {"heads": 2, "cut": 0}


def test_too_many_cut_texts_stop_the_scoring(policy, reward, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeReward, "cut_each", 20)
    pool = stages.pool_stage(config(), tmp_path, policy)
    with pytest.raises(RunError, match="100 of 100 texts are longer"):
        stages.scores_stage(config(), tmp_path, pool, reward)


def test_curves_are_of_the_aggregated_heads(policy, reward, tmp_path):
    workspace, cfg = tmp_path, config()
    scores = stages.scores_stage(cfg, workspace, stages.pool_stage(cfg, workspace, policy), reward)
    loaded = stages.load_scores(scores.path)
    curve = stages.curves_of(loaded, [WorstCase()], stages.settings_of(cfg).counts)["worst_case"]
    assert [point["n"] for point in curve["points"]] == [1, 2, 4, 8, 16, 20]
    assert curve["points"][-1]["proxy"] == pytest.approx(loaded.heads.min(axis=0).max(axis=1).mean())
    assert curve["points"][0]["gold"] == pytest.approx(loaded.gold.mean())
    assert json.loads(json.dumps(curve)) == curve


def test_a_value_of_n_beyond_the_pool_is_refused(policy, reward, tmp_path):
    workspace = tmp_path
    pool = stages.pool_stage(config(), workspace, policy)
    scores = stages.scores_stage(config(), workspace, pool, reward)
    with pytest.raises(UserError, match="20 responses"):
        stages.curves_of(stages.load_scores(scores.path), [Mean()], config(samples=64).best_of_n.counts)
    with pytest.raises(UserError, match="raise samples"):
        config(ns=[21])
    with pytest.raises(UserError, match="does not exist"):
        stages.load_scores(tmp_path)


def test_a_missing_section_is_the_default_one():
    assert stages.settings_of(parse_config(TINY)) == BestOfN()


def test_other_aggregations_join_where_there_are_heads_to_combine():
    cfg = parse_config(TINY | {"aggregation": {"kind": "uncertainty", "weight": 0.1}})
    several = stages.aggregations(cfg, num_heads=2)
    assert several[0] == Uncertainty(weight=0.1)
    assert {type(each) for each in several} == {Mean, WorstCase, Uncertainty, Entropic}
    assert len(several) == 4
    assert stages.aggregations(cfg, num_heads=1) == [Uncertainty(weight=0.1)]


def test_the_verb_prints_the_table_and_writes_figures_and_page(policy, reward, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(chain, "policy_stage", lambda *_: policy)
    monkeypatch.setattr(chain, "pairs_stage", lambda *_: policy)
    monkeypatch.setattr(chain, "reward_stage", lambda *_: reward)
    assert verb.best_of_n(config(), tmp_path, ["experiment.yaml"]) == 0
    printed = capsys.readouterr().out
    assert "worst_case" in printed and "entropic" in printed and "wins over one head" in printed
    assert "goldilocks train experiment.yaml" in printed
    record = json.loads((tmp_path / "best_of_n.json").read_text())
    assert set(record["curves"]) == {"worst_case", "mean", "uncertainty", "entropic"}
    assert next(iter(record["curves"])) == "worst_case"
    assert record["pool"]["samples"] == 20
    # With one response to choose from, no proxy can differ from another.
    firsts = [curve["points"][0] for curve in record["curves"].values()]
    assert len({round(point["gold"], 9) for point in firsts}) == 1
    assert all(point["win_rate"] == pytest.approx(0.5) for point in firsts)
    assert (tmp_path / "report.html").stat().st_size > 10_000
