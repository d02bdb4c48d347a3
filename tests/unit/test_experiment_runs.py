"""How an experiment goes through its runs: what they start from, what fails with what, and who is compared with whom."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from framework.config import Config, parse_config
from framework.errors import RunError, UserError
from framework.sweep import Sweep
from jobs.experiment import run as experiment
from jobs.experiment import tune
from jobs.experiment.ledger import Ledger
from jobs.experiment.plan import PlannedRun, plan_of
from jobs.experiment.run import ExperimentResult, ExperimentView
from tests.tiny import merged

NOISE = {"train.kl.budget": [1, 2], "label.noise": [0, 0.25]}
BUDGETS = {"train.kl.budget": [1, 2]}


def config(sweep: dict, **more: object) -> Config:
    return parse_config(merged({"train": {"kl": {"kind": "budget"}}, "sweep": sweep}, more))


def stages_that_fail(monkeypatch, fails):
    """The runs for which stages were asked; one that `fails` names raises what it says."""
    asked: list[str] = []

    class Chain:
        def __init__(self, cfg, workspace, show, fit):
            self.cfg = cfg

        @property
        def inputs(self):
            asked.append(f"{self.cfg.train.kl.budget:g}, {self.cfg.label.noise:g}")
            if error := fails(self.cfg):
                raise error
            return SimpleNamespace(cfg=self.cfg)

        def score_pool(self, run: Path) -> None:
            pass

    monkeypatch.setattr(experiment, "Chain", Chain)
    return asked


def make_ready(ledger, view=None):
    return experiment._make_ready(ledger, lambda: False, view or ExperimentView(), None)


def test_a_stage_that_fails_is_tried_once_and_fails_the_runs_that_share_it(tmp_path, monkeypatch):
    plan = plan_of(config({"grid": NOISE}))
    asked = stages_that_fail(monkeypatch, lambda cfg: RunError("no\nfit") if cfg.label.noise else None)
    ledger, told = Ledger(tmp_path, plan), []
    ready = make_ready(ledger, ExperimentView(ended=told.append))
    assert [one.planned.record.run for one in ready] == ["run-budget_1-noise_0", "run-budget_2-noise_0"]
    assert asked == ["1, 0", "1, 0.25", "2, 0"]
    assert [record.error for record in told] == ["no fit", "no fit"]
    assert [record.status for record in Ledger(tmp_path, plan).records()] == ["unfinished", "failed"] * 2
    assert ready[0].folder == tmp_path / "seed_0" / "run-budget_1-noise_0" / "train"


def test_one_mistake_that_leaves_no_run_is_raised(tmp_path, monkeypatch):
    plan = plan_of(config({"grid": NOISE}))
    stages_that_fail(monkeypatch, lambda cfg: UserError("no such file"))
    with pytest.raises(UserError, match="no such file"):
        make_ready(Ledger(tmp_path, plan))
    # Two mistakes, or a failure, are those of their runs.
    for kind, text in ((UserError, "noise {}"), (RunError, "no fit")):
        stages_that_fail(monkeypatch, lambda cfg, kind=kind, text=text: kind(text.format(cfg.label.noise)))
        assert make_ready(Ledger(tmp_path, plan)) == []


def test_what_failed_before_and_is_not_begun_stays_failed(tmp_path, monkeypatch):
    cfg = config({"grid": BUDGETS})
    first, second = plan = plan_of(cfg)
    stages_that_fail(monkeypatch, lambda cfg: None)
    ledger = Ledger(tmp_path, plan)
    for run in plan:
        ledger.note(run, "failed", "it broke")

    class Tuner:
        """Begins the first run, and no other."""

        def __init__(self, trainable, run_config, **_):
            (self.callback,) = run_config.callbacks

        def fit(self):
            self.callback.on_trial_start(0, [], SimpleNamespace(config={"run": first.id}))

    monkeypatch.setattr(tune.tune, "with_parameters", lambda trainable, **_: trainable)
    monkeypatch.setattr(tune.tune, "Tuner", Tuner)
    assert not experiment._run(cfg, ledger, lambda: False, ExperimentView(), None)
    states = {record.run: (record.status, record.error) for record in Ledger(tmp_path, plan).records()}
    assert states == {first.record.run: ("unfinished", None), second.record.run: ("failed", "it broke")}
    # Stopped while stages were made:
    assert not experiment._run(cfg, ledger, lambda: True, ExperimentView(), None)
    assert ExperimentResult(tmp_path, [ledger.note(first, "failed", "it broke")], stopped=True).interrupted


def test_tune_is_given_absolute_folders(tmp_path, monkeypatch):
    """Runs look for the halt file from a folder of Tune's own."""

    class _StopError(Exception):
        pass

    given = {}

    def with_parameters(trainable, **parameters):
        given.update(parameters)
        raise _StopError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tune.tune, "with_parameters", with_parameters)
    with pytest.raises(_StopError):
        tune.run_on_tune([], Sweep(), Ledger(Path("out"), []), lambda: False, ExperimentView())
    assert given["halt"] == tmp_path / "out" / tune.HALT_FILE


def same(before: Config, now: Config) -> bool:
    return experiment._same(before, now, Path("out"))


def test_an_experiment_stays_itself_with_more_seeds_and_elsewhere():
    before = config({"grid": BUDGETS}, seeds=[0, 1])
    assert same(before, config({"grid": BUDGETS, "retries": 3, "limit": 7}, seeds=[1, 0, 2], backend="inline"))
    with pytest.raises(UserError, match=r"with the seeds 0, 1, and 1 would be missing: set seeds=\[0, 1\]"):
        same(before, config({"grid": BUDGETS}, seeds=[0, 2]))


@pytest.mark.parametrize(
    ("sweep", "more"),
    [
        ({"grid": {"train.kl.budget": [1, 2, 3]}}, {}),
        ({"grid": BUDGETS}, {"train": {"steps": 7}}),
        ({"grid": BUDGETS}, {"conditions": {"a": {}}}),
        ({"grid": BUDGETS}, {"variants": {"run": {}}, "baseline": "run"}),
        ({"grid": BUDGETS}, {"best_of_n": {"prompts": 3}}),
        ({"grid": BUDGETS | {"train.kl.gain": [0.1, 0.2]}, "scheduler": {"kind": "asha"}}, {}),
    ],
)
def test_another_grid_method_baseline_or_scheduler_is_another_experiment(sweep, more):
    assert not same(config({"grid": BUDGETS}), config(sweep, **more))


# Who is compared with whom


def ready_run(planned: PlannedRun) -> tune.ReadyRun:
    return tune.ReadyRun(planned, SimpleNamespace(cfg=planned.cfg), Path("x"), (), "PACK")


def test_asha_compares_within_a_budget_and_nowhere_else():
    from ray.tune.schedulers import TrialScheduler

    cfg = config(
        {
            "grid": {"train.kl.budget": [1, 64], "train.kl.gain": [0.1, 0.2, 0.4]},
            "scheduler": {"kind": "asha", "grace_steps": 5, "reduction_factor": 3},
        },
        train={"steps": 20},
    )
    plan = plan_of(cfg)
    by_id = {run.id: ready_run(run) for run in plan}
    stopped: set[str] = set()
    scheduler = tune._WithinBudgets(cfg.sweep.scheduler, by_id, stopped)
    trials = {run.id: SimpleNamespace(trial_id=run.id, config={"run": run.id}) for run in plan}
    for trial in trials.values():
        scheduler.on_trial_add(None, trial)

    # Every run of the small budget is worse than all of the large one; within each, the first is the best.
    gold = {r.id: r.record.budget - index for r, index in zip(plan, itertools.cycle(range(3)), strict=False)}
    decisions = {}
    for step, run in itertools.product(range(20), plan):
        if run.id in stopped:
            continue
        result = {"step": step, "gold": gold[run.id] if step % 2 else None}
        decision = scheduler.on_trial_result(None, trials[run.id], result)
        decisions.setdefault(run.id, []).append(decision)
    assert stopped == {run.id for run in plan if run.cfg.train.kl.gain != 0.1}
    # Nobody is judged in the grace time, nor on a step without gold, nor at the last step, where all is done anyway.
    assert all(len(decisions[id]) == 6 and decisions[id][-1] == TrialScheduler.STOP for id in stopped)
    assert all(len(decisions[run.id]) == 20 for run in plan if run.id not in stopped)
