"""Kills on Ray: of the driver, whose Ray is left without it, and of the roles of a run that goes on."""

import os
import random
import signal
from pathlib import Path

import pytest
import yaml

from tests.kills import Command, assert_kills_change_nothing, assert_same, commands, reset, without_the_clock
from tests.tiny import TINY, make_tiny, merged

TRAIN = {"train": {"steps": 30, "save_every": 5, "keep_checkpoints": 2, "kl": {"kind": "budget"}}}
CASES = {
    # verb: settings, what of the stages is there already, kills of the driver
    "study": ({"variants": {"mean": {"aggregation.kind": "mean"}, "worst_case": {}}}, (), 4),
    "sweep": ({"sweep": {"grid": {"train.kl.budget": [0.5, 2]}}}, (), 4),
    "train": ({"backend": "ray"}, ("policy", "pairs", "reward"), 4),
    "fit-reward": ({"backend": "ray", "fit_reward": {"epochs": 20, "save_every": 5}}, ("policy", "pairs"), 2),
}
SCORERS = ("reference", "reward", "gold")
"""Roles that are built again, twice."""
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """A folder with all that a run starts from."""
    folder = tmp_path_factory.mktemp("stages")
    make_tiny(folder)
    return folder


def write(folder: Path, settings: dict) -> str:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(merged(merged(TINY, TRAIN), settings)))
    return str(path)


@pytest.mark.parametrize("verb", CASES)
def test_a_driver_that_is_killed_changes_no_number_and_loses_nothing(stages, tmp_path, verb):
    settings, kinds, kills = CASES[verb]
    there = [made for kind in kinds for made in stages.glob(f"{kind}-*")]
    assert_kills_change_nothing([verb, write(tmp_path, settings)], tmp_path / "out", there, kills, unsaved=5)


def test_roles_that_are_killed_change_no_number_and_lose_nothing(stages, tmp_path):
    """Scorers are built again, and the run goes on; the policy is not, and the run stops in one line and is resumed."""
    draw, out = random.Random("roles"), tmp_path / "out"
    run, there = out / "train", [path for path in stages.iterdir() if path.is_dir()]
    words = ["train", write(tmp_path, {"backend": "ray", "train": {"steps": 60}}), "--out", str(out)]
    victims = draw.sample(2 * SCORERS, 6)
    with commands() as begin:
        reset(out, there)
        begin(*words).ended(0)
        calm = without_the_clock(out)
        reset(out, there)
        for first, second in zip(victims[::2], victims[1::2], strict=True):
            command = begin(*(["train", "--resume", run] if count(run) else words))
            for role, least in ((first, 0), (second, 0), ("policy", 1)):
                kill_role(command, role, run, count(run) + draw.randint(least, 2))
            line = command.ended(1).splitlines()[-1]
            assert line.startswith("goldilocks train: policy died in "), line
            assert f"goldilocks train --resume {run}" in line
        begin("train", "--resume", run).ended(0)
        assert_same(without_the_clock(out), calm)


def kill_role(command: Command, role: str, run: Path, rows: int) -> None:
    """SIGKILL to a role's worker, once the run has so many rows; Ray names a process after what it does."""
    found: list[int] = []
    while not found or count(run) < rows:
        assert not command.is_over(0.01), command.ended(0)
        found = [pid for pid, title in command.processes().items() if title.lower().startswith(f"ray::{role}")]
    os.kill(found[0], signal.SIGKILL)


def count(run: Path) -> int:
    """The rows that a run has logged."""
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0
