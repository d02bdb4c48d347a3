import pytest
import torch
from pydantic import ValidationError

from framework.masked import at_last_token
from framework.objectives import Reinforce
from framework.reduction import FixedLength, SequenceMean, TokenMean
from framework.seeding import derive
from framework.shaping import KlInLoss, KlInReward
from framework.types import PolicyBatch

LOGPROBS = torch.tensor([[-1.0, -2.0, 0.0], [-3.0, 0.0, 0.0]], dtype=torch.float64)
REFERENCE = torch.tensor([[-2.0, -1.5, 0.0], [-1.0, 0.0, 0.0]], dtype=torch.float64)
MASK = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
REWARD = torch.tensor([5.0, 7.0], dtype=torch.float64)


def test_kl_in_reward_by_hand(make_rollout):
    # k1 = 1, -0.5 | -2; coefficient 0.1.
    shaped = KlInReward()(make_rollout(MASK, logprobs=LOGPROBS), REFERENCE, REWARD, 0.1)
    assert shaped.token_rewards[0].tolist() == pytest.approx([-0.1, 5.05, 0.0])
    assert shaped.token_rewards[1].tolist() == pytest.approx([7.2, 0.0, 0.0])
    assert shaped.kl_nats.tolist() == [0.5, -2.0]


def test_kl_in_loss_by_hand(make_rollout):
    shaped = KlInLoss()(make_rollout(MASK, logprobs=LOGPROBS), REFERENCE, REWARD, 0.1)
    assert shaped.token_rewards.tolist() == [[0.0, 5.0, 0.0], [7.0, 0.0, 0.0]]
    weights = TokenMean().weights(MASK)
    # Three tokens. Sequences: (0.5^2 + 2^2) / 2. Tokens: (1 + 0.25 + 4) / 2.
    sequence = KlInLoss(level="sequence").loss(LOGPROBS, REFERENCE, MASK, 0.1, weights)
    assert sequence.item() == pytest.approx(0.1 * (0.125 + 2.0) / 3)
    token = KlInLoss(level="token").loss(LOGPROBS, REFERENCE, MASK, 0.1, weights)
    assert token.item() == pytest.approx(0.1 * 2.625 / 3)


def test_k1_in_the_loss_cannot_be_asked_for():
    with pytest.raises(ValidationError):
        KlInLoss(estimator="k1")


@pytest.mark.parametrize("reduction", [TokenMean(), SequenceMean(), FixedLength(max_tokens=9)])
def test_sequence_k2_in_the_loss_is_k1_in_the_reward(reduction, make_rollout):
    """One gradient, sample by sample, for REINFORCE without a baseline, under any reduction."""
    draw = torch.Generator().manual_seed(derive(0, "shaping"))
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    logprobs = (-torch.rand(4, 4, generator=draw, dtype=torch.float64) * mask).requires_grad_()
    reference = -torch.rand(4, 4, generator=draw, dtype=torch.float64) * mask
    reward = torch.randn(4, generator=draw, dtype=torch.float64)
    weights = reduction.weights(mask)
    rollout = make_rollout(mask, logprobs=logprobs.detach())

    def gradient(shaping):
        shaped = shaping(rollout, reference, reward, 0.3)
        whole = shaped.token_rewards.sum(dim=1, keepdim=True).expand_as(mask)
        batch = PolicyBatch(logprobs, rollout.logprobs, whole, mask)
        loss = (Reinforce()(batch).token_loss * weights).sum()
        if isinstance(shaping, KlInLoss):
            loss = loss + shaping.loss(logprobs, reference, mask, 0.3, weights)
        return torch.autograd.grad(loss, logprobs)[0]

    torch.testing.assert_close(gradient(KlInLoss()), gradient(KlInReward()))


@pytest.mark.parametrize("estimator", ["k2", "k3"])
@pytest.mark.parametrize("level", ["sequence", "token"])
def test_kl_in_the_loss_ignores_padding_and_adds_up_over_parts(estimator, level):
    logprobs = LOGPROBS.clone().requires_grad_()
    reference = REFERENCE.masked_fill(~MASK, torch.nan)
    weights = SequenceMean().weights(MASK)
    shaping = KlInLoss(estimator=estimator, level=level)
    loss = shaping.loss(logprobs, reference, MASK, 0.1, weights)
    loss.backward()
    assert loss.isfinite()
    assert logprobs.grad.isfinite().all()
    assert not logprobs.grad[~MASK].any()
    parts = [
        shaping.loss(LOGPROBS[i : i + 1], reference[i : i + 1], MASK[i : i + 1], 0.1, weights[i : i + 1])
        for i in range(2)
    ]
    torch.testing.assert_close(sum(parts), loss.detach())


def test_the_reward_stands_on_the_last_real_token():
    mask = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()
    placed = at_last_token(torch.tensor([2.0, 3.0, 4.0]), mask)
    assert placed.tolist() == [[0, 0, 2, 0], [0, 0, 0, 0], [0, 0, 0, 4]]
