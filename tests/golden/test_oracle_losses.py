"""Policy, value and entropy losses and their gradients, against the figures of verl and TRL."""

import pytest

from framework.critic import SquaredError
from framework.objectives import PpoClip
from framework.reduction import FixedLength, SequenceMean, TokenMean
from framework.shaping import KlInLoss
from framework.types import PolicyBatch
from tests.golden.oracle import cases, close, leaf, tensor

REDUCTIONS = {
    "token-mean": TokenMean(),
    "seq-mean-token-mean": SequenceMean(),
    "seq-mean-token-sum-norm": FixedLength(),
    "bnpo": TokenMean(),
    "grpo": SequenceMean(),
}


def compare_aggregations(token_values, source, mask, recorded, names):
    """Each recorded way of averaging, in value and in gradient."""
    any_row_empty = bool((mask.sum(dim=1) == 0).any())
    compared = 0
    for name, expected in recorded.items():
        if any_row_empty and name != "token-mean":
            continue  # verl leaves empty rows out, we count them
        loss = (token_values * REDUCTIONS[name].weights(mask)).sum()
        source.grad = None
        loss.backward(retain_graph=True)
        # verl adds 1e-8 to the length of a row.
        close(loss, expected[names[0]], rtol=1e-7)
        close(source.grad, expected[names[1]], rtol=1e-7)
        compared += 1
    assert compared >= 1


@pytest.mark.parametrize("case", cases("verl_losses.json", "ppo_policy_loss"))
def test_ppo_clip(case):
    inputs, params = case["inputs"], case["params"]
    logprobs, mask = leaf(inputs["log_prob"]), tensor(inputs["mask"]).bool()
    batch = PolicyBatch(logprobs, tensor(inputs["old_log_prob"]), tensor(inputs["advantages"]), mask)
    output = PpoClip(dual_clip=params["dual_clip_c"])(batch)
    close(output.token_loss, case["outputs"]["per_token_loss"])
    recorded = case["outputs"]["by_aggregation"]
    compare_aggregations(output.token_loss, logprobs, mask, recorded, ("loss", "grad_log_prob"))
    figures = {name: values[mask].mean() for name, values in output.token_metrics.items()}
    close(figures["clip_fraction"], recorded["token-mean"]["clip_fraction"], rtol=1e-7)
    close(figures["kl_to_sampler_k1"], recorded["token-mean"]["approx_kl_k1_old_minus_new"], rtol=1e-7)
    if params["dual_clip_c"] is not None:
        close(figures["dual_clip_fraction"], recorded["token-mean"]["clip_fraction_dual"], rtol=1e-7)


@pytest.mark.parametrize("case", cases("verl_losses.json", "value_loss"))
def test_value_loss(case):
    inputs = case["inputs"]
    values, mask = leaf(inputs["values"]), tensor(inputs["mask"]).bool()
    critic = SquaredError(clip=case["params"]["clip"])
    loss = critic(values, tensor(inputs["old_values"]), tensor(inputs["returns"]), mask)
    close(loss, case["outputs"]["per_token_loss"])
    compare_aggregations(loss, values, mask, case["outputs"]["by_aggregation"], ("loss", "grad_values"))


@pytest.mark.parametrize("case", cases("verl_losses.json", "entropy"))
def test_entropy(case):
    logits, mask = leaf(case["inputs"]["logits"]), tensor(case["inputs"]["mask"]).bool()
    entropy = logits.logsumexp(dim=-1) - (logits.softmax(dim=-1) * logits).sum(dim=-1)
    close(entropy[mask], tensor(case["outputs"]["per_token_entropy"])[mask])
    recorded = case["outputs"]["by_aggregation"]
    compare_aggregations(entropy, logits, mask, recorded, ("entropy", "grad_logits"))


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        pytest.param(kind, case.values[0], id=f"{kind}-{case.id}")
        for kind in ("bnpo", "grpo", "dr_grpo")
        for case in cases("trl_grpo.json", kind)
    ],
)
def test_grpo_with_the_penalty_in_the_loss(kind, case):
    inputs, params = case["inputs"], case["params"]
    logprobs, mask = leaf(inputs["log_prob"]), tensor(inputs["mask"]).bool()
    reference = tensor(inputs["ref_log_prob"])
    advantages = tensor(inputs["advantages"])[:, None].expand_as(mask)
    batch = PolicyBatch(logprobs, tensor(inputs["old_log_prob"]), advantages, mask)
    reduction = REDUCTIONS.get(kind) or FixedLength(max_tokens=params["max_completion_length"])
    weights = reduction.weights(mask)
    objective = PpoClip(clip_low=params["epsilon_low"], clip_high=params["epsilon_high"])
    penalty = KlInLoss(estimator="k3", level="token")
    loss = (objective(batch).token_loss * weights).sum()
    loss = loss + penalty.loss(logprobs, reference, mask, params["beta"], weights)
    loss.backward()
    close(loss, case["outputs"]["loss"])
    close(logprobs.grad, case["outputs"]["grad_log_prob"])
