"""Killed at random moments, over and over, and gone on with: no number changes and nothing is lost."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs import __main__ as cli
from tests.tiny import contents

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    # verb: settings, what of the stages is there already, kills
    "fit-policy": (["sft.steps=400"], (), 12),
    "label": (["label.pairs=1500"], ("policy",), 12),
    "fit-reward": (["fit_reward.epochs=20", "fit_reward.save_every=5"], ("policy", "pairs"), 12),
    "train": (["train.steps=60", "train.save_every=5"], ("policy", "pairs", "reward"), 24),
}
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("verb", CASES)
def test_kills_change_no_number_and_lose_nothing(config, finished, tmp_path, verb):
    """SIGKILL to the whole group of a command's processes, at moments drawn from the time that a calm one takes."""
    settings, there, kills = CASES[verb]
    calm, out, draw = tmp_path / "calm", tmp_path / "out", random.Random(verb)
    for folder in (calm, out):
        folder.mkdir()
        for stage in there:
            (made,) = finished.glob(f"{stage}-*")
            shutil.copytree(made, folder / made.name)
    words = [verb, str(config), *settings]
    started = time.monotonic()
    assert _process([*words, "--out", str(calm)]).wait() == 0
    took, done, most = time.monotonic() - started, 0, 0
    while done < kills:
        process = _process([*words, "--out", str(out)])
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=draw.uniform(0.3, 1.0) * took)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
            steps = _rows(out)
            # What a checkpoint holds is never lost: rows grow, but for those since the last save.
            assert steps >= most - 5
            most = max(most, steps)
        else:
            assert process.returncode == 0
            took *= 0.9  # the calm one may have been slow, on a machine that was busy
            _forget(out, verb)
            most = 0
    assert cli.main([*words, "--out", str(out)]) == 0
    if verb == "train":
        assert contents(out / "train") == contents(calm / "train")
        assert (out / "train" / "summary.json").read_bytes() == (calm / "train" / "summary.json").read_bytes()
    assert _stages(out) == _stages(calm)
    assert not list(out.glob(".*"))


def _process(words: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "jobs", *words]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def _rows(out: Path) -> int:
    path = out / "train" / "metrics.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


def _forget(out: Path, verb: str) -> None:
    """Make what was made once more, so that there is something to kill."""
    made = {"fit-policy": "policy-*", "label": "pairs-*", "fit-reward": "reward-*", "train": "train"}[verb]
    for path in out.glob(made):
        shutil.rmtree(path)


def _stages(out: Path) -> dict[str, bytes]:
    files = (p for p in out.glob("*-*/**/*") if p.is_file() and p.name != "manifest.json")
    return {str(p.relative_to(out)): p.read_bytes() for p in files}
