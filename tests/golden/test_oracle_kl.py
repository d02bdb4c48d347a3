"""KL: estimators against verl's figures, gradients against an enumerated policy, the adaptive controller."""

import pytest
import torch

from framework.advantages import Gae
from framework.divergence import exact_kl, k1, k2, k3, sequence_log_ratio
from framework.kl import Adaptive
from framework.objectives import Reinforce
from framework.seeding import derive
from framework.shaping import KlInLoss, KlInReward
from framework.types import PolicyBatch
from tests.golden.oracle import cases, close, leaf, tensor

VERL_K3_CEILING = 10.0
ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("case", cases("verl_kl_whiten_controller.json", "kl_penalty"))
def test_estimators(case, name):
    inputs, recorded = case["inputs"], case["outputs"][name]
    logprobs, mask = leaf(inputs["log_prob"]), tensor(inputs["mask"]).bool()
    value = ESTIMATORS[name](logprobs, tensor(inputs["ref_log_prob"]))
    (value * mask).sum().backward()
    expected = tensor(recorded["per_token"])
    gradient = tensor(recorded["grad_log_prob_of_masked_sum"])
    # Where verl's clamp binds it reports 10 with no gradient; ours goes on rising.
    free = mask & ~((name == "k3") & (expected >= VERL_K3_CEILING))
    close(value[free], expected[free])
    close(logprobs.grad[free], gradient[free])
    bound = mask & ~free
    assert (value[bound] >= VERL_K3_CEILING).all()


@pytest.mark.parametrize("case", cases("verl_kl_whiten_controller.json", "adaptive_kl_controller"))
def test_adaptive_controller(case):
    params = case["params"]
    controller = Adaptive(initial_coef=params["initial_coef"], target=params["target"], horizon=params["horizon"])
    state = controller.start()
    coefs = []
    for kl, episodes in zip(case["inputs"]["observed_kl"], case["inputs"]["n_steps"], strict=True):
        state = controller.next(state, kl, episodes)
        coefs.append(state.coef)
    assert coefs == pytest.approx(case["outputs"]["coef_after_each_update"], rel=1e-12)


class Enumerated:
    """All nine responses of a policy with three words and two tokens, and their probabilities."""

    def __init__(self, inputs):
        self.first, self.second = leaf(inputs["first_logits"]), leaf(inputs["second_logits"])
        reference_first = tensor(inputs["ref_first_logits"])
        reference_second = tensor(inputs["ref_second_logits"])
        self.full = self.next_tokens(self.first, self.second)
        self.reference_full = self.next_tokens(reference_first, reference_second)
        self.tokens = torch.cartesian_prod(torch.arange(3), torch.arange(3))
        self.logprobs = self.full.gather(2, self.tokens[:, :, None])[:, :, 0]
        self.reference = self.reference_full.gather(2, self.tokens[:, :, None])[:, :, 0]
        self.probability = self.logprobs.sum(dim=1).exp().detach()
        self.mask = torch.ones(9, 2, dtype=torch.bool)

    @staticmethod
    def next_tokens(first, second):
        """Log-probabilities [9, 2, 3] met along each response."""
        first, second = first.log_softmax(-1), second.log_softmax(-1)
        return torch.stack([first.expand(9, 3), second.repeat_interleave(3, dim=0)], dim=1)

    def gradient_is(self, loss, recorded, atol=1e-12):
        first, second = torch.autograd.grad(loss, [self.first, self.second], retain_graph=True)
        close(first, recorded["grad_first_logits"], atol=atol)
        close(second, recorded["grad_second_logits"], atol=atol)

    def reinforce(self, advantages):
        """Expected loss whose gradient is the policy gradient with these advantages."""
        batch = PolicyBatch(self.logprobs, self.logprobs.detach(), advantages, self.mask)
        return (Reinforce()(batch).token_loss * self.probability[:, None]).sum()


ENUMERATED = pytest.mark.parametrize("case", cases("closed_kl_exact.json", "enumerable_policy"))


@ENUMERATED
def test_exact_kl(case):
    policy, outputs = Enumerated(case["inputs"]), case["outputs"]
    # A response reaches its second token with probability of the first: the chain rule, by enumeration.
    per_token = exact_kl(policy.full, policy.reference_full)
    reached = torch.stack([policy.logprobs.new_full((9,), 1 / 9), policy.logprobs[:, 0].exp() / 3], dim=1)
    kl = (per_token * reached).sum()
    close(kl, outputs["kl_policy_ref"]["value"])
    policy.gradient_is(kl, outputs["kl_policy_ref"])


@ENUMERATED
def test_expected_values_of_the_estimators(case):
    policy = Enumerated(case["inputs"])
    summed, reference_summed = policy.logprobs.sum(dim=1), policy.reference.sum(dim=1)
    for name, estimate in ESTIMATORS.items():
        sequence = (estimate(summed, reference_summed) * policy.probability).sum()
        tokens = (estimate(policy.logprobs, policy.reference).sum(dim=1) * policy.probability).sum()
        recorded = case["outputs"]
        close(sequence, recorded["sequence_level"][name]["value"])
        policy.gradient_is(sequence, recorded["sequence_level"][name])
        close(tokens, recorded["token_level_sum"][name]["value"])
        policy.gradient_is(tokens, recorded["token_level_sum"][name])


@ENUMERATED
def test_k1_in_the_reward_has_the_gradient_of_the_reverse_kl(case, make_rollout, make_shaped):
    policy, outputs = Enumerated(case["inputs"]), case["outputs"]
    zeros = torch.zeros(9, 2, dtype=torch.float64)
    rollout = make_rollout(policy.mask, logprobs=policy.logprobs.detach(), values=zeros)
    shaped = KlInReward()(rollout, policy.reference, zeros[:, 0], 1.0)
    whole = shaped.token_rewards.sum(dim=1, keepdim=True).expand(9, 2)
    policy.gradient_is(policy.reinforce(whole), outputs["kl_policy_ref"])
    policy.gradient_is(policy.reinforce(whole), outputs["score_function_of_k1_reward"])
    # Crediting a token only with what follows it leaves the expectation as it is.
    to_go = Gae(lam=1.0, whiten=False)(shaped).advantages
    policy.gradient_is(policy.reinforce(to_go), outputs["kl_policy_ref"])


@ENUMERATED
@pytest.mark.parametrize(
    ("estimator", "level", "source"),
    [
        ("k2", "sequence", ("kl_policy_ref",)),
        ("k3", "sequence", ("kl_ref_policy",)),
        ("k2", "token", ("token_level_sum", "k2")),
        ("k3", "token", ("token_level_sum", "k3")),
    ],
)
def test_gradient_of_the_kl_in_the_loss(case, estimator, level, source):
    policy, recorded = Enumerated(case["inputs"]), case["outputs"]
    for key in source:
        recorded = recorded[key]
    weights = policy.probability[:, None].expand(9, 2)
    loss = KlInLoss(estimator=estimator, level=level).loss(policy.logprobs, policy.reference, policy.mask, 1.0, weights)
    policy.gradient_is(loss, recorded)


@ENUMERATED
def test_sampled_estimates_agree_within_three_standard_errors(case):
    policy = Enumerated(case["inputs"])
    generator = torch.Generator().manual_seed(derive(0, "test", "kl"))
    drawn = torch.multinomial(policy.probability, 20_000, replacement=True, generator=generator)
    logprobs, reference = policy.logprobs.detach()[drawn], policy.reference[drawn]
    mask = torch.ones_like(logprobs, dtype=torch.bool)
    recorded = case["outputs"]["sequence_level"]
    sampled = {
        "k1": sequence_log_ratio(logprobs, reference, mask),
        "k2": k2(logprobs.sum(dim=1), reference.sum(dim=1)),
        "k3": k3(logprobs.sum(dim=1), reference.sum(dim=1)),
    }
    for name, values in sampled.items():
        error = abs(values.mean().item() - recorded[name]["value"])
        assert error <= 3 * values.std().item() / len(values) ** 0.5 + 1e-12, name
