"""The mean of a batch and its error: by hand, with prompts of unequal size, and with one."""

import math

import pytest
import torch

from framework.batch_mean import batch_mean, rows_across_prompts
from framework.seeding import numpy_generator


def test_by_hand():
    # Prompt means 1 and 5: sample variance 8, over two prompts 4.
    measured = batch_mean(torch.tensor([0.0, 4.0, 2.0, 6.0]), torch.tensor([7, 9, 7, 9]))
    assert (measured.mean, measured.variance, measured.prompts) == (3.0, pytest.approx(4.0), 2)
    assert measured.standard_error == pytest.approx(2.0)


def test_prompts_of_one_row_each_are_the_ordinary_standard_error():
    values = torch.tensor([1.0, 3.0, 5.0])
    assert batch_mean(values, torch.arange(3)).standard_error == pytest.approx(2 / math.sqrt(3))


def test_unequal_prompts_keep_the_mean_over_rows():
    # Mean 3; the prompts' summed deviations are -6 and 6: 2 / 1 x 72 / 16 = 9.
    measured = batch_mean(torch.tensor([1.0, 1.0, 1.0, 9.0]), torch.tensor([0, 0, 0, 1]))
    assert (measured.mean, measured.variance) == (3.0, pytest.approx(9.0))


def test_one_prompt_tells_no_error():
    assert batch_mean(torch.tensor([1.0, 2.0]), torch.zeros(2, dtype=torch.long)).variance == math.inf


def test_the_error_is_that_of_many_batches_where_rows_of_a_prompt_are_alike():
    draw, group = numpy_generator(0, "batches of alike rows"), torch.arange(64) // 4
    batches = [
        batch_mean(torch.tensor(draw.normal(size=16).repeat(4) + draw.normal(size=64) * 0.1), group) for _ in range(400)
    ]
    spread = torch.tensor([batch.mean for batch in batches]).std()
    stated = torch.tensor([batch.variance for batch in batches]).mean().sqrt()
    assert float(stated) == pytest.approx(float(spread), rel=0.1)


def test_a_few_rows_are_of_as_many_prompts_as_can_be():
    group = torch.tensor([5, 5, 5, 2, 2, 9])
    assert rows_across_prompts(group, 2) == [0, 3]
    assert rows_across_prompts(group, 4) == [0, 3, 5, 1]
    assert rows_across_prompts(group, 100) == [0, 3, 5, 1, 4, 2]
