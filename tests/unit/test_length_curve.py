"""The curve of scores on length: what it takes out, what it leaves, and where there is little to fit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from scipy.stats import spearmanr

from framework.length_curve import LengthCurve, text_lengths
from framework.seeding import numpy_generator


@pytest.fixture(scope="module")
def biased():
    """Lengths, quality independent of them, and scores of two heads that are bent by length, one each way."""
    draw = numpy_generator(0, "length-curve")
    lengths = torch.from_numpy(draw.integers(20, 400, 1200)).float()
    quality = torch.from_numpy(draw.normal(size=1200)).float()
    bias = 3 * torch.log(lengths / 20)
    return lengths, quality, torch.stack([quality + bias, quality - bias])


def correlation(a, b):
    return float(np.corrcoef(a.numpy(), b.numpy())[0, 1])


def test_length_goes_and_quality_stays(biased):
    lengths, quality, scores = biased
    assert correlation(scores[0], lengths) > 0.8
    calibrated = scores - LengthCurve.fit(lengths, scores)(lengths)
    for before, head in zip(scores, calibrated, strict=True):
        assert abs(correlation(head, lengths)) < 0.05
        assert abs(spearmanr(head, lengths).statistic) < 0.05
        assert spearmanr(head, quality).statistic > 0.95 > abs(spearmanr(before, quality).statistic)


def test_it_serves_responses_it_was_not_fitted_to(biased):
    lengths, quality, scores = biased
    curve = LengthCurve.fit(lengths[:600], scores[:, :600])
    unseen = scores[0, 600:] - curve(lengths[600:])[0]
    assert abs(correlation(unseen, lengths[600:])) < 0.1
    assert correlation(unseen, quality[600:]) > 0.95


def test_scores_without_a_length_bias_are_left_alone(biased):
    lengths, quality, _ = biased
    curve = LengthCurve.fit(lengths, quality[None])
    assert float(curve.values.abs().max()) < 0.3  # standard deviations; noise of the fit


def test_a_straight_line_is_recovered_and_the_mean_is_kept():
    lengths = torch.arange(10.0, 60.0)
    scores = torch.stack([lengths / 10, 3 - lengths / 5])
    calibrated = scores - LengthCurve.fit(lengths, scores)(lengths)
    torch.testing.assert_close(calibrated, scores.mean(1, keepdim=True).expand_as(scores), atol=1e-5, rtol=0)


def test_outliers_have_little_say():
    lengths = torch.arange(10.0, 110.0)
    scores = (lengths / 10)[None].clone()
    clean = LengthCurve.fit(lengths, scores)
    scores[0, 90] += 50
    bent = LengthCurve.fit(lengths, scores)
    # The curve is centred on its own mean, so slopes are compared and not heights.
    torch.testing.assert_close(bent.values.diff(), clean.values.diff(), atol=1e-3, rtol=0)


def test_read_between_the_knots_and_held_at_the_ends():
    curve = LengthCurve(torch.tensor([10.0, 20.0]), torch.tensor([[0.0, 1.0], [4.0, 0.0]]))
    assert curve(torch.tensor([0.0, 10.0, 15.0, 20.0, 99.0])).tolist() == [
        [0.0, 0.0, 0.5, 1.0, 1.0],
        [4.0, 4.0, 2.0, 0.0, 0.0],
    ]


def test_one_length_is_no_bias():
    curve = LengthCurve.fit(torch.full((7,), 24.0), torch.randn(2, 7))
    assert float(curve(torch.tensor([3.0, 24.0, 80.0])).abs().max()) < 1e-6


def test_a_length_that_nearly_all_share_gets_their_mean():
    lengths = torch.tensor([24.0] * 19 + [30.0])
    scores = torch.cat([torch.linspace(-1, 1, 19), torch.tensor([1.0])])[None]
    curve = LengthCurve.fit(lengths, scores)
    at_most, at_rare = curve(torch.tensor([24.0, 30.0]))[0].tolist()
    assert at_most < at_rare < 0.5  # the rare one does not simply become its own response's score


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.floats(-5, 5)), min_size=1, max_size=12))
def test_finite_and_centred_however_few_and_alike(rows):
    lengths = torch.tensor([float(length) for length, _ in rows])
    scores = torch.tensor([[score for _, score in rows]])
    curve = LengthCurve.fit(lengths, scores)
    assert curve.values.isfinite().all()
    assert abs(float(curve(lengths).mean())) < 1e-4
    # No length is said to be worth more than any response shows.
    assert float(curve.values.abs().max()) <= 30


def test_the_disk_keeps_it_to_the_bit(biased):
    lengths, _, scores = biased
    curve = LengthCurve.fit(lengths[:50], scores[:, :50])
    tensors = load(save(curve.tensors()))
    assert torch.equal(LengthCurve.from_tensors(tensors)(lengths), curve(lengths))
    assert torch.equal(LengthCurve.from_tensors(tensors, slice(1, 2))(lengths), curve(lengths)[1:])


def test_length_is_characters():
    assert text_lengths(["", " ä b"]).tolist() == [0.0, 4.0]
    assert text_lengths([]).shape == (0,)
