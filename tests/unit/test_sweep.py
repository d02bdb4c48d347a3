"""The trials of a sweep: their names, methods and configurations, what is refused, and who is compared with whom."""

import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.analysis.sweep_analysis import analyse_sweep
from framework.config import Config, parse_config
from framework.errors import RunError, UserError
from framework.sweep import num_trials, trials_of
from jobs import sweep
from jobs.sweep import SweepView
from jobs.trial_ledger import Ledger
from jobs.verbs.sweep import _table
from tests.unit.fake_sweep import fake_table

BUDGET = {"kl": {"kind": "budget"}}


def config(sweep: dict, **more: object) -> Config:
    return parse_config(BUDGET | {"sweep": sweep} | more)


def test_trials_cross_runs_points_and_seeds_and_agree_with_their_count():
    cfg = config(
        {"grid": {"kl.budget": [2, 8.0], "label.noise": [0, 0.25]}},
        variants={"single": {}, "lcb": {"aggregation.kind": "worst_case"}},
        seeds=[3, 1],
    )
    trials = trials_of(cfg)
    assert len(trials) == num_trials(cfg) == 16
    assert len({trial.id for trial in trials}) == 16
    assert [trial.seed for trial in trials] == [3] * 8 + [1] * 8
    assert [trial.name for trial in trials[:3]] == [
        "single-budget_2-noise_0",
        "single-budget_2-noise_0.25",
        "single-budget_8-noise_0",
    ]
    assert {trial.method for trial in trials} == {
        "single, label.noise=0", "single, label.noise=0.25", "lcb, label.noise=0", "lcb, label.noise=0.25"
    }  # fmt: skip
    last = trials[-1]
    assert (last.budget, last.settings) == (8.0, {"kl.budget": 8.0, "label.noise": 0.25})
    assert (last.cfg.kl.set_point, last.cfg.label.noise, last.cfg.seed) == (8.0, 0.25, 1)
    assert last.cfg.aggregation.kind == "worst_case" and trials[0].cfg.aggregation.kind == "mean"


def test_a_trial_is_the_run_that_these_overrides_would_make():
    trial = trials_of(config({"grid": {"kl.budget": [4]}}, seeds=[7]))[0]
    assert (
        trial.cfg.fingerprint()
        == parse_config({"kl": {"kind": "budget", "budget": 4}, "seed": 7}).fingerprint()
    )
    assert (trial.name, trial.method, trial.id) == ("run-budget_4", "run", "run-budget_4-seed_7")


def test_keys_that_share_a_last_part_are_written_out_and_odd_values_are_hashed():
    (trial,) = trials_of(
        config({"points": [{"kl.gain": 0.3, "update.optimizer.lr": 1e-4, "sft.optimizer.lr": 2e-4}]})
    )
    assert trial.name == "run-gain_0.3-update-optimizer-lr_0.0001-sft-optimizer-lr_0.0002"
    text = "Continue: {prompt}"
    first, second = trials_of(config({"grid": {"instruction": [text, f"Please, {text} " + "x" * 200]}}))
    assert first.name.startswith("run-instruction_") and len(first.name) == len("run-instruction_") + 8
    assert first.name != second.name and first.method == f"run, instruction={text}"


def test_a_key_that_is_the_same_at_every_point_makes_no_method():
    points = [{"kl.kind": "budget", "kl.budget": nats} for nats in (1, 2)]
    trials = trials_of(parse_config({"sweep": {"points": points}}))  # from kl.kind=fixed
    assert [(trial.name, trial.method) for trial in trials] == [
        ("run-kind_budget-budget_1", "run"),
        ("run-kind_budget-budget_2", "run"),
    ]
    points.append({"kl.kind": "adaptive", "kl.target": 2, "kl.horizon": 1000})
    methods = [trial.method for trial in trials_of(parse_config({"sweep": {"points": points}}))]
    assert methods == [
        "run, kl.kind=budget", "run, kl.kind=budget", "run, kl.kind=adaptive, kl.horizon=1000"
    ]  # fmt: skip


def test_without_points_a_sweep_is_its_study():
    trials = trials_of(parse_config({"variants": {"a": {}, "b": {}}}))
    assert [(trial.name, trial.method, trial.budget) for trial in trials] == [
        ("a", "a", None), ("b", "b", None)
    ]  # fmt: skip


@given(
    values=st.lists(
        st.one_of(st.floats(1e-6, 1e6), st.integers(1, 10**9)), min_size=1, max_size=6, unique=True
    )
)
def test_names_are_folder_safe_unique_and_short(values):
    names = [trial.name for trial in trials_of(config({"grid": {"kl.budget": values}}))]
    assert len(set(names)) == len(names)
    assert all(
        len(name) <= 80 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_+.") for name in names
    )


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"grid": {"kl.budgt": [2]}}, "unknown key 'kl.budgt'; did you mean 'budget'?"),
        ({"grid": {"kl.budget": [2, -1]}}, "kl.budget=-1"),
        ({"grid": {"kl.budget": [0]}}, "kl.budget=0"),
        ({"grid": {"kl.budget": ["many"]}}, "kl.budget='many'"),
        ({"grid": {"nothing.here": [1]}}, "unknown key 'nothing'"),
        ({"grid": {"kl.coef": [0.1]}}, "set kl.kind=fixed or stop"),
        ({"grid": {"kl.budget": []}}, "sweep: grid.kl.budget is empty"),
        ({"grid": {"kl.budget": [2]}, "points": [{"kl.budget": 2}]}, "set either grid or points"),
        ({"points": [{"kl.budget": 2}, {}]}, "points: one of them sets no key"),
        ({"points": [{"kl.budget": 2}, {"kl.budget": 2.0}]}, 'points holds {"kl.budget": 2} twice'),
        ({"grid": {"kl.budget": [4, 4]}}, "grid.kl.budget holds 4 twice"),
        ({"grid": {"seed": [1, 2]}}, "seed cannot be swept; give the seeds as seeds=[...]"),
        ({"grid": {"sweep.limit": [1, 2]}}, "sweep.limit cannot be swept"),
        ({"grid": {"kl.budget": [2, 4]}, "limit": 0}, "sweep.limit=0"),
        ({"scheduler": {"kind": "hyper"}}, "sweep.scheduler.kind='hyper' is not known"),
        ({"grid": {"kl.budget": [2, 4]}, "scheduler": {"kind": "asha"}}, "here budget 2 has one"),
        (
            {
                "points": [{"kl.budget": 2, "kl.gain": 0.1}, {"kl.budget": 2, "kl.gain": 0.2}, {"kl.budget": 4, "kl.gain": 0.1}],
                "scheduler": {"kind": "asha"},
            },
            "here budget 4 has one",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_refused_in_a_line(sweep, said):
    with pytest.raises(UserError) as raised:
        trials_of(config(sweep))
    assert said in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "scheduler", "accepted"),
    [
        ({"gold_at": [0, 159]}, {}, False),
        ({"gold_at": [0, 18, 159]}, {}, False),
        ({"gold_at": [0, 19, 159]}, {}, True),
        ({"gold_at": [0, 159]}, {"metric": "proxy"}, True),
        ({"gold_every": 159}, {}, False),
        ({"steps": 20}, {"metric": "proxy"}, False),
        ({"steps": 21}, {"metric": "proxy"}, True),
    ],
)
def test_asha_must_see_its_metric_before_the_end(settings, scheduler, accepted):
    grid = {"kl.budget": [2], "kl.gain": [0.1, 0.2]}
    cfg = config({"grid": grid, "scheduler": {"kind": "asha"} | scheduler}, **settings)
    if accepted:
        assert len(trials_of(cfg)) == 2
    else:
        with pytest.raises(UserError, match=r"run-budget_2-gain_0\.1 measures no (gold|proxy) from step 19"):
            trials_of(cfg)


def test_a_budget_without_its_controller_is_told_which_kind_to_set():
    with pytest.raises(UserError) as raised:
        trials_of(parse_config({"sweep": {"grid": {"kl.budget": [2]}}}))
    assert "kl.budget is not a setting of kl.kind=fixed: set kl.kind=budget" in str(raised.value)


def test_a_variant_may_set_the_controller_that_a_budget_needs():
    cfg = parse_config(
        {"variants": {"a": {"kl.kind": "budget", "kl.gain": 0.1}}, "sweep": {"grid": {"kl.budget": [2]}}}
    )
    (trial,) = trials_of(cfg)
    assert (trial.cfg.kl.budget, trial.cfg.kl.gain) == (2, 0.1)


# The ledger


def finish(run: Path, ended: str = "all steps") -> None:
    run.mkdir(parents=True)
    (run / "summary.json").write_text(json.dumps({"ended": ended}))


def test_run_folders_tell_what_is_finished_and_the_ledger_the_rest(tmp_path):
    trials = trials_of(config({"grid": {"kl.budget": [1, 2, 3, 4, 5]}}))
    ledger = Ledger(tmp_path, trials)
    assert [trial.id for trial in ledger.waiting] == [trial.id for trial in trials]
    finish(ledger.run(trials[0]))
    finish(ledger.run(trials[1]), "KL budget spent")
    for trial, status in zip(trials, ("failed", "unfinished", "stopped", "failed", "finished"), strict=True):
        ledger.note(trial, status, "it broke" if status == "failed" else None)

    again = Ledger(tmp_path, trials)
    assert [record.status for record in again.records()] == [
        "finished", "stopped", "stopped", "failed", "unfinished"
    ]  # fmt: skip
    assert [record.error for record in again.records()] == [None, None, None, "it broke", None]
    assert [trial.name for trial in again.waiting] == ["run-budget_4", "run-budget_5"]
    assert all(record.run is None for record in again.records())  # none of them logged a step


def test_run_folders_tell_what_the_scheduler_stopped_and_a_cut_file_is_no_end(tmp_path):
    stopped, cut, begun = trials = trials_of(config({"grid": {"kl.budget": [1, 2, 3]}}))
    ledger = Ledger(tmp_path, trials)
    ledger.note(stopped, "stopped", None)
    (tmp_path / "trials.json").unlink()
    for trial, line in ((cut, '{"step": 0, "go'), (begun, '{"step": 0}\n{"st')):
        ledger.run(trial).mkdir(parents=True)
        (ledger.run(trial) / "metrics.jsonl").write_text(line)
        (ledger.run(trial) / "summary.json").write_text('{"ended": "all')
    again = Ledger(tmp_path, trials)
    assert [record.status for record in again.records()] == ["stopped", "unfinished", "unfinished"]
    assert [record.run for record in again.records()] == [None, None, again.run(begun)]


def test_a_ledger_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "trials.json").write_text("{")
    with pytest.raises(UserError, match=r"trials\.json cannot be read"):
        Ledger(tmp_path, trials_of(config({"grid": {"kl.budget": [1]}})))


# What trials start from


def stages_that_fail(monkeypatch, fails):
    """The trials for which a stage was asked; one that `fails` names raises what it says."""
    asked: list[str] = []

    def make_inputs(cfg, name, run, show, address):
        asked.append(f"{name}-seed_{cfg.seed}")
        if error := fails(cfg):
            raise error
        return SimpleNamespace(cfg=cfg, run=run)

    monkeypatch.setattr(sweep, "make_inputs", make_inputs)
    monkeypatch.setattr(sweep, "score_pool", lambda inputs, show: None)
    return asked


def test_a_stage_that_fails_is_tried_once_and_fails_the_trials_that_share_it(tmp_path, monkeypatch):
    trials = trials_of(config({"grid": {"kl.budget": [1, 2], "label.noise": [0, 0.25]}}))
    asked = stages_that_fail(monkeypatch, lambda cfg: RunError("no\nfit") if cfg.label.noise else None)
    ledger, told = Ledger(tmp_path, trials), []
    ready = sweep._make_ready(ledger, lambda: False, SweepView(ended=told.append), None)
    assert [one.trial.name for one in ready] == ["run-budget_1-noise_0", "run-budget_2-noise_0"]
    assert asked == [f"{trial.name}-seed_0" for trial in trials[:3]]
    assert [record.error for record in told] == ["no fit", "no fit"]
    assert [record.status for record in Ledger(tmp_path, trials).records()] == ["unfinished", "failed"] * 2


def test_one_mistake_that_leaves_no_trial_is_raised(tmp_path, monkeypatch):
    trials = trials_of(config({"grid": {"kl.budget": [1, 2], "label.noise": [0, 0.25]}}))
    stages_that_fail(monkeypatch, lambda cfg: UserError("no such file"))
    with pytest.raises(UserError, match="no such file"):
        sweep._make_ready(Ledger(tmp_path, trials), lambda: False, SweepView(), None)
    # Two mistakes, or a failure, are those of their trials.
    for kind, text in ((UserError, "noise {}"), (RunError, "no fit")):
        stages_that_fail(monkeypatch, lambda cfg, kind=kind, text=text: kind(text.format(cfg.label.noise)))
        assert sweep._make_ready(Ledger(tmp_path, trials), lambda: False, SweepView(), None) == []


def test_what_failed_before_and_is_not_begun_stays_failed(tmp_path, monkeypatch):
    from jobs import tune_trials

    first, second = trials = trials_of(config({"grid": {"kl.budget": [1, 2]}}))
    stages_that_fail(monkeypatch, lambda cfg: None)
    ledger = Ledger(tmp_path, trials)
    for trial in trials:
        ledger.note(trial, "failed", "it broke")

    def run_trials(ready, settings, folder, stop_asked, watch):
        watch.began(first)
        for trial in trials:
            watch.ended(trial, "unfinished", None)

    monkeypatch.setattr(tune_trials, "run_trials", run_trials)
    cfg = config({"grid": {"kl.budget": [1, 2]}})
    assert not sweep._run(cfg, ledger, lambda: False, SweepView(), None)
    states = {record.trial: (record.status, record.error) for record in Ledger(tmp_path, trials).records()}
    assert states == {first.name: ("unfinished", None), second.name: ("failed", "it broke")}
    assert not sweep._run(cfg, ledger, lambda: True, SweepView(), None)  # stopped while stages were made
    assert sweep.SweepResult(tmp_path, [ledger.note(first, "failed", "it broke")], stopped=True).interrupted


def test_a_done_trial_whose_folder_is_gone_is_run_again_and_missed(tmp_path):
    first, second = trials = trials_of(config({"grid": {"kl.budget": [1, 2]}}))
    ledger = Ledger(tmp_path, trials)
    ledger.note(first, "stopped", None)
    finish(ledger.run(second))
    ledger.note(second, "finished", None)
    whole = Ledger(tmp_path, trials)
    assert not whole.waiting and not whole.has_lost_runs
    shutil.rmtree(ledger.run(first))
    again = Ledger(tmp_path, trials)
    assert again.waiting == [first] and again.has_lost_runs


def test_the_table_on_the_terminal_has_trials_without_a_budget_too():
    shown = _table(analyse_sweep(fake_table(methods=("single",), budgets=(2.0, None), steps=10)))
    assert list(shown.columns[1].cells) == ["2", "-"] and list(shown.columns[4].cells) == ["3", "3"]


# Who is compared with whom


def test_asha_compares_within_a_budget_and_nowhere_else():
    from ray.tune.schedulers import TrialScheduler

    from jobs.tune_trials import ReadyTrial, _WithinBudgets

    cfg = config(
        {
            "grid": {"kl.budget": [1, 64], "kl.gain": [0.1, 0.2, 0.4]},
            "scheduler": {"kind": "asha", "grace_steps": 5, "reduction_factor": 3},
        },
        steps=20,
    )
    trials = trials_of(cfg)
    by_id = {t.id: ReadyTrial(t, SimpleNamespace(cfg=t.cfg), (), "PACK") for t in trials}
    stopped: set[str] = set()
    scheduler = _WithinBudgets(cfg.sweep.scheduler, by_id, stopped)
    tunes = {t.id: SimpleNamespace(trial_id=t.id, config={"trial": t.id}) for t in trials}
    for tune_trial in tunes.values():
        scheduler.on_trial_add(None, tune_trial)

    # Every trial of the small budget is worse than all of the large one; within each, the first is the best.
    gold = {t.id: t.budget - index for t, index in zip(trials, itertools.cycle(range(3)), strict=False)}
    decisions = {}
    for step, trial in itertools.product(range(20), trials):
        if trial.id in stopped:
            continue
        result = {"step": step, "gold": gold[trial.id] if step % 2 else None}
        decision = scheduler.on_trial_result(None, tunes[trial.id], result)
        decisions.setdefault(trial.id, []).append(decision)
    assert stopped == {trial.id for trial in trials if trial.cfg.kl.gain != 0.1}
    # Nobody is judged in the grace time, nor on a step without gold, nor at the last step, where all is done anyway.
    assert all(len(decisions[id]) == 6 and decisions[id][-1] == TrialScheduler.STOP for id in stopped)
    assert all(len(decisions[trial.id]) == 20 for trial in trials if trial.id not in stopped)
