"""A method that nobody planned for: from its two pieces here it comes into plan, table, fits, comparison and report."""

import contextlib
import inspect
import json
import math
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from pydantic import Field

from cluster.plan import Node
from framework.analysis.comparison import RUNS, Cell
from framework.analysis.table import read_table
from framework.config import Config, parse_config
from framework.errors import UserError
from framework.methods import Method, Online
from framework.seeding import numpy_generator
from jobs import __main__ as cli
from jobs import methods
from jobs.experiment import run as experiment
from jobs.experiment import tune
from jobs.experiment.plan import plan_of
from jobs.experiment.run import ExperimentView, run_experiment
from jobs.run_folder import RunContext, RunInputs, RunResult, make_run
from jobs.verbs.experiment import print_experiment


class Fake(Method):
    """Leaves the start policy by 1 / beta nats, with gold that turns over on the way."""

    kind: Literal["fake"] = "fake"
    starts_from: ClassVar[tuple[str, ...]] = ()
    rows: int = Field(default=40, ge=1)
    """Rows of a run."""
    beta: float = Field(default=0.1, gt=0)
    """Reward units per nat."""
    lift: float = 0.0
    """Gold that a variant has more, per unit of sqrt(KL)."""

    @property
    def length(self) -> int:
        return self.rows

    @property
    def sets_kl(self) -> tuple[str, ...]:
        return ("beta",)


def make(inputs: RunInputs, run: Path, context: RunContext) -> RunResult:
    """Every row at once."""
    train, draw = inputs.cfg.train, numpy_generator(inputs.cfg.seed, "fake").normal
    lines = []
    for step in range(train.rows):
        kl = (1 - math.exp(-step / 5)) / train.beta
        d = math.sqrt(kl)
        gold = d * (2 + train.lift - math.log(d + 1e-9)) + 0.1 * draw() if step else 0.0
        row = {"step": step, "kl_nats": kl + 0.01 * draw(), "proxy": d, "gold": gold, "gold_se": 0.1}
        lines.append(json.dumps(row) + "\n")
        if context.show:
            context.show(step, row)
    (run / "metrics.jsonl").write_text("".join(lines))
    return RunResult(run, "all steps")


BETAS = [0.01, 0.05, 0.3]
SETTINGS = {
    "train": {"kind": "fake"},
    "seeds": [0, 1],
    "variants": {"plain": {}, "lifted": {"train.lift": 0.5}},
    "baseline": "plain",
    "sweep": {"grid": {"train.beta": BETAS}},
}


@pytest.fixture(scope="module")
def fake():
    """The method beside the online one, until the end of this file."""
    field = Config.model_fields["train"]
    annotation, discriminator = field.annotation, field.discriminator
    field.annotation, field.discriminator = Online | Fake, "kind"
    Config.model_rebuild(force=True)
    methods.METHODS["fake"] = make
    yield
    del methods.METHODS["fake"]
    field.annotation, field.discriminator = annotation, discriminator
    Config.model_rebuild(force=True)


@pytest.fixture(scope="module")
def done(fake, tmp_path_factory):
    """Its experiment, run in this process instead of on Ray."""
    out = tmp_path_factory.mktemp("fake") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "connect", lambda *_args, **_named: contextlib.nullcontext())
        patch.setattr(experiment, "live_nodes", lambda: [Node("here", 64, 0)])
        patch.setattr(tune, "run_on_tune", run_here)
        yield run_experiment(parse_config(SETTINGS), out, lambda: False, ExperimentView())


def run_here(ready, sweep, ledger, stop_asked, view):
    for one in ready:
        view.began(one.planned)
        show = lambda step, row, planned=one.planned: view.step(planned, row)  # noqa: E731
        make_run(one.inputs, one.folder, RunContext(show=show))
        view.ended(ledger.note(one.planned, "unfinished", None))
    return True


def test_it_takes_forty_lines():
    lines = [line for piece in (Fake, make) for line in inspect.getsource(piece).splitlines()]
    assert len(lines) <= 40


def test_it_is_a_choice_of_the_section_beside_the_online_method(fake):
    assert parse_config({"train": {"kind": "fake", "beta": 0.5}}).train == Fake(beta=0.5)
    assert parse_config({}) == Config()
    with pytest.raises(UserError, match=r"unknown key 'train\.beta' under train\.kind=online: set train\.kind=fake"):
        parse_config({"train": {"beta": 0.5}})
    with pytest.raises(UserError, match=r"unknown key 'train\.bta'.*did you mean 'beta'"):
        parse_config({"train": {"kind": "fake", "bta": 0.5}})
    with pytest.raises(UserError, match=r"train\.beta=-1"):
        parse_config({"train": {"kind": "fake", "beta": -1}})
    assert Config().fingerprint() == parse_config({"train": {"kind": "online"}}).fingerprint()
    assert parse_config({"train": {"kind": "fake"}}).run_fingerprint() != Config().run_fingerprint()


def test_its_plan_has_a_curve_per_variant_along_beta(fake, capsys):
    plan = plan_of(parse_config(SETTINGS))
    assert len(plan) == 12
    assert {run.record.curve for run in plan} == {"plain", "lifted"}
    assert {(run.record.method, run.record.budget) for run in plan} == {("fake", None)}
    assert plan[0].record.run == "plain-beta_0.01" and plan[0].record.point == "train.beta=0.01"
    assert cli.main(["check", "train.kind=fake", "sweep={grid: {train.beta: [0.1, 0.2]}}"]) == 0
    assert "2 points x 1 seed = 2 runs" in capsys.readouterr().out


def test_methods_may_stand_side_by_side(fake):
    variants = {"ppo": {"train.steps": 3}, "dpo": {"train.kind": "fake", "train.rows": 3}}
    runs = plan_of(parse_config({"variants": variants}))
    assert [(run.record.run, run.record.method, run.cfg.train.length) for run in runs] == [
        ("ppo", "online", 3), ("dpo", "fake", 3)
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"'train\.beta' is not a setting of train\.kind=online|under train\.kind"):
        plan_of(parse_config({"variants": variants, "sweep": {"grid": {"train.beta": [1, 2]}}}))


def test_its_runs_are_in_the_table(done):
    assert [record.status for record in done.records] == ["finished"] * 12
    table = read_table(done.out / "results.parquet")
    assert table.data.num_rows == 12 * 40
    assert set(table.data["method"].to_pylist()) == {"fake"}
    assert set(table.data["train.beta"].to_pylist()) == set(BETAS)


def test_gold_is_fitted_against_kl_and_beta_is_advised(done):
    for name in ("plain", "lifted"):
        curve = done.experiment.curves[name]
        assert curve.frontiers["fake"].main is not None
        # The least KL first: the largest beta.
        assert [point.choice.point for point in curve.points] == [f"train.beta={b}" for b in BETAS[::-1]]
        assert curve.advice is not None and "beta" in curve.advice.sentence
    assert len(done.experiment.curves["plain"].outcomes) == 6


def test_it_is_compared_with_the_baseline_point_by_point(done):
    figures = done.experiment.comparison.figures[RUNS]
    for beta in BETAS:
        cell = Cell("", "lifted", f"train.beta={beta}")
        assert figures[cell]["gold_end_difference"].mean > 0
        assert figures[cell]["gold_end_difference"].num_seeds == 2


def test_it_is_in_the_report_and_in_each_runs_summary(done):
    page = done.report.read_text()
    assert "lifted" in page and "beta" in page
    run = done.records[0].folder
    summary = json.loads((run / "summary.json").read_text())
    assert summary["ended"] == "all steps" and summary["steps"] == 40
    assert (run / "config.yaml").read_text().count("kind: fake") == 1
    assert cli.main(["report", str(run)]) == 0
    assert (run / "report.html").stat().st_size > 1000


def test_it_is_done_once(done):
    before = {path: path.stat().st_mtime_ns for path in done.out.rglob("metrics.jsonl")}
    again = run_experiment(parse_config(SETTINGS), done.out, lambda: False, ExperimentView())
    assert again.experiment.to_json() == done.experiment.to_json()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_terminal_has_a_row_per_point_whatever_sets_its_kl(done, capsys):
    print_experiment(done)
    shown = capsys.readouterr().out
    rows = [line for line in shown.splitlines() if "│" in line and "-beta_" in line.split("│")[1]]
    assert len(rows) == 6
    assert all(row.split("│")[2].strip() == "-" for row in rows)  # no budget was asked for
    assert str(done.report) in shown
