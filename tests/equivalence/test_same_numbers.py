"""What can run two ways gives the same numbers, byte for byte."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from framework.errors import UserError
from framework.gold.rule import Rule
from framework.types import Scores
from jobs import run_folder
from jobs.methods import online
from jobs.run_folder import RunContext, RunInputs, make_run, resume_run
from jobs.workspace import LOCK_FILE
from tests.tiny import contents


def _run(tiny, out: Path, **changes) -> dict[str, bytes]:
    tiny.run(out, **changes)
    return contents(out)


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory):
    return _run(tiny, tmp_path_factory.mktemp("undisturbed") / "train")


def test_the_same_seed_twice(tiny, undisturbed, tmp_path):
    assert _run(tiny, tmp_path / "again") == undisturbed


def test_another_seed_differs(tiny, undisturbed, tmp_path):
    assert _run(tiny, tmp_path / "other", seed=1)["metrics.jsonl"] != undisturbed["metrics.jsonl"]


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_stop_and_a_resume_leave_no_trace(tiny, undisturbed, tmp_path, step):
    run = tmp_path / "train"
    asked = iter(range(100))
    # The driver asks twice a step: before it begins, and at its end.
    stopped = tiny.run(run, RunContext(stop_asked=lambda: next(asked) >= 2 * step - 1))
    assert stopped.ended is None
    assert len((run / "metrics.jsonl").read_text().splitlines()) == step
    assert resume_run(run, RunContext()).ended
    assert contents(run) == undisturbed


@pytest.mark.parametrize("roles", [("policy", "reference"), ("reference",)])
def test_a_run_is_not_resumed_against_another_reference(tiny, tmp_path, roles):
    policy = replace(tiny.parents["policy"], path=tmp_path / "policy")
    shutil.copytree(tiny.parents["policy"].path, policy.path)
    asked = iter(range(100))
    stop = RunContext(stop_asked=lambda: next(asked) >= 3)
    parents = tiny.parents | dict.fromkeys(roles, policy)
    make_run(RunInputs(tiny.cfg, parents), tmp_path / "train", stop)
    weights = policy.path / "model.safetensors"
    spoilt = bytearray(weights.read_bytes())
    spoilt[-1] ^= 1
    weights.write_bytes(spoilt)
    with pytest.raises(UserError, match=rf"the {roles[0]} at .* is not the one this run began with"):
        resume_run(tmp_path / "train", RunContext())


class _PowerCutError(Exception):
    pass


@pytest.mark.parametrize("step", [0, 1, 3, 4])
def test_a_crash_between_checkpoints_and_a_resume_leave_no_trace(tiny, undisturbed, tmp_path, step):
    def cut(done: int, _metrics: dict) -> None:
        if done == step:
            raise _PowerCutError

    run = tmp_path / "train"
    with pytest.raises(_PowerCutError):
        tiny.run(run, RunContext(show=cut))
    assert resume_run(run, RunContext()).ended
    assert contents(run) == undisturbed


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_run_that_died_before_it_had_begun_begins_anew(tiny, undisturbed, tmp_path, monkeypatch, written):
    def write(path: Path, text: str) -> None:
        if len([p for p in tmp_path.glob("train/*") if p.name != LOCK_FILE]) == written:
            path.with_name(f".{path.name}.writing").write_text(text[:3])
            raise _PowerCutError
        path.write_text(text)

    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "write_text", write)
        with pytest.raises(_PowerCutError):
            _run(tiny, tmp_path / "train")
    assert _run(tiny, tmp_path / "train") == undisturbed


def test_a_run_goes_on_with_the_backend_and_the_cluster_that_it_is_given(tiny, tmp_path, monkeypatch):
    run, placed = tmp_path / "train", []

    def open_roles(cfg, *_):
        placed.append((cfg.backend, cfg.cluster))
        raise _PowerCutError

    monkeypatch.setattr(online, "open_roles", open_roles)
    for changes in ({}, {"backend": "ray", "cluster": "one_gpu"}):
        with pytest.raises(_PowerCutError):
            _run(tiny, run, **changes)
    with pytest.raises(_PowerCutError):
        resume_run(run, RunContext())
    assert placed == [("inline", "laptop"), ("ray", "one_gpu"), ("inline", "laptop")]


def test_a_torn_checkpoint_is_passed_over(tiny, undisturbed, tmp_path):
    run = tmp_path / "train"
    asked = iter(range(100))
    tiny.run(run, RunContext(stop_asked=lambda: next(asked) >= 9))
    newest = max((run / "checkpoints").iterdir(), key=lambda p: int(p.name.removeprefix("step_")))
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    result = resume_run(run, RunContext())
    assert result.ended
    assert "cut short" in result.messages[0]
    assert contents(run) == undisturbed


def test_gold_reaches_no_weight(tiny, undisturbed, tmp_path, monkeypatch):
    class Noise:
        def score(self, prompts, responses):
            return Scores(torch.randn(len(prompts)) * 1e3)

    monkeypatch.setattr(Rule, "build", lambda self, device: Noise())
    noisy = _run(tiny, tmp_path / "noise")
    weights = [name for name in undisturbed if "checkpoints" in name]
    assert weights
    assert all(noisy[name] == undisturbed[name] for name in weights)
    assert noisy["metrics.jsonl"] != undisturbed["metrics.jsonl"]  # the noise was really measured


def test_two_scorer_replicas_equal_one(tiny, undisturbed, tmp_path):
    layout = tmp_path / "two.yaml"
    layout.write_text(
        "roles:\n  policy: {cpus: 0.25}\n  reference: {cpus: 0.25, replicas: 2}\n"
        "  reward: {cpus: 0.25, replicas: 2}\n  gold: {cpus: 0.25, replicas: 3}\n"
    )
    assert _run(tiny, tmp_path / "two", cluster=str(layout)) == undisturbed


def test_accumulated_or_not(tiny, tmp_path):
    """Sums of floats in another order: equal to rounding on the first step, not to the bit."""
    whole = _run(tiny, tmp_path / "whole", train={"steps": 1})
    parts = _run(tiny, tmp_path / "parts", train={"steps": 1, "update": {"micro_batch": 2}})
    assert whole.keys() == parts.keys()
    for name in whole:
        if name.endswith("model.safetensors"):
            a, b = (load_file(tmp_path / run / name) for run in ("whole", "parts"))
            for key in a:
                torch.testing.assert_close(a[key], b[key], rtol=0, atol=2e-5)
