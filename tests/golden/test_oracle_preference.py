"""Bradley-Terry, its centring term, its weights and its label smoothing against recorded figures."""

import pytest
import torch

from framework.preference import preference_loss
from tests.golden.oracle import cases, close, leaf, tensor


@pytest.mark.parametrize("case", cases("trl_reward.json", "bradley_terry"))
def test_bradley_terry(case):
    inputs, outputs = case["inputs"], case["outputs"]
    chosen, rejected = leaf(inputs["chosen_rewards"]), leaf(inputs["rejected_rewards"])
    margin = tensor(inputs["margin"]) if "margin" in inputs else torch.zeros_like(chosen.detach())
    coefficient = case["params"]["center_rewards_coefficient"] or 0.0
    pairs = zip(chosen.unsqueeze(1), rejected.unsqueeze(1), margin.unsqueeze(1), strict=True)
    per_pair = torch.stack([fit_loss(*pair) for pair in pairs])
    # Recorded with and without TRL's centring term, which no fit here has.
    per_pair = per_pair + coefficient * (chosen + rejected).square()
    loss = per_pair.mean()
    loss.backward()
    close(per_pair, outputs["per_pair_loss"])
    close(loss, outputs["loss"])
    close(chosen.grad, outputs["grad_chosen"])
    close(rejected.grad, outputs["grad_rejected"])


def fit_loss(chosen, rejected, margin=None, weight=None, label_smoothing=0.0):
    """The loss of one head that has seen every pair once."""
    ones = torch.ones(len(chosen), dtype=torch.float64)
    return preference_loss(
        chosen.unsqueeze(0), rejected.unsqueeze(0), target=ones, margin=0 * ones if margin is None else margin,
        weight=ones if weight is None else weight, counts=ones.unsqueeze(0), label_smoothing=label_smoothing,
    )  # fmt: skip


@pytest.mark.parametrize("form", ["plain", "relative"])
@pytest.mark.parametrize("case", cases("closed_ocrm.json", "pair_weights"))
def test_weighted_bradley_terry(case, form):
    inputs, outputs = case["inputs"], case["outputs"]
    chosen, rejected = leaf(inputs["chosen_rewards"]), leaf(inputs["rejected_rewards"])
    loss = fit_loss(chosen, rejected, weight=tensor(outputs[f"log_weight_{form}"]).exp())
    loss.backward()
    expected = outputs[f"weighted_bt_{form}"]
    close(loss, expected["loss"])
    close(chosen.grad, expected["grad_chosen_reward"])
    close(rejected.grad, expected["grad_rejected_reward"])


@pytest.mark.parametrize("case", cases("closed_preference.json", "preference_losses"))
def test_label_smoothing_is_that_of_cdpo(case):
    # A DPO pair is a Bradley-Terry pair whose scores are beta times the log-ratios.
    params, outputs = case["params"], case["outputs"]
    chosen, rejected = leaf(outputs["delta_chosen"]), leaf(outputs["delta_rejected"])
    for smoothing, name in ((0.0, "dpo"), (params["label_smoothing"], "cdpo")):
        chosen.grad = rejected.grad = None
        loss = fit_loss(params["beta"] * chosen, params["beta"] * rejected, label_smoothing=smoothing)
        loss.backward()
        close(loss, outputs[name]["loss"])
        close(chosen.grad, outputs[name]["grad_chosen_logp"])
        close(rejected.grad, outputs[name]["grad_rejected_logp"])
