"""The stage of pairs: what is sampled, what is counted, and pairs that the user brings."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from framework.artifacts import read_artifact
from framework.config import parse_config
from framework.data.pair_tables import read_pairs
from framework.data.preferences import divided, pair_up, split_record, write_pairs
from framework.errors import RunError
from framework.seeding import numpy_generator
from framework.types import Scores
from jobs import stages
from jobs.stages import PAIRS_FILE, pairs_stage, policy_stage, sample_pairs
from tests.tiny import TINY


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return policy_stage(parse_config(TINY), tmp_path_factory.mktemp("policy"))


def config(**label):
    return parse_config(TINY | {"label": TINY["label"] | label})


def with_gold(cfg, monkeypatch, judge):
    asked = []

    class Gold:
        def score(self, prompts, responses):
            asked.extend(zip(prompts, responses, strict=True))
            return Scores(torch.tensor([judge(r) for r in responses], dtype=torch.float32))

    monkeypatch.setattr(type(cfg.gold), "build", lambda self, device: Gold())
    return asked


def test_the_stage_writes_pairs_on_their_sides_and_what_it_counted(tmp_path, policy):
    stage = pairs_stage(config(noise=0.4, held_out=0.3), tmp_path, policy)
    pairs, figures = read_pairs(stage.path / PAIRS_FILE), stage.figures
    assert pairs == divided(pairs, 0.3, "pair")
    assert figures["pairs"] == len(pairs) == 96
    assert figures["held_out"] == sum(p.split == "held_out" for p in pairs)
    assert 10 < figures["held_out"] < 50
    assert figures["flipped_share"] == pytest.approx(sum(p.gold_chosen < p.gold_rejected for p in pairs) / 96)
    assert 0.2 < figures["flipped_share"] < 0.6
    assert figures["empty"] == sum(not p.chosen.strip() or not p.rejected.strip() for p in pairs)
    assert json.loads((stage.path / "splits.json").read_text()) == split_record(pairs, "pair")


def test_pairs_know_which_responses_were_cut_off(tmp_path, policy):
    stage = pairs_stage(config(max_new_tokens=9), tmp_path, policy)
    pairs = read_pairs(stage.path / PAIRS_FILE)
    texts = [(p.chosen, p.chosen_ended) for p in pairs] + [(p.rejected, p.rejected_ended) for p in pairs]
    assert {len(text.split()) for text, ended in texts if not ended} >= {9}
    assert all(len(text.split()) < 9 for text, ended in texts if ended)
    assert 0 < sum(ended for _, ended in texts) < len(texts)
    assert stage.figures["ended_share"] == pytest.approx(sum(ended for _, ended in texts) / len(texts))


def test_more_samples_per_prompt_make_every_pair_of_them(tmp_path, policy, monkeypatch):
    cfg = config(samples_per_prompt=4, held_out_by="prompt", batch=4, pairs=40, noise=0.0)
    asked = with_gold(cfg, monkeypatch, lambda text: float(sum(map(ord, text))))
    pairs, figures = sample_pairs(cfg, policy.path)
    assert figures["pairs"] == len(pairs) == 40
    assert all(p.gold_chosen > p.gold_rejected for p in pairs)
    assert {(p.prompt, text) for p in pairs for text in (p.chosen, p.rejected)} <= set(asked)
    # The first prompt's four responses: six pairs, next to one another, less what was dropped.
    first = [p for p in pairs if p.prompt == pairs[0].prompt]
    assert 3 < len(first) <= 6
    assert len({text for p in first for text in (p.chosen, p.rejected)}) <= 4
    assert sum(a.prompt != b.prompt for a, b in pairwise(pairs)) < 20


def test_two_samples_make_the_pairs_they_always_made(policy, monkeypatch):
    seen = []

    def record(prompts, responses, gold, noise, seed, ended):
        seen.append((prompts, responses, gold, seed))
        return pair_up(prompts, responses, gold, noise, seed, ended)

    monkeypatch.setattr(stages, "pair_up", record)
    pairs, figures = sample_pairs(config(), policy.path)
    made = []
    for prompts, responses, gold, seed in seen:
        made += _formed(prompts, responses, gold, 0.25, seed)
    assert [(p.prompt, p.chosen, p.rejected, p.flipped) for p in pairs] == made[:96]
    tied = sum(a == b for _, _, gold, _ in seen for a, b in gold)
    assert figures["ties"] + figures["identical"] == tied


def _formed(prompts, responses, gold, noise, seed):
    """Pairs of two by the definition: one draw per prompt, ties left out, a flip turns the order of gold."""
    flips = numpy_generator(seed, "flip").random(len(prompts)) < noise
    for prompt, (a, b), (x, y), flip in zip(prompts, responses, gold, flips, strict=True):
        if x != y:
            yield (prompt, a, b, bool(flip)) if (x > y) != flip else (prompt, b, a, bool(flip))


def test_conversations_hold_the_same_pairs(tmp_path, policy):
    plain = pairs_stage(config(pairs=20), tmp_path, policy)
    turns = pairs_stage(config(pairs=20, conversational=True), tmp_path, policy)
    assert read_pairs(plain.path / PAIRS_FILE) == read_pairs(turns.path / PAIRS_FILE)
    assert plain.path != turns.path
    assert (plain.path / "splits.json").read_bytes() == (turns.path / "splits.json").read_bytes()


def test_gold_that_cannot_tell_responses_apart_stops_the_stage(tmp_path, policy, monkeypatch):
    cfg = config(pairs=40)
    with_gold(cfg, monkeypatch, lambda text: 1.0)
    with pytest.raises(RunError, match=r"label: (\d+) of \1 pairs are ties in gold \(\d+ are one text twice\)"):
        pairs_stage(cfg, tmp_path, policy)
    assert not list(tmp_path.iterdir())


def test_a_gold_score_that_is_not_finite_is_named(policy, monkeypatch):
    cfg = config()
    with_gold(cfg, monkeypatch, lambda text: math.nan)
    with pytest.raises(RunError, match=r"label: the gold score of '.*' is nan at step 0"):
        sample_pairs(cfg, policy.path)


def test_pairs_of_the_user_take_the_place_of_sampled_ones(tmp_path, policy, monkeypatch):
    pairs, _ = pair_up(["p"], [[f"r{i}" for i in range(12)]], [list(range(12))], 0.25, 0)
    table = tmp_path / "theirs.parquet"
    write_pairs(table, pairs)
    fit = TINY["fit_reward"] | {"pairs": {"path": str(table)}}
    monkeypatch.setattr(stages, "sample_pairs", None)
    workspace = tmp_path / "out"
    stage = pairs_stage(parse_config(TINY | {"fit_reward": fit}), workspace, policy)
    assert read_pairs(stage.path / PAIRS_FILE) == pairs
    assert (stage.figures["rows"], stage.figures["identical"]) == (66, 0)
    # Another seed and another policy have the same pairs; another table does not.
    other = replace(policy, sha256="another")
    again = pairs_stage(parse_config(TINY | {"fit_reward": fit, "seed": 3}), workspace, other)
    assert again.path == stage.path
    write_pairs(table, pairs[:30])
    changed = pairs_stage(parse_config(TINY | {"fit_reward": fit}), workspace, policy)
    assert changed.path != stage.path
    assert read_artifact(changed.path, "pairs").figures["pairs"] == 30
