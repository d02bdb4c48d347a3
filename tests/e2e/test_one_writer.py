"""A folder takes one command at a time, whatever the verb, and lets go of it however that ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from framework.artifacts import writing
from framework.errors import UserError
from jobs import __main__ as cli
from jobs.workspace import LOCK_FILE, working_in

ROOT = Path(__file__).resolve().parents[2]
VERBS = ("train", "fit-policy", "label", "fit-reward", "best-of-n", "score-pairs", "fit-gold", "study", "sweep", "demo")


@pytest.mark.parametrize("verb", VERBS)
def test_a_second_command_is_refused_and_writes_nothing(config, finished, tmp_path, fails, verb):
    out = tmp_path / "out"
    words = [] if verb in ("demo", "fit-gold") else [config]
    if verb == "fit-gold":
        words = _labelled(tmp_path)
    if verb == "score-pairs":
        words += [f"score_pairs.source.path={next(finished.glob('pairs-*')) / 'pairs.parquet'}"]
    with working_in(out):
        line = fails(verb, *words, "--out", out, code=2)
        assert f"another command is running in {out} (pid {os.getpid()}): wait for it, or end it" in line
        assert [path.name for path in out.iterdir()] == [LOCK_FILE]
    assert list(out.iterdir()) == []


def _labelled(folder: Path) -> list[str]:
    rows = "".join(f"{word} text,{label}\n" for label, word in enumerate(("bad", "good")) for _ in range(40))
    (folder / "labelled.csv").write_text("text,label\n" + rows)
    return [f"fit_gold.source.path={folder / 'labelled.csv'}"]


def test_a_run_is_gone_on_with_by_one_command(config, stages, fails):
    run = stages / "train"
    assert cli.main(["train", str(config), "train.steps=2", "--out", str(stages)]) == 0
    (run / "summary.json").unlink()
    before = (run / "metrics.jsonl").read_bytes()
    with working_in(run):
        for words in (["--resume", run], [config, "train.steps=2", "--out", stages]):
            assert f"another command is running in {run} (pid" in fails("train", *words, code=2)
    assert (run / "metrics.jsonl").read_bytes() == before
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert not list(stages.rglob(LOCK_FILE))


@pytest.mark.slow
def test_two_started_together_are_one_run_and_one_refusal(config, stages):
    command = [sys.executable, "-m", "jobs", "train", str(config), "train.steps=40", "--out", str(stages)]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], errors
    assert sum("another command is running in" in error for error in errors) == 1
    steps = (stages / "train" / "metrics.jsonl").read_text().count('"step"')
    assert steps == 40


def test_a_folder_that_is_being_written_is_not_written_twice(tmp_path):
    with writing(tmp_path / "policy-1") as scratch:
        (scratch / "weights").write_text("mine")
        with pytest.raises(UserError, match="another command is writing"), writing(tmp_path / "policy-1"):
            pass
        assert (scratch / "weights").read_text() == "mine"
    assert (tmp_path / "policy-1" / "weights").read_text() == "mine"


def test_a_killed_command_holds_nothing(tmp_path):
    code = "import sys, pathlib, jobs.workspace as w\nwith w.working_in(pathlib.Path(sys.argv[1])): input()"
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, cwd=ROOT)
    while not (tmp_path / LOCK_FILE).exists() or not (tmp_path / LOCK_FILE).read_text():
        assert process.poll() is None
        time.sleep(0.01)
    started = time.monotonic()
    with pytest.raises(UserError, match=f"pid {process.pid}"), working_in(tmp_path, patience_seconds=0.5):
        pass
    assert time.monotonic() - started > 0.4
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with working_in(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
