import math

import pytest
import torch
import torch.nn.functional as F

from framework.preference import preference_loss

CHOSEN = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
REJECTED = torch.tensor([[0.0, 0.0, 3.0], [0.0, -1.0, -1.0]])


def plain(**changes):
    """Arguments under which the loss is the mean of Bradley-Terry."""
    heads, pairs = CHOSEN.shape
    return {
        "target": torch.ones(pairs),
        "margin": torch.zeros(pairs),
        "weight": torch.ones(pairs),
        "counts": torch.ones(heads, pairs),
        "score_l2": 0.0,
        "label_smoothing": 0.0,
    } | changes


def test_bradley_terry_by_hand():
    # A tie costs log 2; a lead of 1 costs log(1 + 1/e).
    costs = [math.log1p(math.exp(-1)), math.log(2), math.log1p(math.e)]
    assert preference_loss(CHOSEN[:1], REJECTED[:1], **plain(counts=torch.ones(1, 3))).item() == pytest.approx(
        sum(costs) / 3
    )


def test_a_margin_is_a_handicap_for_the_chosen():
    with_margin = plain(margin=torch.tensor([1.0, 2.0, 0.5]))
    by_hand = preference_loss(CHOSEN - torch.tensor([1.0, 2.0, 0.5]), REJECTED, **plain())
    torch.testing.assert_close(preference_loss(CHOSEN, REJECTED, **with_margin), by_hand)


def test_a_constant_per_head_changes_nothing():
    shift = torch.tensor([[5.0], [-3.0]])
    shifted = preference_loss(CHOSEN + shift, REJECTED + shift, **plain())
    torch.testing.assert_close(shifted, preference_loss(CHOSEN, REJECTED, **plain()))


def test_plain_preference_loss_is_bradley_terry_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    counts = torch.poisson(torch.ones(5, 64), generator=generator)
    values = [torch.randn(5, 64, generator=generator) * 8 for _ in range(2)]
    grads, losses = [], []
    for loss_of in (
        lambda c, r: (-F.logsigmoid(c - r) * counts).mean(),
        lambda c, r: preference_loss(
            c, r, target=torch.ones(64), margin=torch.zeros(64), weight=torch.ones(64), counts=counts
        ),
    ):
        leaves = [v.clone().requires_grad_() for v in values]
        loss = loss_of(*leaves)
        loss.backward()
        losses.append(loss)
        grads.append([leaf.grad for leaf in leaves])
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(grads[0][0], grads[1][0])
    assert torch.equal(grads[0][1], grads[1][1])


def test_hopeless_pairs_stay_finite_under_every_option():
    chosen = torch.tensor([[-1e4, 1e4]], requires_grad=True)
    loss = preference_loss(
        chosen, -chosen.detach(), target=torch.tensor([1.0, 0.5]), margin=torch.ones(2),
        weight=torch.ones(2), counts=torch.ones(1, 2), score_l2=1e-3, label_smoothing=0.1,
    )  # fmt: skip
    loss.backward()
    assert loss.isfinite()
    assert chosen.grad.isfinite().all()


def test_weight_and_counts_multiply_and_the_mean_does_not_renormalise():
    weight, counts = torch.tensor([2.0, 0.0, 0.5]), torch.tensor([[1.0, 3.0, 0.0], [0.0, 1.0, 4.0]])
    loss = preference_loss(CHOSEN, REJECTED, **plain(weight=weight, counts=counts))
    by_hand = 2 * math.log1p(math.exp(-1)) + 0.5 * 4 * math.log1p(math.exp(-1))
    assert loss.item() == pytest.approx(by_hand / 6)
    doubled = preference_loss(CHOSEN, REJECTED, **plain(weight=2 * weight, counts=counts))
    assert doubled.item() == pytest.approx(2 * loss.item())


def test_a_tie_is_best_at_equal_scores_and_swapping_sides_means_target_one_minus():
    tie = plain(target=torch.full((3,), 0.5))
    same = preference_loss(CHOSEN, CHOSEN, **tie)
    assert same.item() == pytest.approx(math.log(2))
    assert preference_loss(CHOSEN, REJECTED, **tie) > same
    target = torch.tensor([0.7, 0.2, 1.0])
    there = preference_loss(CHOSEN, REJECTED, **plain(target=target))
    back = preference_loss(REJECTED, CHOSEN, **plain(target=1 - target))
    torch.testing.assert_close(there, back)


@pytest.mark.parametrize(("target", "margin", "smoothing"), [(0.8, 0.0, 0.0), (0.8, 1.5, 0.0), (1.0, 1.5, 0.1)])
def test_the_loss_is_least_at_the_margin_plus_the_log_odds(target, margin, smoothing):
    odds = target * (1 - smoothing) + (1 - target) * smoothing
    lead = torch.tensor([[margin + math.log(odds / (1 - odds))]], dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, dtype=torch.float64)
    loss = preference_loss(
        lead, torch.zeros_like(lead), target=target * one, margin=margin * one, weight=one,
        counts=one.unsqueeze(0), label_smoothing=smoothing,
    )  # fmt: skip
    loss.backward()
    assert lead.grad.item() == pytest.approx(0, abs=1e-12)
    assert loss.item() == pytest.approx(-odds * math.log(odds) - (1 - odds) * math.log(1 - odds))


def test_smoothing_is_a_soft_label():
    smooth = preference_loss(CHOSEN, REJECTED, **plain(label_smoothing=0.1))
    soft = preference_loss(CHOSEN, REJECTED, **plain(target=torch.full((3,), 0.9)))
    torch.testing.assert_close(smooth, soft)


def test_score_l2_by_hand_and_untouched_by_weights():
    bare = preference_loss(CHOSEN, REJECTED, **plain(weight=torch.zeros(3)))
    held = preference_loss(CHOSEN, REJECTED, **plain(weight=torch.zeros(3), score_l2=0.1))
    assert bare.item() == 0
    # Squares: 1, 0, 4, 0, 0, 0 chosen; 0, 0, 9, 0, 1, 1 rejected; six pairs and heads.
    assert held.item() == pytest.approx(0.1 * (5 + 11) / 6 / 2)
