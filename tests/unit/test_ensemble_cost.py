"""The bill of an ensemble: what figures add up to, and that what is timed is a fit of every head."""

import json

import pytest
import torch

from tests.benchmarks import ensemble_cost
from tests.benchmarks.ensemble_bill import checks_of, formula, paired_ratio, result_line, summarise_case, table

SIZES = {"M": 1000, "L": 11, "Ad": 40}


def case(name, parameters=1000, trained=None, train=(1.0,), score=(1.0,), **memory):
    """Figures of one case beside a shared head that takes one second."""
    measured = {"sizes": SIZES, "parameters": parameters, "trained": trained or parameters} | memory
    one = {"train": [1.0] * len(train), "score": [1.0] * len(score)}
    return summarise_case(name, measured, {"tiny_shared_1": one, name: {"train": train, "score": score}})


def five(kind, k=5, peak=100.0, **times):
    """Five shared heads or a full ensemble of five, with all its peaks at one height."""
    size = formula(kind, k, SIZES)
    peaks = dict.fromkeys(("serve_peak_mb", "train_peak_mb"), peak)
    if kind == "full":
        peaks["train_at_once_peak_mb"] = 2 * peak
    return case(f"tiny_{kind}_{k}", size, **peaks, **times)


def judged(shared, full):
    checks = checks_of({"tiny_shared_5": shared, "tiny_full_5": full})
    return {check.name.removeprefix("tiny: five shared heads").lstrip(", "): check for check in checks}


@pytest.mark.parametrize(("kind", "parameters"), [("shared", 1033), ("full", 3033), ("lora", 1153)])
def test_formulas_of_three(kind, parameters):
    assert formula(kind, 3, SIZES) == parameters


@pytest.mark.parametrize("kind", ensemble_cost.KINDS)
def test_counted_parameters_are_those_of_the_formula(kind):
    encoder = ensemble_cost.make_encoder("tiny", miniature=True)
    sizes = ensemble_cost.sizes_of(encoder)
    members = ensemble_cost.make_members(kind, encoder, 3, "cpu")
    assert sum(p.numel() for member in members for p in member.parameters()) == formula(kind, 3, sizes)
    trained = sum(p.numel() for engine in ensemble_cost.make_engines(members) for p in engine.parameters)
    assert trained == formula(kind, 3, sizes) - (sizes["M"] if kind == "lora" else 0)


@pytest.mark.parametrize(("kind", "at_once"), [("shared", False), ("lora", False), ("full", False), ("full", True)])
def test_a_training_step_moves_every_head_and_what_is_fitted_with_it(kind, at_once):
    torch.manual_seed(0)
    encoder = ensemble_cost.make_encoder("tiny", miniature=True)
    members = ensemble_cost.make_members(kind, encoder, 3, "cpu")
    engines = ensemble_cost.train_mode(ensemble_cost.make_engines(members))
    batch = ensemble_cost.Batch.random(16, 6, encoder, 3)
    before = [[p.detach().clone() for p in engine.parameters] for engine in engines]
    step = ensemble_cost.train_at_once if at_once else ensemble_cost.train_in_turn
    for _ in range(2):  # an adapter's first factor has no gradient until its second is no longer zero
        step(engines, batch)
    for engine, old in zip(engines, before, strict=True):
        assert engine.steps_taken == 2
        moved = [not torch.equal(p, was) for p, was in zip(engine.parameters, old, strict=True)]
        assert all(moved[:-2]), moved
        assert moved[-2], "the head"  # its bias cancels in a difference of scores


def test_a_ratio_is_taken_within_rounds():
    # A slow machine in the second round slows both; medians apart would say 3.
    assert paired_ratio([1.0, 30.0, 3.0], [1.0, 10.0, 1.0]) == 3.0
    assert paired_ratio([1.0, 40.0, 2.0], [1.0, 40.0, 2.0]) == 1.0
    with pytest.raises(ValueError):
        paired_ratio([1.0, 2.0], [1.0])


def test_a_case_says_its_times_and_how_they_compare_with_one_head():
    figures = case("tiny_full_3", 3033, 3033, train=(3.0, 2.9, 3.3), score=(2.0, 2.2, 2.1))
    assert figures["train_seconds"] == figures["train_to_one"] == 3.0
    assert figures["score_seconds"] == 2.1
    assert figures["formula"] == 3033
    assert figures["weights_mb"] == pytest.approx(4 * 3033 / 1e6)
    assert figures["state_mb"] == pytest.approx(16 * 3033 / 1e6)
    assert "sizes" not in figures


def test_state_counts_gradients_and_moments_of_what_is_trained_only():
    figures = case("tiny_lora_5", 1255, trained=255)
    assert figures["state_mb"] == pytest.approx(4 * (1255 + 3 * 255) / 1e6)


def test_limits_on_time_are_met_and_missed():
    good = judged(five("shared", train=(1.2,), score=(1.15,)), five("full"))
    assert good["train, of the time of one"].passed and good["score, of the time of one"].passed
    bad = judged(five("shared", train=(1.21,), score=(1.16,)), five("full"))
    assert not bad["train, of the time of one"].passed and not bad["score, of the time of one"].passed


def test_memory_of_five_is_judged_by_every_way_to_count_it():
    found = judged(five("shared", peak=30.0), five("full", peak=100.0))
    values = {name: check.value for name, check in found.items() if "of five models" in name}
    counted = 1055 / 5055
    assert values == pytest.approx(
        {
            "of five models: weights, counted": counted,
            "of five models: serving, peak": 0.3,
            "of five models: weights, gradients and moments, counted": counted,
            "of five models: training, peak, five at once": 0.15,
            "of five models: training, peak, five in turn": 0.3,
        }
    )
    assert [check.passed for name, check in found.items() if name in values] == [True, False, True, True, False]


def test_a_count_that_is_not_the_formulas_is_a_miss():
    wrong = five("shared")
    assert checks_of({"tiny_shared_5": wrong})[0].passed
    wrong["parameters"] += 1
    assert not checks_of({"tiny_shared_5": wrong})[0].passed


def test_what_was_not_measured_is_not_judged():
    alone = case("minilm_lora_5", 1255, trained=255)
    assert "train_to_one" not in summarise_case(
        "minilm_lora_5",
        {"sizes": SIZES, "parameters": 1, "trained": 1},
        {"minilm_lora_5": {"train": [1], "score": [1]}},
    )
    assert len(checks_of({"minilm_lora_5": alone})) == 1


def test_the_table_has_a_dash_for_what_was_not_measured():
    head, _, shared, full = table({"tiny_shared_5": five("shared"), "tiny_full_5": five("full")}).splitlines()
    assert head.count("|") == shared.count("|") == full.count("|")
    assert shared.startswith("| tiny shared 5 | 1,055 |") and shared.endswith("| 100 | - |")
    assert full.endswith("| 100 | 200 |")


def test_the_last_line_holds_every_figure_and_every_verdict():
    cases = {"tiny_shared_5": five("shared", train=(1.3,)), "tiny_full_5": five("full")}
    checks = checks_of(cases)
    line = result_line({"device": "cpu", "repeats": 1}, cases, checks)
    record = json.loads(line.removeprefix("RESULT "))
    assert record["benchmark"] == "ensemble_cost" and record["device"] == "cpu"
    assert record["cases"] == cases
    assert [check["passed"] for check in record["checks"]] == [check.passed for check in checks]
    missed = [check for check in record["checks"] if not check["passed"]]
    assert {"name": "tiny: five shared heads train, of the time of one", "value": 1.3, "limit": 1.2} | {
        "passed": False
    } in missed
