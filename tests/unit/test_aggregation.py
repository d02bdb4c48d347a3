import math

import pytest
import torch
from pydantic import ValidationError

from framework.aggregation import Entropic, Mean, Uncertainty, WorstCase

# Two responses, three heads: 1, 2, 6 and 0, 0, 0.
SCORES = torch.tensor([[1.0, 0.0], [2.0, 0.0], [6.0, 0.0]])


def test_mean_by_hand():
    assert Mean()(SCORES).tolist() == [3, 0]


def test_worst_case_by_hand():
    assert WorstCase()(SCORES).tolist() == [1, 0]


def test_uncertainty_by_hand():
    # Deviations -2, -1, 3: squares 14, over K = 3 heads (over 2 it would be 3 - 3.5).
    assert Uncertainty(weight=0.5)(SCORES).tolist() == pytest.approx([3 - 0.5 * 14 / 3, 0])


def test_entropic_by_hand():
    # Temperature 1: -log((e^-1 + e^-2 + e^-6) / 3).
    expected = -math.log((math.exp(-1) + math.exp(-2) + math.exp(-6)) / 3)
    assert Entropic(temperature=1)(SCORES).tolist() == pytest.approx([expected, 0])


def test_impossible_settings_are_refused():
    with pytest.raises(ValidationError):
        Uncertainty(weight=-0.1)
    with pytest.raises(ValidationError):
        Entropic(temperature=0)
