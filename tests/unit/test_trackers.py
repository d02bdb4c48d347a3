"""Trackers: a run's numbers in groups, each step once however often the run is stopped, and never at the cost of the run."""

import importlib.util
import json
import struct

import pytest

from framework.config import Config, parse_config
from framework.errors import RunError, UserError
from framework.trackers import (
    MlFlow,
    TensorBoard,
    TrackedRun,
    Tracker,
    TrackerSettings,
    Tracking,
    Trackio,
    Wandb,
    group_of,
)
from jobs import __main__ as cli
from jobs.run_folder import RunContext
from tests.repository.test_tree import ROOT
from tests.tiny import make_tiny

METRICS = {"step": 0, "proxy": 1.0, "gold": 2.0, "kl_nats": 3.0, "loss": 0.5, "heads": [1.0], "kl_exact_nats": None}
TIMINGS = {"seconds": 2.0, "stage_seconds": {"rollout": 0.5}}
GROUPED = {"reward/proxy", "reward/gold", "kl/kl_nats", "policy/loss", "time/seconds", "time/rollout"}


class Fake(TrackerSettings):
    """Keeps what it is told in a file, and loses the last steps of a run that is killed."""

    kind: str = "fake"
    first: int = 0
    fails_at: int = 10**9

    def start(self, run):
        path = run.folder / f"{self.kind}-{run.id}.jsonl"

        def log(step, numbers):
            if step == self.fails_at:
                raise ConnectionError("the network is gone")
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([step, dict(numbers)]) + "\n")

        return Tracker(log, lambda: None, max(self.first, len(told(run.folder, self.kind))))


def told(folder, kind="fake"):
    return [
        json.loads(line)
        for path in folder.glob(f"{kind}-*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def logged(tracking, start, stop):
    for step in range(start, stop):
        tracking.step(step, METRICS | {"step": step, "proxy": float(step)}, TIMINGS)


def past(stop):
    return [METRICS | {"step": step, "proxy": float(step)} for step in range(stop)], [
        TIMINGS | {"step": step} for step in range(stop)
    ]


def resumed(settings, folder, reached=5, saved=3, end=7):
    """Steps to `reached`, then on from the checkpoint at `saved`, as a run does it."""
    first = Tracking([settings], TrackedRun(folder, "run", {"seed": 0}))
    logged(first, 0, reached)
    first.close()
    for path in folder.glob("tensorboard/events*"):
        path.rename(f"{path}.before")  # its name is the second it was begun in, and so will the next one's be
    again = Tracking([settings], TrackedRun(folder, "run", {"seed": 0}, saved))
    again.catch_up(*past(saved))
    logged(again, saved, end)
    again.close()


def test_proxy_and_gold_stand_in_one_group():
    assert group_of("proxy") == group_of("gold") == group_of("gold_se") == group_of("reward") == "reward"
    assert {group_of(name) for name in ("kl_nats", "kl_coef", "kl_to_sampler_k3", "kl_exact_nats")} == {"kl"}
    assert group_of("ended") == group_of("grad_norm") == "policy"


def test_a_tracker_is_told_numbers_by_group_and_nothing_else(tmp_path):
    tracking = Tracking([Fake()], TrackedRun(tmp_path, "run", {}))
    logged(tracking, 0, 1)
    ((step, numbers),) = told(tmp_path)
    assert (step, set(numbers)) == (0, GROUPED)


@pytest.mark.parametrize(("reached", "saved"), [(5, 3), (3, 3), (5, 0)])
def test_a_resumed_run_tells_each_step_once(tmp_path, reached, saved):
    resumed(Fake(), tmp_path, reached, saved)
    assert [step for step, _ in told(tmp_path)] == list(range(7))
    assert [numbers["reward/proxy"] for _, numbers in told(tmp_path)] == [float(step) for step in range(7)]


def test_steps_that_a_tracker_lost_are_told_again_from_the_log(tmp_path):
    tracking = Tracking([Fake()], TrackedRun(tmp_path, "run", {}, 4))
    tracking.catch_up(*past(4))
    assert [step for step, _ in told(tmp_path)] == [0, 1, 2, 3]


def test_a_tracker_that_fails_is_warned_of_and_the_others_go_on(tmp_path):
    tracking = Tracking([Fake(kind="bad", fails_at=1), Fake(kind="good")], TrackedRun(tmp_path, "run", {}))
    with pytest.warns(UserWarning, match="bad failed at step 1 and is left out from here on: the network is gone"):
        logged(tracking, 0, 4)
    tracking.close()
    assert [step for step, _ in told(tmp_path, "bad")] == [0]
    assert [step for step, _ in told(tmp_path, "good")] == [0, 1, 2, 3]


def test_a_tracker_that_cannot_be_opened_is_one_line(tmp_path, monkeypatch):
    def refuse(self, run):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(Fake, "start", refuse)
    with pytest.raises(RunError, match=r"^trackers: cannot open fake: no route to host$"):
        Tracking([Fake()], TrackedRun(tmp_path, "run", {}))


@pytest.mark.parametrize("verb", ["check", "train", "study"])
def test_a_tracker_that_is_not_installed_is_found_before_anything_is_made(tmp_path, verb, monkeypatch, capsys):
    monkeypatch.setattr(Wandb, "package", "no_such_tracker")
    out = ["--out", str(tmp_path / "out")] if verb != "check" else []
    assert cli.main([verb, "trackers=[{kind: wandb}]", *out]) == 2
    line = "no_such_tracker is not installed: pip install 'goldilocks[no_such_tracker]', or leave it out of trackers\n"
    assert capsys.readouterr().err == f"goldilocks {verb}: trackers: {line}"
    assert not (tmp_path / "out").exists()


def test_every_package_of_a_tracker_is_an_extra():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for tracker in (Wandb, MlFlow, Trackio):
        assert f'\n{tracker.package} = ["{tracker.package}>=' in project


def test_a_tracker_is_named_once():
    with pytest.raises(UserError, match="wandb is named twice"):
        parse_config({"trackers": [{"kind": "wandb"}, {"kind": "wandb", "mode": "offline"}]})


def test_trackers_change_no_fingerprint():
    plain, watched = Config(), parse_config({"trackers": [{"kind": "mlflow"}]})
    assert plain.fingerprint() == watched.fingerprint()
    assert plain.run_fingerprint() == watched.run_fingerprint()


def _events(folder):
    """(tag, step) of every scalar, and the steps that purge what came before."""
    from tensorboardX.proto.event_pb2 import Event

    scalars, purges = [], []
    for path in sorted(folder.glob("events*"), key=lambda path: path.stat().st_mtime_ns):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            if event.HasField("session_log"):
                purges.append(event.step)
            scalars += [(value.tag, event.step) for value in event.summary.value if value.HasField("simple_value")]
    return scalars, purges


def test_tensorboard_has_grouped_tags_and_drops_what_comes_again(tmp_path):
    resumed(TensorBoard(), tmp_path)
    scalars, purges = _events(tmp_path / "tensorboard")
    assert {tag for tag, _ in scalars} == GROUPED
    assert sorted(step for tag, step in scalars if tag == "reward/gold") == [0, 1, 2, 3, 3, 4, 4, 5, 6]
    assert purges[-1] == 3  # TensorBoard shows nothing older of steps from 3 on


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


@needs("mlflow")
def test_mlflow_goes_on_with_the_same_run(tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    resumed(MlFlow(uri=uri), tmp_path)
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("goldilocks").experiment_id])
    history = client.get_metric_history(run.info.run_id, "reward/proxy")
    assert [(metric.step, metric.value) for metric in history] == [(step, float(step)) for step in range(7)]
    assert run.data.params == {"seed": "0"}
    assert run.info.status == "FINISHED"


@needs("trackio")
def test_trackio_goes_on_with_the_same_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    resumed(Trackio(), tmp_path)
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = SQLiteStorage.get_runs("goldilocks")
    assert [row["step"] for row in SQLiteStorage.get_logs("goldilocks", run)] == list(range(7))
    assert capsys.readouterr().out == ""


@needs("wandb")
def test_wandb_offline_leaves_one_whole_run_to_sync(tmp_path, capsys):
    resumed(Wandb(mode="offline"), tmp_path)
    (piece,) = (tmp_path / "wandb").glob("offline-run-*")
    (file,) = piece.glob("run-*.wandb")
    text = file.read_bytes()
    assert text.count(b"reward/proxy") >= 7
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_run_tells_its_tracker_every_step_across_a_stop(tmp_path, monkeypatch):
    """With the run's own driver, checkpoints and log."""
    monkeypatch.setattr(TensorBoard, "start", lambda self, run: Fake().start(run))
    tiny, run = make_tiny(tmp_path / "stages"), tmp_path / "run"
    asked = iter(range(100))
    tiny.run(run, RunContext(stop_asked=lambda: next(asked) > 6))
    assert 0 < len(told(run)) < 6
    tiny.run(run)
    assert [step for step, _ in told(run)] == list(range(6))
