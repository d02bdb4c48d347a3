"""One run folder, read by everything that reads run folders: each figure is the same to the last bit."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from framework.analysis.comparison import RUNS
from framework.analysis.experiment import analyse
from framework.analysis.table import build_table, read_table, record_of
from framework.config import load_config
from framework.measure import outcome_of
from jobs.experiment.ledger import Ledger
from jobs.experiment.plan import plan_of
from jobs.experiment.run import EXPERIMENT_FILE, SUMMARY_FILE, TABLE_FILE, report_experiment
from tests.tiny import make_tiny

TRAIN = {"steps": 24, "kl": {"kind": "budget", "budget": 0.5}, "gold_every": 1}
FIGURES = (
    "proxy_start", "proxy_end", "gold_start", "gold_start_se", "gold_peak", "gold_peak_se", "gold_peak_at", "gold_end",
    "gold_end_se", "kl_nats_at_gold_peak", "kl_nats_end", "gap_end", "kl_coef_end", "disagreement_start",
    "disagreement_end", "ended_start", "ended_end",
    "head_correlation_start", "head_correlation_end", "budget", "budget_ratio", "budget_held",
    "steps", "gained", "turned_over", "share_lost",
)  # fmt: skip
"""Read off a curve; each must be in at least two readings, and most are in all."""

Reading = dict[str, Any]


def of_an_experiment(name: str, run: Path, out: Path, **settings: Any) -> dict[str, Reading]:
    """What an experiment that this run is the only one of says of it: in its table, its analysis and its summary."""
    tree = yaml.safe_load((run / "config.yaml").read_text()) | settings
    out.mkdir()
    (out / EXPERIMENT_FILE).write_text(yaml.safe_dump(tree))
    (planned,) = plan = plan_of(load_config(out / EXPERIMENT_FILE))
    shutil.copytree(run, Ledger(out, plan).folder(planned))
    result = report_experiment(out)
    (curve,) = read_table(out / TABLE_FILE).curves
    (analysed,) = result.experiment.curves.values()
    summary = json.loads((out / SUMMARY_FILE).read_text())
    (written,) = summary["curves"].values()
    (point,) = analysed.points
    names = ("kl_nats", "gold", "proxy", "gap", "kl_coef")
    readings = {
        "table": outcome_of(curve).to_json(),
        "analysis": analysed.outcomes[0].outcome.to_json(),
        "summary": written["outcomes"][0]["outcome"],
        "point": {f"{figure}_end": getattr(point, figure).mean for figure in names},
        "summary's point": {f"{figure}_end": written["points"][0][figure]["mean"] for figure in names},
    }
    if result.experiment.comparison is not None:
        (cell,) = result.experiment.comparison.figures[RUNS].values()
        readings["comparison"] = {figure: cell[figure].mean for figure in FIGURES if figure in cell}
        (row,) = summary["comparison"]["rows"]
        readings["summary's comparison"] = {figure: row[figure]["mean"] for figure in FIGURES if figure in row}
    return {f"{name}: {place}": reading for place, reading in readings.items()}


@pytest.fixture(scope="module")
def readings(tmp_path_factory) -> dict[str, Reading]:
    """Figures of one run by name, by who read them."""
    folder = tmp_path_factory.mktemp("readings")
    run = folder / "alone" / "train"
    result = make_tiny(folder / "stages").run(run, train=TRAIN)
    record = record_of(run)
    alone = analyse("run", build_table([record]), [record])
    (curve,) = alone.curves.values()
    return {
        "summary.json of the run": json.loads((run / "summary.json").read_text()),
        "what train prints": dict(result.summary),
        "the run's report": curve.outcomes[0].outcome.to_json(),
        **of_an_experiment("study", run, folder / "study", variants={"only": {}}, baseline="only"),
        **of_an_experiment("sweep", run, folder / "sweep", sweep={"grid": {"train.kl.budget": [0.5]}}),
        **of_an_experiment(
            "crossed",
            run,
            folder / "crossed",
            conditions={"a": {}},
            variants={"b": {}},
            baseline="b",
            sweep={"points": [{"train.kl.budget": 0.5, "label.batch": 32}]},
        ),
    }


def test_all_pairs_agree_in_every_figure_that_both_have(readings):
    assert len(readings) >= 18
    for (one, first), (other, second) in itertools.combinations(readings.items(), 2):
        shared = [figure for figure in FIGURES if figure in first and figure in second]
        assert len(shared) >= 3, f"{one} and {other}"
        differing = {f: (first[f], second[f]) for f in shared if first[f] != second[f]}
        assert not differing, f"{one} against {other}"


def test_the_figures_are_all_those_of_a_curve_and_were_measured(readings):
    whole = readings["the run's report"]
    assert set(whole) - {"gold_peak_is_inside"} == set(FIGURES)
    for name in ("gold_peak", "gold_end", "kl_nats_end", "gap_end", "kl_coef_end", "budget_ratio"):
        assert isinstance(whole[name], float)
    assert whole["budget"] == 0.5 and whole["steps"] == 24
