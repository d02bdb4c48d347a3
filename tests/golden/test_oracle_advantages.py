"""Advantages and whitening against verl's figures."""

import pytest
import torch

from framework.advantages import Gae, GroupMean, LeaveOneOut
from framework.errors import UserError
from framework.masked import masked_mean, masked_var, masked_whiten
from tests.golden.oracle import cases, close, tensor

# verl's masked mean divides by count + 1e-8.
VERL = {"rtol": 1e-7, "atol": 1e-9}


@pytest.mark.parametrize("case", cases("verl_advantages.json", "gae"))
def test_gae(case, make_shaped):
    inputs, outputs, params = case["inputs"], case["outputs"], case["params"]
    shaped = make_shaped(inputs["mask"], tensor(inputs["rewards"]), values=tensor(inputs["values"]))
    raw = Gae(gamma=params["gamma"], lam=params["lam"], whiten=False)(shaped)
    close(raw.advantages, outputs["advantages"])
    close(raw.returns, outputs["returns"])
    whitened = Gae(gamma=params["gamma"], lam=params["lam"], whiten=True)(shaped)
    close(whitened.advantages, outputs["advantages_whitened"], **VERL)
    close(whitened.returns, outputs["returns"])


def compare_rows(component, case, make_shaped):
    """All rows where no group has one member; else the refusal, and the rows of the other groups."""
    inputs = case["inputs"]
    mask, rewards, group = tensor(inputs["mask"]), tensor(inputs["rewards"]), torch.tensor(inputs["group"])
    expected = tensor(case["outputs"]["advantages"])
    lonely = torch.tensor([(group == g).sum().item() == 1 for g in group])
    if lonely.any():
        with pytest.raises(UserError, match="only one response"):
            component(make_shaped(mask, rewards, group=group))
    rest = ~lonely
    credited = component(make_shaped(mask[rest], rewards[rest], group=group[rest]))
    close(credited.advantages, expected[rest])
    assert not credited.returns.any()


@pytest.mark.parametrize("case", cases("verl_advantages.json", "grpo"))
def test_group_mean(case, make_shaped):
    params = case["params"]
    component = GroupMean(divide_by_std=params["norm_adv_by_std_in_grpo"], std_eps=params["epsilon"])
    compare_rows(component, case, make_shaped)


@pytest.mark.parametrize("case", cases("verl_advantages.json", "rloo"))
def test_leave_one_out(case, make_shaped):
    compare_rows(LeaveOneOut(), case, make_shaped)


@pytest.mark.parametrize("case", cases("verl_kl_whiten_controller.json", "masked_whiten"))
def test_whitening(case):
    values, mask = tensor(case["inputs"]["values"]), tensor(case["inputs"]["mask"]).bool()
    outputs = case["outputs"]
    close(masked_mean(values, mask), outputs["masked_mean"], **VERL)
    if "raises" in outputs:
        assert not masked_whiten(values, mask).any()
        return
    close(masked_var(values, mask, ddof=1), outputs["masked_var_ddof1"], **VERL)
    close(masked_var(values, mask, ddof=0), outputs["masked_var_ddof0"], **VERL)
    close(masked_whiten(values, mask, ddof=1, eps=1e-8), outputs["whitened_shift_mean"], **VERL)
