import pytest
import torch
from jaxtyping import TypeCheckError

from framework.aggregation import Mean
from framework.masked import at_last_token, masked_mean
from framework.types import PolicyBatch


def test_wrong_shapes_and_dtypes_fail_in_tests():
    mask = torch.ones(2, 4, dtype=torch.bool)
    with pytest.raises(TypeCheckError):
        Mean()(torch.zeros(3))
    with pytest.raises(TypeCheckError):
        masked_mean(torch.zeros(2, 3), mask)
    with pytest.raises(TypeCheckError):
        masked_mean(torch.zeros(2, 4), mask.int())
    with pytest.raises(TypeCheckError):
        at_last_token(torch.zeros(3), mask)
    with pytest.raises(TypeCheckError):
        PolicyBatch(torch.zeros(2, 4), torch.zeros(2, 3), torch.zeros(2, 4), mask)
