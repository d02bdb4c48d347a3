"""Reads the recorded figures beside this file."""

import json
from pathlib import Path

import pytest
import torch


def cases(file, entry):
    """The cases of one entry, as pytest parameters named like them."""
    recorded = json.loads((Path(__file__).parent / file).read_text())
    return [pytest.param(case, id=case["name"]) for case in recorded["entries"][entry]["cases"]]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def leaf(values):
    return tensor(values).requires_grad_()


def close(actual, expected, rtol=1e-9, atol=1e-12):
    expected = expected if isinstance(expected, torch.Tensor) else tensor(expected)
    torch.testing.assert_close(actual.detach(), expected, rtol=rtol, atol=atol)
