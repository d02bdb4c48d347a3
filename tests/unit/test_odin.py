import math

import numpy as np
import pytest
import torch
from torch import nn

from framework.preference import preference_loss
from framework.training.odin import Odin, odin_penalty, pearson

LENGTHS = torch.tensor([1.0, 2.0, 3.0, 4.0])
EAST, NORTH = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.2]])


def penalty(quality, length_scores, quality_weight=EAST, length_weight_matrix=NORTH, **settings):
    return odin_penalty(
        torch.tensor([quality]), torch.tensor([length_scores]), LENGTHS,
        quality_weight, length_weight_matrix, Odin(**settings),
    ).item()  # fmt: skip


def test_pearson_is_numpys_and_is_blind_to_units():
    scores = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    lengths = torch.arange(20.0) ** 2
    expected = [np.corrcoef(row, lengths)[0, 1] for row in scores.numpy()]
    assert pearson(scores, lengths).tolist() == pytest.approx(expected, abs=1e-6)
    assert pearson(1e-4 * scores + 2, 1000 * lengths).tolist() == pytest.approx(expected, abs=1e-2)


def test_nothing_to_pay_when_the_length_head_takes_it_all():
    assert penalty([1.0, -1.0, -1.0, 1.0], [2.0, 4.0, 6.0, 8.0]) == pytest.approx(0, abs=1e-6)


def test_each_term_by_hand():
    # Quality follows length (1), the length head runs against it (1 + 1).
    assert penalty([2.0, 4.0, 6.0, 8.0], [4.0, 3.0, 2.0, 1.0]) == pytest.approx(3)
    assert penalty([8.0, 6.0, 4.0, 2.0], [1.0, 2.0, 3.0, 4.0]) == pytest.approx(1)
    assert penalty([2.0, 4.0, 6.0, 8.0], [4.0, 3.0, 2.0, 1.0], length_weight=0) == pytest.approx(0)
    slanted = torch.tensor([[1.0, 1.0]])
    at = [1.0, -1.0, -1.0, 1.0], [1.0, 2.0, 3.0, 4.0]
    assert penalty(*at, EAST, slanted) == pytest.approx(math.sqrt(0.5))
    assert penalty(*at, EAST, -1e-3 * slanted) == pytest.approx(math.sqrt(0.5))
    assert penalty(*at, EAST, slanted, orthogonal_weight=0) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("quality", [[0.1] * 4, [0.0] * 4, [0.1, 0.2, 0.3, 0.4]])
@pytest.mark.parametrize("lengths", [[7.0] * 4, [1.0, 2.0, 3.0, 4.0]])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_constant_scores_lengths_and_zero_weights_give_no_nan(quality, lengths, weight):
    leaves = [torch.tensor([quality]), torch.tensor([quality]), torch.full((1, 2), weight), torch.ones(1, 2)]
    for leaf in leaves:
        leaf.requires_grad_()
    loss = odin_penalty(leaves[0], leaves[1], torch.tensor(lengths), leaves[2], leaves[3], Odin())
    loss.backward()
    assert loss.isfinite()
    assert all(leaf.grad.isfinite().all() and leaf.grad.abs().max() < 100 for leaf in leaves)


def test_heads_answer_to_their_own_length_head_only():
    quality = torch.tensor([[1.0, -1.0, -1.0, 1.0], [1.0, -1.0, -1.0, 1.0]])
    length_scores = torch.stack([LENGTHS, LENGTHS])
    weights = torch.cat([EAST, NORTH]), torch.cat([NORTH, EAST])
    assert odin_penalty(quality, length_scores, LENGTHS, *weights, Odin()).item() == pytest.approx(0, abs=1e-6)


def test_a_fit_on_labels_that_favour_length_leaves_quality_free_of_it():
    # Feature 0 is quality, feature 1 is length; labels like both.
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 400, 8, generator=generator)
    worth = features[..., 0] + 1.5 * features[..., 1]
    better = (worth[0] > worth[1]).unsqueeze(1)
    chosen, rejected = (torch.where(b, features[0], features[1]) for b in (better, ~better))
    texts, ones = torch.cat([chosen, rejected]), torch.ones(400)

    def fitted(odin):
        torch.manual_seed(0)
        heads = nn.Linear(8, 2)
        adam = torch.optim.Adam(heads.parameters(), lr=0.05)
        for _ in range(200):
            quality, length = heads(texts).T.split(1)
            total = quality + length
            loss = preference_loss(
                total[:, :400], total[:, 400:], target=ones, margin=0 * ones, weight=ones, counts=torch.ones(1, 400)
            )
            loss = loss + odin_penalty(quality, length, texts[:, 1], heads.weight[:1], heads.weight[1:], odin)
            adam.zero_grad()
            loss.backward()
            adam.step()
        scores = heads(texts).T[:1].detach()
        return abs(pearson(scores, texts[:, 1]).item()), pearson(scores, texts[:, 0]).item()

    leans, likes = fitted(Odin())
    leans_without, _ = fitted(Odin(length_weight=0, orthogonal_weight=0))
    assert leans < 0.05
    assert likes > 0.9
    assert leans_without > 0.5
