"""Progress: bars on a terminal, and lines as it happens in a file."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from jobs.verbs import show

ROOT = Path(__file__).resolve().parents[2]


class File(io.StringIO):
    """Remembers what had reached it at each flush."""

    def __init__(self):
        super().__init__()
        self.flushed = ""

    def flush(self):
        self.flushed = self.getvalue()


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves, and the file that is written to."""
    now, file = [0.0], File()
    console = Console(file=file, width=160, highlight=False, markup=False, soft_wrap=True, get_time=lambda: now[0])
    monkeypatch.setattr(show, "console", console)
    return now, file


def steps(run, first, last, clock, seconds=1.0, gold_every=1):
    for step in range(first, last):
        clock[0] += seconds
        run(step, {"proxy": 1.0 + step, "kl_nats": 2.0, "gold": 0.5 if step % gold_every == 0 else None})


def test_a_run_in_a_file_is_a_line_every_few_seconds_at_once(clock):
    now, file = clock
    with show.bars(None) as shown:
        run = shown.run("train", 40)
        assert file.flushed == "train: 0/40  0:00:00 gone\n"
        steps(run, 0, 12, now)
        lines = file.flushed.splitlines()
        assert [line.split()[1] for line in lines] == ["0/40", "5/40", "10/40"]
        assert lines[-1] == "train: 10/40  proxy 10.00  gold 0.50  kl_nats 2.00  0:00:10 gone  0:00:30 left"
        steps(run, 12, 40, now)
    assert file.flushed.splitlines()[-1] == "train: 40/40  proxy 40.00  gold 0.50  kl_nats 2.00  0:00:40 gone"
    assert len(file.flushed.splitlines()) == 9


def test_gold_that_was_not_measured_in_a_step_says_when_it_was(clock):
    now, file = clock
    with show.bars(None) as shown:
        steps(shown.run("train", 40), 0, 5, now, gold_every=3)
    assert "gold 0.50 (step 3)" in file.flushed.splitlines()[-1]


def test_runs_side_by_side_write_no_more_lines_than_one(clock):
    now, file = clock
    with show.bars(None) as shown:
        runs = [shown.run(f"run {number}", 1000) for number in range(10)]
        before = len(file.flushed.splitlines())
        for step in range(100):
            now[0] += 1
            for run in runs:
                run(step, {"proxy": 1.0})
    lines = file.flushed.splitlines()[before:]
    assert {line.split(":")[0] for line in lines} == {f"run {number}" for number in range(10)}
    assert len(lines) <= 2 * 100 / show.LINE_SECONDS


def test_a_stage_that_is_told_of_its_end_again_and_again_has_one_last_line(clock):
    now, file = clock
    with show.bars(None) as shown:
        move = shown.stage("fit-policy")
        for step in (1, 2, 20, 20, 20):
            now[0] += 1
            move(step, 20, {"loss": 0.5})
    assert [line.split()[1] for line in file.flushed.splitlines()] == ["1/20", "20/20"]


def test_a_terminal_has_bars_and_no_lines(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(show, "console", Console(file=file, width=120, force_terminal=True))
    with show.bars(None) as shown:
        run = shown.run("train", 3)
        for step in range(3):
            run(step, {"proxy": 1.0})
    assert "3/3" in file.getvalue()
    assert "gone" not in file.getvalue()


def test_a_command_whose_output_goes_to_a_file_shows_life_while_it_runs(tmp_path):
    """The first line of a stage is there while later ones are still under way."""
    command = [
        sys.executable, "-m", "jobs", "train", "backend=inline", "sft.steps=2000000", "world.corpus_size=200",
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    ) as process:
        first = process.stdout.readline()
        alive = process.poll() is None
        process.kill()
    assert first.startswith("fit-policy: 1/2000000  loss "), first
    assert alive
