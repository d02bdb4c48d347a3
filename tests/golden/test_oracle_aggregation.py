"""Aggregations against their closed forms."""

import pytest

from framework.aggregation import Entropic, Mean, Uncertainty, WorstCase
from tests.golden.oracle import cases, close, tensor

MEMBERS = {
    "mean": Mean(),
    "min": WorstCase(),
    "uwo_variance_lambda0.1": Uncertainty(weight=0.1),
    "uwo_variance_lambda0.5": Uncertainty(weight=0.5),
    "uwo_variance_lambda1.0": Uncertainty(weight=1.0),
    "entropic_tau0.01": Entropic(temperature=0.01),
    "entropic_tau0.1": Entropic(temperature=0.1),
    "entropic_tau1": Entropic(temperature=1),
    "entropic_tau10": Entropic(temperature=10),
    "entropic_tau10000": Entropic(temperature=1e4),
}


def compare(scores, outputs):
    for name, member in MEMBERS.items():
        # The recorded value at 1e4 carries about 1e4 machine epsilons of its own.
        atol = 1e-10 if name == "entropic_tau10000" else 1e-12
        close(member(scores), outputs[name], atol=atol)


@pytest.mark.parametrize("case", cases("closed_ensembles.json", "aggregate"))
def test_aggregate(case):
    compare(tensor(case["inputs"]["member_scores"]), case["outputs"])


@pytest.mark.parametrize("case", cases("closed_ensembles.json", "aggregate_after_centring"))
def test_aggregate_after_centring(case):
    centres = tensor(case["inputs"]["member_centres"])[:, None]
    compare(tensor(case["inputs"]["member_scores"]) - centres, case["outputs"])
