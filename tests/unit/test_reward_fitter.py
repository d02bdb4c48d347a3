"""A reward fit: what each setting does to it, what it leaves alone, and what it refuses."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from framework.data.augment import Augment
from framework.ensembles import Averaged, Full, Lora, SharedEncoder
from framework.models.encoders import load_encoder
from framework.training.engine import Optimizer
from framework.training.fit import FitSetting
from framework.training.odin import Odin
from framework.training.preference_strength import PreferenceStrength
from framework.training.reward_fit import fit_reward, prepare_pairs
from framework.training.reward_fitter import RewardFitter
from framework.training.reward_settings import FitReward
from framework.worlds.reviews import Reviews
from tests.tiny_reward import SETTINGS, encoder_folder, fit, fit_in, make_pairs, published_folder, same

PAIRS = make_pairs()
TRAIN = [pair for pair in PAIRS if pair.split == "train"]
HELD = [pair for pair in PAIRS if pair.split == "held_out"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def plain(source):
    return fit(source, PAIRS)


def settings(**changes):
    return FitReward(**(SETTINGS | changes))


def fitter(source, pairs=TRAIN, seed=0, **changes):
    return RewardFitter(settings(**changes), source, Reviews().tokenizer(), pairs, FitSetting(seed))


def part_weights(folder, name):
    return load_file(folder / name / "weights.safetensors")


# What reaches the fit


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 2},
        {"batch": 16},
        {"optimizer": Optimizer(lr=2e-2)},
        {"score_l2": 0.1},
        {"label_smoothing": 0.1},
        {"augment": Augment(share=0.5)},
        {"odin": Odin()},
        {"max_tokens": 6, "max_cut_share": 1.0},
        {"ensemble": SharedEncoder(heads=1, freeze_encoder=True)},
        {"ensemble": SharedEncoder(heads=1, dropout=0.5)},
        {"ensemble": SharedEncoder(heads=1, init_scale=2.0)},
    ],
    ids=str,
)
def test_a_setting_changes_the_weights(source, plain, changes):
    changed = fit(source, PAIRS, **changes)
    assert not torch.equal(changed.members[0].heads.weight, plain.members[0].heads.weight)
    assert changed.num_heads == 1


@pytest.mark.parametrize("field", [{"margin": 1.0}, {"weight": 3.0}, {"target": 0.6}], ids=str)
def test_what_a_pair_carries_changes_the_weights(source, plain, field):
    changed = fit(source, [replace(PAIRS[0], **field), *PAIRS[1:]])
    assert not torch.equal(changed.members[0].heads.weight, plain.members[0].heads.weight)


def test_a_pair_of_no_weight_has_no_influence(source):
    light = [replace(pair, weight=0.0) if i % 3 == 0 else pair for i, pair in enumerate(TRAIN)]
    turned = [replace(p, chosen=p.rejected, rejected=p.chosen) if not p.weight else p for p in light]
    assert turned != light
    assert same(fit(source, turned + HELD), fit(source, light + HELD))
    assert not same(fit(source, light + HELD), fit(source, PAIRS))


def test_held_out_pairs_are_not_trained_on(source, plain):
    other = fit(source, TRAIN + make_pairs(count=0, held=12, seed=5))
    assert torch.equal(other.members[0].heads.weight, plain.members[0].heads.weight)
    assert not torch.equal(other.centre, plain.centre)


def test_weak_labels_are_turned_round_by_an_earlier_model(source, tmp_path):
    fit(source, PAIRS, ensemble=SharedEncoder(heads=2), epochs=8).save(tmp_path)
    wrong = [replace(p, chosen=p.rejected, rejected=p.chosen) if i < 8 else p for i, p in enumerate(TRAIN)]
    strength = PreferenceStrength(model=str(tmp_path), flip_share=0.2)
    mended, counted = prepare_pairs(wrong, settings(strength=strength), FitSetting(seed=0))
    assert counted == {"strength_flipped": 8, "strength_softened": 0, "strength_margins": 0, "training_pairs": 40}
    assert sum(pair.chosen == right.chosen for pair, right in zip(mended[:8], TRAIN[:8], strict=True)) >= 6
    mending, trusting = fit(source, wrong + HELD, strength=strength), fit(source, wrong + HELD)
    assert not torch.equal(mending.members[0].heads.weight, trusting.members[0].heads.weight)


def test_figures_say_what_was_added_and_what_the_model_is_worth(source):
    model, figures, quality = fit_reward(settings(augment=Augment(share=0.5)), source, PAIRS, FitSetting(seed=0))
    kinds = ("chosen_over_off_prompt", "rejected_over_off_prompt", "off_prompt_ties")
    assert figures["training_pairs"] == 40 + sum(figures[f"augmented_{kind}"] for kind in kinds) > 80
    assert figures["held_out_pairs"] == len(HELD) == quality["held_out_pairs"]
    assert 0 < figures["loss"] < 1
    assert model.num_heads == 1


# Parts and steps


def test_batches_of_a_pass_hold_every_pair_once_in_an_order_of_their_own(source):
    one = fitter(source, epochs=2, ensemble=Full(members=2))
    share, passes = list(range(40)), {}
    for order in (0, 1):
        for epoch in (0, 1):
            seen = [i for at in range(5) for i in one._batch(share, order, 5 * epoch + at)]
            assert sorted(seen) == share
            passes[order, epoch] = tuple(seen)
    assert len(set(passes.values())) == 4
    assert one._batch(share, 0, 7) == fitter(source, epochs=2)._batch(share, 0, 7)


def test_what_does_not_fill_a_batch_waits_for_the_next_pass(source):
    one = fitter(source, TRAIN[:20], epochs=3)
    assert one.loop.total_steps == 6
    assert all(len(one._batch(list(range(20)), 0, step)) == 8 for step in range(6))


def test_each_head_has_its_own_resample(source):
    one = fitter(source, TRAIN * 25, ensemble=SharedEncoder(heads=3))
    counts = one._counts(one.start(0, 3), one.parts["model"])
    assert counts.shape == (3, 1000)
    assert torch.equal(counts, counts.round())
    # Poisson(1): mean and variance 1, and e^-1 of the pairs left out.
    assert counts.mean(dim=1).tolist() == pytest.approx([1, 1, 1], abs=0.15)
    assert counts.var(dim=1).tolist() == pytest.approx([1, 1, 1], abs=0.2)
    assert (counts == 0).float().mean().item() == pytest.approx(math.exp(-1), abs=0.05)
    assert not torch.equal(counts[0], counts[1])
    again = fitter(source, TRAIN * 25, ensemble=SharedEncoder(heads=3))
    assert torch.equal(again._counts(again.start(0, 3), again.parts["model"]), counts)
    whole = fitter(source, TRAIN, ensemble=SharedEncoder(heads=3, bootstrap=False))
    assert torch.equal(whole._counts(whole.start(0, 3), whole.parts["model"]), torch.ones(3, 40))


def test_bootstrap_is_for_several_heads_and_changes_them(source):
    with_it, without = (fit(source, PAIRS, ensemble=SharedEncoder(heads=2, bootstrap=b)) for b in (True, False))
    assert not torch.equal(with_it.members[0].heads.weight, without.members[0].heads.weight)
    one = (fit(source, PAIRS, ensemble=SharedEncoder(heads=1, bootstrap=b)) for b in (True, False))
    assert same(*one)


def test_start_scales_reach_their_heads(source):
    scaled = fitter(source, ensemble=SharedEncoder(heads=2, init_scale=(1.0, 4.0))).start(0, 2, (1.0, 4.0))
    plain = fitter(source).start(0, 2)
    assert torch.equal(scaled.heads.weight, plain.heads.weight * torch.tensor([[1.0], [4.0]]))


# What is left alone, and what is made of the parts


def test_a_frozen_encoder_does_not_move(source):
    model = fit(source, PAIRS, ensemble=SharedEncoder(heads=3, freeze_encoder=True))
    begun = load_encoder(source).state_dict()
    assert all(torch.equal(value, begun[name]) for name, value in model.members[0].encoder.state_dict().items())
    moved = fit(source, PAIRS, ensemble=SharedEncoder(heads=3)).members[0].encoder.state_dict()
    assert all(not torch.equal(value, begun[name]) for name, value in moved.items())


def test_the_average_is_of_every_weight(source, tmp_path):
    model = fit_in(tmp_path, source, PAIRS, ensemble=Averaged(members=3))
    members = [part_weights(tmp_path, f"member_{k}") for k in range(3)]
    for name, value in model.members[0].named_parameters():
        assert torch.equal(value, torch.stack([member[name] for member in members]).mean(dim=0)), name
    assert not torch.equal(members[0]["heads.weight"], members[1]["heads.weight"])
    # The probe leaves the encoder alone, and everyone begins from it.
    probe, begun = part_weights(tmp_path, "probe"), load_encoder(source).state_dict()
    assert all(torch.equal(probe[f"encoder.{name}"], value) for name, value in begun.items())


def test_averaged_models_take_their_learning_rates_in_turn(source, tmp_path):
    rates = [part.lr_factor for part in Averaged(members=5).parts().values()]
    assert rates == [1.0, 1.0, 0.5, 2.0, 1.0, 0.5]
    begun = load_encoder(source).state_dict()["embed_tokens.weight"]
    fit_in(tmp_path, source, PAIRS, ensemble=Averaged(members=3), optimizer=Optimizer(lr=1e-4))
    moved = [
        (part_weights(tmp_path, f"member_{k}")["encoder.embed_tokens.weight"] - begun).abs().max() for k in range(3)
    ]
    assert moved[1] < 0.7 * moved[0] < 0.5 * moved[2]


def test_adapters_leave_the_encoder_that_the_first_part_made(source, tmp_path):
    from transformers import AutoModel

    model = fit_in(tmp_path / "parts", source, PAIRS, ensemble=Lora(members=3, rank=2))
    model.save(tmp_path / "reward")
    base = part_weights(tmp_path / "parts", "encoder")
    opened = AutoModel.from_pretrained(tmp_path / "reward").state_dict()
    assert {f"encoder.{name}" for name in opened} == {name for name in base if name.startswith("encoder.")}
    assert all(torch.equal(value, base[f"encoder.{name}"]) for name, value in opened.items())
    adapters = [part_weights(tmp_path / "parts", f"adapter_{k}") for k in range(3)]
    for k in range(3):
        assert not any(f"adapter_{other}" in name for name in adapters[k] for other in range(3) if other != k)
        assert all(value.abs().max() > 0 for name, value in adapters[k].items() if "lora_B" in name)
    assert not torch.equal(adapters[0]["head.weight"], adapters[1]["head.weight"])


def test_adapters_see_none_of_the_encoders_pairs(source):
    one = fitter(source, TRAIN[:35], ensemble=Lora(members=2, first_share=0.3))
    shares = {name: set(one._share(part)) for name, part in one.parts.items()}
    assert shares["adapter_0"] == shares["adapter_1"]
    assert shares["encoder"].isdisjoint(shares["adapter_0"])
    assert shares["encoder"] | shares["adapter_0"] == set(range(35))
    assert len(shares["encoder"]) == round(0.3 * 35)


def test_odin_fits_a_length_head_to_each_head_and_drops_it(source, tmp_path):
    model = fit_in(tmp_path, source, PAIRS, ensemble=SharedEncoder(heads=2), odin=Odin())
    fitted = part_weights(tmp_path, "model")["heads.weight"]
    assert fitted.shape == (4, 16)
    assert model.num_heads == 2
    assert torch.equal(model.members[0].heads.weight, fitted[:2])
    weak = fit_in(tmp_path / "weak", source, PAIRS, ensemble=SharedEncoder(heads=2), odin=Odin(orthogonal_weight=0.0))
    assert not torch.equal(weak.members[0].heads.weight, model.members[0].heads.weight)


def test_odin_scales_length_heads_as_their_heads(source):
    one = fitter(source, ensemble=SharedEncoder(heads=2, init_scale=(1.0, 4.0)), odin=Odin())
    spread = one.start(0, 2, (1.0, 4.0)).heads.weight.norm(dim=1)
    assert spread.shape == (4,)
    assert spread[1] > 2 * spread[0]
    assert spread[3] > 2 * spread[2]


def test_a_published_model_joins_as_it_is(source, tmp_path):
    path = published_folder(tmp_path)
    model = fit(source, PAIRS, ensemble=Full(members=1, published=(path,)))
    assert torch.equal(model.members[0].heads.weight, fit(source, PAIRS).members[0].heads.weight)
    only = fit(source, PAIRS, ensemble=Full(members=0, published=(path,)))
    assert torch.equal(only.reference.scores[0], model.reference.scores[1])
