"""Bradley-Terry and its centring term against TRL's figures."""

import pytest

from framework.preference import bradley_terry, centring
from tests.golden.oracle import cases, close, leaf, tensor


@pytest.mark.parametrize("case", cases("trl_reward.json", "bradley_terry"))
def test_bradley_terry(case):
    inputs, outputs = case["inputs"], case["outputs"]
    chosen, rejected = leaf(inputs["chosen_rewards"]), leaf(inputs["rejected_rewards"])
    margin = tensor(inputs["margin"]) if "margin" in inputs else None
    coefficient = case["params"]["center_rewards_coefficient"] or 0.0
    per_pair = bradley_terry(chosen, rejected, margin) + coefficient * centring(chosen, rejected)
    loss = per_pair.mean()
    loss.backward()
    close(per_pair, outputs["per_pair_loss"])
    close(loss, outputs["loss"])
    close(chosen.grad, outputs["grad_chosen"])
    close(rejected.grad, outputs["grad_rejected"])
