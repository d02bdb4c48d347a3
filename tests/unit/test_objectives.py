import math

import pytest
import torch
from pydantic import ValidationError

from framework.critic import SquaredError
from framework.objectives import PpoClip, Reinforce
from framework.types import PolicyBatch


def batch_of(ratios, advantages):
    logprobs = torch.tensor([ratios]).log().requires_grad_()
    mask = torch.ones(1, len(ratios), dtype=torch.bool)
    return PolicyBatch(logprobs, torch.zeros(1, len(ratios)), torch.tensor([advantages]), mask)


def test_ppo_clip_by_hand():
    # Good token: paid up to ratio 1.2. Bad token: charged from 0.8 up, without end.
    batch = batch_of([0.5, 1.1, 1.5, 0.5, 1.1, 5.0], [2.0, 2.0, 2.0, -2.0, -2.0, -2.0])
    output = PpoClip()(batch)
    assert output.token_loss[0].tolist() == pytest.approx([-1.0, -2.2, -2.4, 1.6, 2.2, 10.0])
    assert output.token_metrics["clip_fraction"][0].tolist() == [0, 0, 1, 1, 0, 0]
    output.token_loss.sum().backward()
    # d(ratio)/d(logprob) is the ratio; a clipped token gets nothing.
    assert batch.logprobs.grad[0].tolist() == pytest.approx([-1.0, -2.2, 0.0, 0.0, 2.2, 10.0])


def test_dual_clip_caps_what_a_bad_token_costs():
    batch = batch_of([5.0, 1.1, 5.0], [-2.0, -2.0, 2.0])
    output = PpoClip(dual_clip=3.0)(batch)
    assert output.token_loss[0].tolist() == pytest.approx([6.0, 2.2, -2.4])
    assert output.token_metrics["dual_clip_fraction"][0].tolist() == [1, 0, 0]
    output.token_loss.sum().backward()
    assert batch.logprobs.grad[0].tolist() == pytest.approx([0.0, 2.2, 0.0])


def test_the_clip_range_may_be_lopsided():
    batch = batch_of([1.25, 0.75], [1.0, -1.0])
    loss = PpoClip(clip_low=0.3, clip_high=0.28)(batch).token_loss
    assert loss[0].tolist() == pytest.approx([-1.25, 0.75])


def test_ratio_metrics_by_hand():
    # Sampler to policy: k1 = -log 2, k3 = 2 - 1 - log 2.
    metrics = PpoClip()(batch_of([2.0], [1.0])).token_metrics
    assert metrics["ratio"].item() == pytest.approx(2)
    assert metrics["kl_to_sampler_k1"].item() == pytest.approx(-math.log(2))
    assert metrics["kl_to_sampler_k3"].item() == pytest.approx(1 - math.log(2))


def test_reinforce_by_hand():
    batch = batch_of([math.exp(-1), math.exp(-2)], [2.0, -3.0])
    output = Reinforce()(batch)
    assert output.token_loss[0].tolist() == pytest.approx([2.0, -6.0])
    output.token_loss.sum().backward()
    assert batch.logprobs.grad[0].tolist() == [-2, 3]


def test_on_policy_ppo_and_reinforce_have_one_gradient():
    gradients = []
    for objective in (PpoClip(), Reinforce()):
        batch = batch_of([1.0, 1.0, 1.0], [2.0, -3.0, 0.5])
        objective(batch).token_loss.sum().backward()
        gradients.append(batch.logprobs.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("settings", [{"clip_low": 0}, {"clip_low": 1}, {"clip_high": 0}, {"dual_clip": 1}])
def test_impossible_clips_are_refused(settings):
    with pytest.raises(ValidationError):
        PpoClip(**settings)


def test_value_loss_by_hand():
    values = torch.tensor([[1.0, 1.0, 1.0]], requires_grad=True)
    old, returns = torch.tensor([[0.5, 0.5, 9.0]]), torch.tensor([[3.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False]])
    # Unclipped: (1 - 3)^2 / 2, (1 - 0)^2 / 2. Held at 0.7: (0.7 - 3)^2 / 2 is larger, 0.49 / 2 is not.
    plain = SquaredError(clip=None)(values, old, returns, mask)
    assert plain[0].tolist() == pytest.approx([2.0, 0.5, 0.0])
    clipped = SquaredError(clip=0.2)(values, old, returns, mask)
    assert clipped[0].tolist() == pytest.approx([2.645, 0.5, 0.0])
    clipped.sum().backward()
    assert values.grad[0].tolist() == pytest.approx([0.0, 1.0, 0.0])
