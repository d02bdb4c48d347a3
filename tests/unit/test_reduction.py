import pytest
import torch
from pydantic import ValidationError

from framework.reduction import FixedLength, SequenceMean, TokenMean

# Row losses 1 + 2 + 3 and 10; a third row without a token.
LOSS = torch.tensor([[1.0, 2.0, 3.0], [10.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]]).bool()


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        (TokenMean(), 16 / 4),
        (SequenceMean(), (6 / 3 + 10 + 0) / 3),
        (FixedLength(), 16 / 9),
        (FixedLength(max_tokens=8), 16 / 24),
    ],
)
def test_by_hand(reduction, expected):
    assert (LOSS * reduction.weights(MASK)).sum().item() == pytest.approx(expected)
    assert reduction.weights(MASK).dtype == torch.float64


def test_a_length_of_nothing_is_refused():
    with pytest.raises(ValidationError):
        FixedLength(max_tokens=0)
