"""What every transform of the reward must keep, and what applying them one after the other must."""

import pickle
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from framework.aggregation import Mean, WorstCase
from framework.config import Config, parse_config
from framework.errors import UserError
from framework.methods import Online
from framework.seeding import derive
from framework.transforms import Clip, LengthCalibration, LogSigmoid, Par, Transform
from framework.transforms.apply import answers_per_row, apply_transforms
from framework.types import Answers, ReferenceScores
from framework.worlds import Reviews, Text

MEMBERS = pytest.mark.parametrize("member", get_args(get_args(Transform)[0]))
DRAW = torch.Generator().manual_seed(derive(0, "transforms"))
LENGTHS = torch.tensor([5.0, 5.0, 40.0, 300.0, 12.0])
ANSWERS = torch.randn(5, 3, generator=DRAW)
REWARD = torch.tensor([0.3, -1.2, 2.5, 9.0, -7.0])
REFERENCE = ReferenceScores(
    torch.randn(60, generator=DRAW).unsqueeze(0), torch.randint(3, 90, (60,), generator=DRAW).float()
)


def make(member):
    """The member as these answers need it."""
    return member(answers=3) if "answers" in member.model_fields else member()


def apply(member, reward=REWARD, order=slice(None)):
    return make(member)(reward[order], LENGTHS[order], ANSWERS[order], REFERENCE)


@MEMBERS
def test_shape_and_type_are_kept_and_numbers_stay_finite(member):
    for scale in (1.0, 1e4):
        out = apply(member, REWARD * scale)
        assert out.shape == REWARD.shape
        assert out.dtype == REWARD.dtype
        assert out.isfinite().all()


@MEMBERS
@given(raised=st.floats(0.01, 50.0))
def test_more_reward_never_pays_less(member, raised):
    """At the same length and beside the same answers."""
    assert (apply(member, REWARD + raised) >= apply(member)).all()


@MEMBERS
def test_row_order_does_not_matter(member):
    order = [3, 0, 4, 2, 1]
    torch.testing.assert_close(apply(member, order=order), apply(member)[order], rtol=0, atol=0)


@MEMBERS
def test_survives_the_wire_and_the_file(member):
    component = make(member)
    assert pickle.loads(pickle.dumps(component)) == component
    adapter = TypeAdapter(Transform)
    assert adapter.validate_json(adapter.dump_json(component)) == component
    cfg = Config(train=Online(transforms=(component,)))
    assert cfg == parse_config(cfg.model_dump(mode="json"))


@given(st.lists(st.floats(-8.0, 8.0), min_size=5, max_size=5))
def test_par_is_a_probability(rewards):
    out = apply(Par, torch.tensor(rewards))
    assert ((out > 0) & (out < 1)).all()


def test_hand_worked_values():
    reward, lengths = torch.tensor([1.0, 5.0]), torch.tensor([1.0, 1.0])
    answers = torch.tensor([[1.0, 1.0], [5.0 + torch.log(torch.tensor(3.0)), 5.0]])
    torch.testing.assert_close(
        Par(answers=2)(reward, lengths, answers, REFERENCE), torch.tensor([0.5, (0.25 + 0.5) / 2])
    )
    torch.testing.assert_close(
        LogSigmoid(answers=2)(reward, lengths, answers - answers, REFERENCE),
        torch.log(torch.tensor([1 / (1 + torch.e**-1), 1 / (1 + torch.e**-5)])),
    )
    assert Clip(low=0.0, high=2.0)(reward, lengths, None, REFERENCE).tolist() == [1.0, 2.0]


def test_the_mean_of_the_reference_responses_survives_length_calibration():
    out = LengthCalibration()(REFERENCE.scores[0], REFERENCE.lengths, None, REFERENCE)
    torch.testing.assert_close(out.mean(), REFERENCE.scores.mean())


# One after the other


def scores_of(make_rollout, rewards, responses):
    """Two heads that differ by two, over a rollout of these responses."""
    rollout = make_rollout(torch.ones(len(responses), 1))
    rollout = type(rollout)(**{**vars(rollout), "responses": tuple(responses)})
    return rollout, torch.stack([torch.tensor(rewards), torch.tensor(rewards) + 2.0])


@pytest.fixture
def setting(make_rollout):
    rollout, scores = scores_of(make_rollout, [0.0, 1.0, 4.0], ["aa", "bbbb", "c" * 9])
    answers = ReferenceScores(
        torch.tensor([[[0.0], [0.5], [6.0]], [[1.0], [1.5], [7.0]]]), torch.tensor([[3.0], [5.0], [7.0]])
    )
    lengths = torch.arange(2.0, 22.0)
    return rollout, scores, answers, ReferenceScores(torch.stack([lengths / 7, lengths / 5]), lengths)


def no_reference():
    raise AssertionError("asked for without need")


def test_without_transforms_the_reward_is_the_proxy_itself(setting):
    rollout, scores, _, _ = setting
    proxy = Mean()(scores)
    assert Online().needs_answers == 0
    assert torch.equal(Online().reward(Mean(), Reviews(), rollout, proxy, None, no_reference), proxy)


def test_a_missing_end_costs_a_unit_in_the_embedded_world_and_what_is_asked_elsewhere(setting):
    rollout, scores, _, _ = setting
    cut, proxy = replace(rollout, ended=torch.tensor([True, False, True])), Mean()(scores)
    text = Text(source={"path": "prompts.jsonl"})
    for train, world, loss in (
        (Online(), Reviews(), 1.0), (Online(), text, 0.0), (Online(missing_end_penalty=0.25), text, 0.25),
        (Online(missing_end_penalty=0.0), Reviews(), 0.0), (Online(transforms=(Clip(low=-9, high=9),)), Reviews(), 1.0),
    ):  # fmt: skip
        paid = train.reward(Mean(), world, cut, proxy, None, lambda: setting[3])
        assert (proxy - paid).tolist() == [0.0, loss, 0.0]


def test_scores_of_rollout_and_answers_are_aggregated_alike(setting):
    rollout, scores, answers, reference = setting
    train, worst = Online(transforms=(Par(),)), WorstCase()
    out = train.reward(worst, Reviews(), rollout, worst(scores), answers, lambda: reference)
    torch.testing.assert_close(out, torch.sigmoid(scores.amin(0) - answers.scores.amin(0)[:, 0]))


def test_order_counts_and_a_clip_before_a_comparison_clips_both_sides(setting):
    rollout, scores, answers, reference = setting
    proxy = Mean()(scores)
    both = apply_transforms((Clip(low=-3.0, high=3.0), Par()), Mean(), rollout, proxy, answers, lambda: reference)
    assert float(both[2]) == 0.5  # 5 against 6.5, each held at 3
    after = apply_transforms((Par(), Clip(low=0.0, high=0.3)), Mean(), rollout, proxy, answers, lambda: reference)
    assert float(after.max()) == pytest.approx(0.3)


def test_length_calibration_acts_on_both_sides_of_a_comparison(setting):
    """Rewards that are nothing but length: once it is out, every response is worth what its answer is."""
    rollout, _, _, reference = setting
    lengths, answer_lengths = torch.tensor([2.0, 4.0, 9.0]), torch.tensor([[3.0], [5.0], [7.0]])
    worth = lambda x: torch.stack([x / 7, x / 5])  # noqa: E731
    answers = ReferenceScores(worth(answer_lengths), answer_lengths)
    chain = (LengthCalibration(), Par())
    out = apply_transforms(chain, Mean(), rollout, Mean()(worth(lengths)), answers, lambda: reference)
    torch.testing.assert_close(out, torch.full((3,), 0.5), atol=1e-5, rtol=0)


def test_the_curve_is_fitted_once(setting, monkeypatch):
    from framework.transforms import length_calibration

    fits = []
    fit = length_calibration.LengthCurve.fit
    monkeypatch.setattr(length_calibration.LengthCurve, "fit", lambda *a: fits.append(1) or fit(*a))
    rollout, scores, _, reference = setting
    for _ in range(3):
        apply_transforms((LengthCalibration(),), Mean(), rollout, Mean()(scores), None, lambda: reference)
    assert len(fits) == 1


def test_answers_stand_beside_the_rows_of_their_prompt():
    answers = Answers(("p",) * 4, ("a", "bb", "ccc", "dddd"), torch.ones(4).bool(), torch.tensor([7, 7, 2, 2]), step=0)
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]])
    per_row = answers_per_row(answers, scores, torch.tensor([2, 7, 7]))
    assert per_row.scores.tolist() == [[[3, 4], [1, 2], [1, 2]], [[30, 40], [10, 20], [10, 20]]]
    assert per_row.lengths.tolist() == [[3, 4], [1, 2], [1, 2]]


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ([{"kind": "clip", "low": 2, "high": 1}], "train.transforms.0: low=2 must be below high=1"),
        ([{"kind": "clip", "low": 1, "high": 1}], "must be below"),
        ([{"kind": "par"}, {"kind": "log_sigmoid"}], "log_sigmoid cannot follow par"),
        ([{"kind": "par"}, {"kind": "clip"}, {"kind": "length_calibration"}], "cannot follow par"),
        ([{"kind": "par", "answer": 2}], "unknown key 'train.transforms.0.answer'; did you mean 'answers'"),
        ([{"kind": "par", "answers": 0}], "train.transforms.0.answers=0"),
        ([{"kind": "pa"}], "did you mean 'par'"),
    ],
)
def test_bad_transforms_are_refused_in_one_line(transforms, message):
    with pytest.raises(UserError) as refused:
        parse_config({"train": {"transforms": transforms}})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_most_answers_any_transform_needs():
    assert Online(transforms=(Clip(), LogSigmoid(answers=4))).needs_answers == 4
    assert Online(transforms=(Clip(), LengthCalibration())).needs_answers == 0
