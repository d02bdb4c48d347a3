import math

import pytest
import torch

from framework.masked import keep, masked_mean, masked_var, masked_whiten, sequence_sum

X = torch.tensor([[1.0, 3.0, torch.inf], [5.0, torch.nan, torch.nan]])
MASK = torch.tensor([[True, True, False], [True, False, False]])


def test_statistics_by_hand():
    # 1, 3, 5: mean 3; squared deviations 4 + 0 + 4.
    assert masked_mean(X, MASK).item() == 3
    assert masked_var(X, MASK, ddof=0).item() == pytest.approx(8 / 3)
    assert masked_var(X, MASK, ddof=1).item() == 4
    assert masked_whiten(X, MASK).tolist() == [[-1, 0, 0], [1, 0, 0]]
    assert sequence_sum(X, MASK).tolist() == [4, 5]


def test_nothing_real_gives_zeros():
    empty = torch.zeros_like(MASK)
    assert masked_mean(X, empty).item() == 0
    assert masked_var(X, empty, ddof=1).item() == 0
    assert not masked_whiten(X, empty).any()
    assert not sequence_sum(X, empty).any()


def test_one_real_token_is_whitened_to_zero():
    one = torch.tensor([[False, True, False], [False, False, False]])
    assert masked_mean(X, one).item() == 3
    assert not masked_whiten(X, one).any()


def test_junk_at_padding_gets_no_gradient():
    x = X.clone().requires_grad_()
    keep(x, MASK).sum().backward()
    assert torch.equal(x.grad, MASK.float())
    x.grad = None
    (masked_whiten(x, MASK) * torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])).sum().backward()
    assert x.grad.isfinite().all()
    assert not x.grad[~MASK].any()


def test_equal_values_are_not_blown_up():
    whitened = masked_whiten(torch.full((2, 3), 0.1), torch.ones(2, 3, dtype=torch.bool))
    assert whitened.abs().max().item() < 1e-3
    assert math.isfinite(whitened.sum().item())
