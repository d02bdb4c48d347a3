import math

import pytest
import torch

from framework.divergence import exact_kl, k1, k2, k3, sequence_log_ratio


def test_estimators_by_hand():
    # d = log 2: k1 = log 2, k2 = (log 2)^2 / 2, k3 = 1/2 - 1 + log 2.
    logprobs, reference = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert k1(logprobs, reference).item() == pytest.approx(0.693147)
    assert k2(logprobs, reference).item() == pytest.approx(0.2402265)
    assert k3(logprobs, reference).item() == pytest.approx(0.193147)


def test_k3_keeps_its_digits_near_zero():
    # exp(-d) - 1 + d is d^2 / 2 to second order; computed naively in 32 bits it would be 0 or 6e-8.
    tiny = k3(torch.tensor([1e-3]), torch.tensor([0.0])).item()
    assert tiny == pytest.approx(5e-7, rel=0.05)


def test_sequence_figures_by_hand():
    logprobs = torch.tensor([[-1.0, -2.0, 9.0], [-1.0, 9.0, 9.0]])
    reference = torch.tensor([[-2.0, -4.0, 0.0], [-0.5, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert sequence_log_ratio(logprobs, reference, mask).tolist() == [3.0, -0.5]


def test_exact_kl_by_hand():
    # 0.5 log(0.5 / 0.25) + 0.5 log(0.5 / 0.75) = 0.5 log(4 / 3)
    policy = torch.tensor([[[0.5, 0.5]]]).log()
    reference = torch.tensor([[[0.25, 0.75]]]).log()
    assert exact_kl(policy, reference).item() == pytest.approx(0.5 * math.log(4 / 3))
    assert exact_kl(policy, policy).item() == 0


def test_exact_kl_where_the_policy_cannot_say_a_word():
    policy = torch.tensor([[[1.0, 0.0]]]).log().requires_grad_()
    reference = torch.tensor([[[0.5, 0.5]]]).log()
    kl = exact_kl(policy, reference)
    assert kl.item() == pytest.approx(math.log(2))
    kl.sum().backward()
    assert policy.grad.isfinite().all()
    assert exact_kl(reference, policy.detach()).item() == math.inf
