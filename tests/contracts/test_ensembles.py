"""What every kind of reward model must keep, whatever it is made of. A new kind is tested the day it is added."""

import copy
from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter

from actors.group import InlineGroup
from actors.reward import RewardRole, RewardWorker
from framework.aggregation import Aggregation
from framework.ensembles import Ensemble, Full, Lora, SharedEncoder, Single
from framework.errors import RunError
from framework.models.lora_heads import LoraHeads
from framework.models.reward_folder import read_reference
from framework.models.reward_model import RewardModel
from framework.types import Answers
from tests.tiny_reward import encoder_folder, fit, fit_in, make_pairs, published_folder, same, small

KINDS = get_args(get_args(Ensemble)[0])
PAIRS = make_pairs()
HELD = [pair for pair in PAIRS if pair.split == "held_out"]
PROMPTS = [pair.prompt for pair in HELD] * 2
RESPONSES = [pair.chosen for pair in HELD] + [pair.rejected for pair in HELD]
EVERY_AGGREGATION = pytest.mark.parametrize("aggregation", get_args(get_args(Aggregation)[0]))
SIZES = pytest.mark.parametrize("size", [1, 2, 3, 7])


@pytest.fixture(scope="module", params=["llama", "bert"])
def source(request, tmp_path_factory):
    return encoder_folder(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module", params=KINDS, ids=lambda member: member.model_fields["kind"].default)
def ensemble(request):
    return small(request.param)


@pytest.fixture(scope="module")
def fitted(ensemble, source, tmp_path_factory):
    """The model of this kind, fitted once, and the folder with its parts. Not to be changed."""
    parts = tmp_path_factory.mktemp("parts")
    return fit_in(parts, source, PAIRS, ensemble=ensemble), parts


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three members of one head each, the last one of another's making; the model, and its folder."""
    base = tmp_path_factory.mktemp("three")
    published = published_folder(base / "published")
    model = fit(encoder_folder(base / "encoder"), PAIRS, ensemble=Full(members=2, published=(published,)))
    model.save(base / "reward")
    return base / "reward", model


def scores(model):
    return model.score(PROMPTS, RESPONSES).values


def distances(model):
    return model.score(PROMPTS, RESPONSES).distances


# What there is


def test_it_survives_the_wire(ensemble):
    adapter = TypeAdapter(Ensemble)
    assert adapter.validate_json(adapter.dump_json(ensemble)) == ensemble


def test_every_head_scores_every_text_and_is_calibrated(ensemble, fitted):
    values = scores(fitted[0])
    assert values.shape == (ensemble.num_heads, len(PROMPTS))
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.mean(dim=1), torch.zeros(len(values)), rtol=0, atol=1e-4)
    torch.testing.assert_close(values.std(dim=1, correction=0), torch.ones(len(values)), rtol=0, atol=1e-4)
    assert torch.equal(values, fitted[0].reference.scores)


def test_every_encoding_knows_how_far_a_text_is_from_training(fitted):
    model = fitted[0]
    near = model.score([p.prompt for p in PAIRS[:40]], [p.chosen for p in PAIRS[:40]]).distances
    far = model.score(["the room :"], [" room" * 20]).distances
    assert len(near) == sum(len(cloud.mean) for cloud in model.clouds) > 0
    assert 0.8 < near.mean() < 1.2
    assert far.min() > 1.5 * near.mean()


def test_heads_differ(fitted):
    values = scores(fitted[0])
    for k in range(len(values)):
        for other in range(k):
            assert (values[k] - values[other]).abs().max() > 1e-3


def test_a_longer_fit_learns_the_pairs(ensemble, source):
    chosen, rejected = scores(fit(source, PAIRS, ensemble=ensemble, epochs=8)).chunk(2, dim=1)
    assert (chosen > rejected).float().mean(dim=1).min() > 0.8


def test_the_parts_it_names_are_the_parts_it_fits(ensemble, fitted):
    assert {path.parent.name for path in fitted[1].glob("*/state.json")} == set(ensemble.parts())


def test_the_progress_of_a_fit_counts_every_part_once(ensemble, source):
    seen = []
    fit(source, PAIRS[:24] + HELD, ensemble=ensemble, setting={"progress": lambda *a: seen.append(a[:2])})
    total = seen[-1][1]
    assert seen == [(step + 1, total) for step in range(total)]


def test_nothing_is_left_to_train_after_the_fit(fitted):
    for member in fitted[0].members:
        assert not any(part.training for part in member.modules())
        assert not any(parameter.requires_grad for parameter in member.parameters())


# The same numbers


def test_the_same_seed_is_the_same_model_and_another_is_not(ensemble, fitted, source):
    assert same(fit(source, PAIRS, ensemble=ensemble), fitted[0])
    assert not torch.equal(scores(fit(source, PAIRS, seed=1, ensemble=ensemble)), scores(fitted[0]))


def test_a_fit_does_not_depend_on_what_was_drawn_before_it(ensemble, fitted, source):
    torch.manual_seed(999)
    torch.rand(7)
    assert same(fit(source, PAIRS, ensemble=ensemble), fitted[0])


def test_a_folder_gives_back_the_same_scores_to_the_bit(fitted, tmp_path):
    fitted[0].save(tmp_path)
    again = RewardModel.load(tmp_path, rows=8)
    assert torch.equal(scores(again), scores(fitted[0]))
    assert torch.equal(distances(again), distances(fitted[0]))
    assert torch.equal(again.reference.scores, fitted[0].reference.scores)
    assert torch.equal(read_reference(tmp_path).lengths, fitted[0].reference.lengths)
    again.save(tmp_path / "again")
    assert torch.equal(scores(RewardModel.load(tmp_path / "again", rows=8)), scores(fitted[0]))


def test_a_score_does_not_depend_on_its_neighbours(fitted):
    model, whole = copy.copy(fitted[0]), scores(fitted[0])
    order = torch.randperm(len(PROMPTS), generator=torch.Generator().manual_seed(0)).tolist()
    mixed = model.score([PROMPTS[i] for i in order], [RESPONSES[i] for i in order]).values
    torch.testing.assert_close(mixed, whole[:, order], rtol=0, atol=1e-4)
    model.rows = 5
    torch.testing.assert_close(scores(model), whole, rtol=0, atol=1e-4)


@SIZES
def test_shares_of_the_members_joined_are_the_whole(fitted, tmp_path, size):
    fitted[0].save(tmp_path)
    parts = [RewardModel.load(tmp_path, rows=8, share=(rank, size)) for rank in range(size)]
    assert sum(part.num_heads for part in parts) == fitted[0].num_heads
    assert torch.equal(torch.cat([scores(part) for part in parts]), scores(fitted[0]))
    assert torch.equal(torch.cat([distances(part) for part in parts]), distances(fitted[0]))
    assert torch.equal(torch.cat([part.reference.scores for part in parts]), fitted[0].reference.scores)


@EVERY_AGGREGATION
def test_a_heads_own_unit_changes_no_reward(fitted, aggregation):
    model, k = copy.deepcopy(fitted[0]), fitted[0].num_heads - 1
    before = aggregation()(scores(model))
    member = model.members[-1]
    with torch.no_grad():
        own = member.heads[k] if isinstance(member, LoraHeads) else member.heads
        own.weight[-1] *= 7
        own.bias[-1] = own.bias[-1] * 7 + 2
    model.calibrate(PROMPTS, RESPONSES)
    assert not torch.equal(model.scale, fitted[0].scale)
    torch.testing.assert_close(aggregation()(scores(model)), before, rtol=0, atol=1e-5)


# How kinds are related


def test_one_head_on_an_encoder_is_the_single_model(source):
    single = fit(source, PAIRS, ensemble=Single())
    assert same(fit(source, PAIRS, ensemble=SharedEncoder(heads=1)), single)


def test_the_first_of_several_models_is_the_single_one(source):
    single, full = fit(source, PAIRS, ensemble=Single()), fit(source, PAIRS, ensemble=Full(members=2))
    mine, theirs = single.members[0].state_dict(), full.members[0].state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert torch.equal(scores(full)[:1], scores(single))
    assert any(not torch.equal(value, mine[name]) for name, value in full.members[1].state_dict().items())


@EVERY_AGGREGATION
def test_the_order_of_heads_changes_no_reward(source, aggregation):
    model = fit(source, PAIRS, ensemble=SharedEncoder(heads=5))
    before = aggregation()(scores(model))
    heads, order = model.members[0].heads, [3, 0, 4, 2, 1]
    with torch.no_grad():
        heads.weight.copy_(heads.weight[order].clone())
        heads.bias.copy_(heads.bias[order].clone())
    model.calibrate(PROMPTS, RESPONSES)
    torch.testing.assert_close(aggregation()(scores(model)), before, rtol=0, atol=1e-5)


# Members divided among workers


def answers():
    return Answers(
        tuple(PROMPTS), tuple(RESPONSES), torch.ones(len(PROMPTS)).bool(), torch.arange(len(PROMPTS)), step=4
    )


def worker_args(folder, max_cut_share=0.05):
    return (str(folder), 8, max_cut_share, "float32")


@SIZES
def test_workers_that_divide_the_members_are_one_that_holds_them_all(three, size):
    folder, model = three
    group = InlineGroup("reward", RewardWorker, (*worker_args(folder), "members"), replicas=size)
    role = RewardRole(group, rows=8, divide="members")
    scored = role.score(answers()).get()
    assert torch.equal(scored.values, scores(model))
    assert torch.equal(scored.distance, distances(model).mean(dim=0))  # the published member keeps no cloud
    assert torch.equal(role.reference().get().scores, model.reference.scores)
    held = [host._worker._held[1].num_heads for host in group._hosts]
    assert sum(held) == 3
    assert max(held) == -(-3 // size)


@SIZES
def test_workers_that_divide_the_rows_are_one(three, size):
    folder, model = three
    group = InlineGroup("reward", RewardWorker, worker_args(folder), replicas=size)
    scored = RewardRole(group, rows=8).score(answers()).get()
    assert torch.equal(scored.values, scores(model))
    assert torch.equal(scored.distances, distances(model))


@pytest.mark.parametrize("divide", ["rows", "members"])
def test_texts_over_the_limit_are_refused_with_their_number(three, divide):
    folder, _ = three
    group = InlineGroup("reward", RewardWorker, (*worker_args(folder), divide), replicas=2)
    long = Answers(("the room :",) * 4, (" fine" * 40, " fine") * 2, torch.ones(4).bool(), torch.arange(4), step=4)
    with pytest.raises(
        RunError, match=r"reward: \d of \d texts are longer than the 32 tokens .*at step 4: raise fit_reward"
    ):
        RewardRole(group, rows=2, divide=divide).score(long).get()
    lenient = InlineGroup("reward", RewardWorker, (*worker_args(folder, 0.5), divide), replicas=2)
    assert RewardRole(lenient, rows=2, divide=divide).score(long).get().values.shape == (3, 4)


def test_adapters_can_be_divided_only_as_one(source, tmp_path):
    # They share an encoder: one worker holds them, and the others nothing.
    model = fit(source, PAIRS, ensemble=Lora(members=2))
    model.save(tmp_path)
    assert sorted(RewardModel.load(tmp_path, share=(rank, 2)).num_heads for rank in (0, 1)) == [0, 2]
