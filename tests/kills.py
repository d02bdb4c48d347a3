"""Commands that are killed over and over, each in a session of its own, so that all that it has begun can be found."""

import contextlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

RESUMED = {"train": "train/manifest.json", "study": "experiment.yaml", "sweep": "experiment.yaml"}
"""What must be there for `--resume` with the folder around it, by verb; other verbs go on with the same command only."""
FORKS = multiprocessing.get_context("forkserver")
# Imports are most of a tiny command's time, and a kill in them shows nothing: they are made once.
FORKS.set_forkserver_preload(
    ["jobs.verbs.single", "jobs.verbs.experiment", "framework.report", "transformers.models.llama.modeling_llama"]
)


class Command:
    """`goldilocks WORDS` in a process and a session of its own, of whose process it has the id."""

    def __init__(self, words: Sequence[object], folder: Path) -> None:
        self._said = folder / f"said-{time.monotonic_ns()}"
        self._process = FORKS.Process(target=_run, args=([str(word) for word in words], self._said))
        self._process.start()
        self.pid = self._process.pid
        while not self.is_over(0) and os.getsid(self.pid) != self.pid:
            time.sleep(0.001)

    def is_over(self, seconds: float | None) -> bool:
        """Whether it has ended within so many seconds."""
        self._process.join(seconds)
        return not self._process.is_alive()

    def ended(self, code: int) -> str:
        """What it has said, once it has ended as it must."""
        self.is_over(None)
        assert self._process.exitcode == code, self._said.read_text()
        return self._said.read_text()

    def processes(self) -> dict[int, str]:
        """The title of each process of its session that is alive, by pid."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getsid(pid := int(place.name)) == self.pid and (title := (place / "cmdline").read_text()):
                    found[pid] = title
        return found

    def kill(self, with_others: bool) -> None:
        """SIGKILL to it, and to all that it has begun."""
        if self._process.is_alive():
            self._process.kill()
        while with_others and (left := self.processes()):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        self._process.join()


def _run(words: list[str], said: Path) -> None:
    os.setsid()
    os.environ["TMPDIR"], tempfile.tempdir = str(said.parent), None
    shown = os.open(said, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(shown, stream)
    from jobs import __main__ as cli

    sys.exit(cli.main(words))


@contextlib.contextmanager
def commands() -> Iterator[Callable[..., Command]]:
    """What begins a command. All that is left of them, Ray's processes too, is ended after the block, by pid."""
    folder = Path(
        tempfile.mkdtemp(prefix="gl-")
    )  # for what Ray and Tune write, and a kill leaves; pytest's is too long
    begun: list[Command] = []

    def begin(*words: object) -> Command:
        begun[:] = [command for command in begun if command.processes()]  # an id may come again
        begun.append(Command(words, folder))
        return begun[-1]

    try:
        yield begin
    finally:
        for command in begun:
            command.kill(with_others=True)
        shutil.rmtree(folder, ignore_errors=True)


def reset(out: Path, there: Sequence[Path]) -> None:
    """A folder that holds nothing but the stages that are there from the start."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for stage in there:
        shutil.copytree(stage, out / stage.name)


def assert_kills_change_nothing(
    words: Sequence[str], out: Path, there: Sequence[Path], kills: int, unsaved: int
) -> None:
    """SIGKILL to a command, at moments drawn from the time that a calm one takes, and then the same command again, or
    `--resume`: at the end its folder is that of the calm one, byte for byte, but for what the clock writes.

    Args:
        unsaved: the most rows of a run that a kill may cost: those since the last checkpoint.
    """
    draw, most, done, is_fresh = random.Random(words[0]), dict[Path, int](), 0, True
    words = [*words, "--out", str(out)]
    mark = out / RESUMED.get(words[0], "no such file")
    with commands() as begin:
        begin("check", words[1]).ended(0)  # and imports are made
        reset(out, there)
        started = time.monotonic()
        begin(*words).ended(0)
        took, calm = time.monotonic() - started, without_the_clock(out)
        reset(out, there)
        while done < kills:
            resumes = mark.is_file() and draw.random() < 0.5
            command = begin(*([words[0], "--resume", mark.parent] if resumes else words))
            if not command.is_over(draw.uniform(0.2, 1.0) * took):
                # The driver alone, and what it has begun, of Ray's, comes to its end beside the next command; or all.
                command.kill(with_others=done % 2 == 1)
                rows = {path: path.read_text().count("\n") for path in out.rglob("metrics.jsonl")}
                assert all(rows.get(path, 0) >= seen - unsaved for path, seen in most.items())
                most |= {path: max(seen, most.get(path, 0)) for path, seen in rows.items()}
                done, is_fresh = done + 1, False
                continue
            command.ended(0)
            assert_same(without_the_clock(out), calm)
            took *= 0.9 if is_fresh else 1  # the calm one may have been slow, on a machine that was busy
            reset(out, there)
            most, is_fresh = {}, True
        begin(*words).ended(0)
        assert_same(without_the_clock(out), calm)


def assert_same(ours: dict[str, bytes], theirs: dict[str, bytes]) -> None:
    """The same files with the same contents."""
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []


def without_the_clock(folder: Path) -> dict[str, bytes]:
    """What the folder holds, by relative path, but for what says how long something took."""
    files = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    clock = re.compile(r"(^|/)(timings\.jsonl|\.lock|time\.png|tensorboard/.*)$")
    held = {name: path.read_bytes() for name, path in files.items() if not clock.search(name)}
    pages = [name for name in held if name.endswith("report.html")]
    return held | {name: _without_times(held[name].decode()).encode() for name in pages}


def _without_times(page: str) -> str:
    """A report without its chart of where the time went."""
    page, charts = re.subn(r'<figure id="figure-time">.*?</figure>', "", page, flags=re.DOTALL)
    start, end = '<script type="application/json" id="specs">', "</script>"
    before, _, rest = page.partition(start)
    specs, _, after = rest.partition(end)
    kept = {name: spec for name, spec in json.loads(specs).items() if not name.startswith("time-")}
    assert charts == 1 and len(kept) > 3
    return before + json.dumps(kept) + after
