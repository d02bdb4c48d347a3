"""Pairs and settings that a reward fit refuses, warns of, or bears."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from framework.data.augment import Augment
from framework.ensembles import Full, Lora, Single
from framework.errors import RunError, UserError
from framework.training.data_parallel import Shard
from framework.training.engine import Optimizer
from framework.training.fit import FitSetting
from framework.training.preference_strength import PreferenceStrength
from framework.training.reward_fit import fit_reward
from framework.training.reward_fitter import encode_pairs
from framework.training.reward_settings import FitReward
from framework.worlds.reviews import Reviews
from tests.tiny_reward import SETTINGS, encoder_folder, fit, make_pairs, weights
from tests.tiny_reward import same as same_model

PAIRS = make_pairs()
TRAIN = [pair for pair in PAIRS if pair.split == "train"]
HELD = [pair for pair in PAIRS if pair.split == "held_out"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return encoder_folder(tmp_path_factory.mktemp("encoder"))


def settings(**changes):
    return FitReward(**(SETTINGS | changes))


def test_too_many_long_texts_are_refused_with_their_number(source):
    long = [replace(p, chosen=p.chosen + " fine" * 40) if i < 20 else p for i, p in enumerate(PAIRS)]
    with pytest.raises(
        UserError, match=r"20 of 80 training texts are longer than fit_reward\.max_tokens=32: raise it, or"
    ):
        fit(source, long)
    rows = encode_pairs(Reviews().tokenizer(), long, settings(max_cut_share=0.5), causal=True)
    assert max(len(row) for row in rows.chosen) == 32


def test_an_empty_response_breaks_nothing(source):
    fitted = fit(source, [replace(TRAIN[0], rejected=""), *TRAIN[1:], *HELD])
    assert all(value.isfinite().all() for value in weights(fitted).values())


def test_pairs_that_are_one_text_to_the_encoder_are_counted_and_left_out(source):
    # As to an uncased tokenizer: two texts, and the same token ids.
    same = [replace(p, rejected=p.chosen + "  ") for p in (*TRAIN[:3], HELD[0])]
    with pytest.warns(UserWarning, match="4 of 60 pairs are one text to the encoder, .* and are left out"):
        mixed, figures, _ = fit_reward(settings(), source, [*PAIRS, *same], FitSetting(seed=0))
    assert figures["identical_to_encoder"] == 4
    assert figures["training_pairs"] == 40
    plain, figures, _ = fit_reward(settings(), source, PAIRS, FitSetting(seed=0))
    assert figures["identical_to_encoder"] == 0
    assert same_model(plain, mixed)


@pytest.mark.parametrize(
    ("pairs", "changes", "words"),
    [
        (TRAIN[:7] + HELD, {}, ["7 training pairs are fewer than fit_reward.batch=8", "lower the batch"]),
        (TRAIN[:15] + HELD, {"ensemble": Lora(members=2)}, ["7 training pairs are fewer than fit_reward.batch=8"]),
        (TRAIN, {}, ["40 training and 0 held-out pairs", "raise label.held_out"]),
        (TRAIN + HELD[:1], {}, ["40 training and 1 held-out pairs"]),
        (HELD, {}, ["0 training and 16 held-out pairs"]),
        ([replace(p, rejected=p.chosen + " ") for p in PAIRS], {}, ["56 of 56 pairs are one text to the encoder"]),
        (PAIRS, {"ensemble": Full(members=1, published=("/nowhere",))}, ["fit_reward.ensemble.published=/nowhere"]),
        (PAIRS, {"strength": PreferenceStrength(model="/nowhere")}, ["/nowhere holds no reward.json"]),
        ([replace(p, prompt="the room :") for p in PAIRS], {"augment": Augment(share=1.0)}, ["at least two prompts"]),
        (TRAIN + [replace(p, rejected=p.chosen) for p in HELD[:3]], {}, ["3 of 43 pairs are one text", "too few"]),
    ],
)  # fmt: skip
def test_pairs_that_cannot_be_fitted_to_are_refused_before_the_fit(source, pairs, changes, words):
    with pytest.raises(UserError) as raised:
        fit(source, pairs, **changes)
    for word in words:
        assert word in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_batch_that_workers_cannot_share_is_refused(source):
    with pytest.raises(UserError, match=r"fit_reward\.batch=8 does not divide into 3 workers: .*fit\.replicas"):
        fit(source, PAIRS, setting={"shard": Shard(rank=0, size=3)})


@pytest.mark.parametrize("ensemble", [Single(), Lora(members=2)], ids=str)
def test_a_fit_that_diverges_stops_with_step_part_and_rate(source, ensemble):
    with pytest.raises(
        RunError, match=r"fit_reward: the (loss|gradient) is .* at step \d of (model|encoder); lower"
    ) as raised:
        fit(source, PAIRS, ensemble=ensemble, optimizer=Optimizer(lr=1e30))
    assert "\n" not in str(raised.value)


def test_one_sided_lengths_are_warned_about(source):
    sided = [replace(p, chosen=p.chosen + " and good and good and good and good") for p in TRAIN * 2] + HELD
    with pytest.warns(
        UserWarning, match=r"the chosen response is the longer one in 78 of 80 pairs: .*fit_reward\.odin"
    ):
        fit(source, sided)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"ensemble": {"kind": "lora"}, "odin": {}}, "odin needs heads that are fitted once"),
        ({"ensemble": {"kind": "averaged"}, "odin": {}}, "ensemble.kind=averaged cannot have it"),
        ({"ensemble": {"kind": "full", "members": 0}}, "there is no reward model to make"),
        ({"ensemble": {"kind": "shared_encoder", "heads": 3, "init_scale": [1, 2]}}, "2 numbers for heads=3"),
        ({"ensemble": {"kind": "shared_encoder", "init_scale": 0}}, "must be greater than 0"),
        ({"ensemble": {"kind": "averaged", "members": 1}}, "greater than or equal to 2"),
        ({"ensemble": {"kind": "lora", "first_share": 1.0}}, "less than 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tree, words):
    with pytest.raises(ValidationError) as raised:
        FitReward.model_validate(tree)
    assert words in str(raised.value)
