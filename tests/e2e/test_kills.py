"""Killed at random moments, over and over, and gone on with: no number changes and nothing is lost."""

import pytest

from tests.kills import assert_kills_change_nothing

CASES = {
    # verb: settings, what of the stages is there already, kills
    "fit-policy": (["sft.steps=400"], (), 10),
    "label": (["label.pairs=1500"], ("policy",), 10),
    "fit-reward": (["fit_reward.epochs=20", "fit_reward.save_every=5"], ("policy", "pairs"), 10),
    "train": (["train.steps=40", "train.save_every=5"], ("policy", "pairs", "reward"), 14),
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", CASES)
def test_kills_change_no_number_and_lose_nothing(config, finished, tmp_path, verb):
    settings, stages, kills = CASES[verb]
    there = [made for stage in stages for made in finished.glob(f"{stage}-*")]
    assert_kills_change_nothing([verb, str(config), *settings], tmp_path / "out", there, kills, unsaved=5)
