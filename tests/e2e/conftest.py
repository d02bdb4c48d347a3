"""The command line on one tiny experiment: its stages are made once and copied where a test needs them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from jobs import __main__ as cli

SETTINGS = {
    "backend": "inline",
    "world": {"corpus_size": 200},
    "policy": {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 32},
    "sft": {"steps": 30, "batch": 16},
    "label": {"pairs": 48, "batch": 32},
    "fit_reward": {"ensemble": {"kind": "shared_encoder", "heads": 2}, "epochs": 1, "batch": 16},
    "train": {
        "steps": 6,
        "prompts_per_step": 4,
        "samples_per_prompt": 2,
        "advantage": {"kind": "gae"},
        "exact_kl_every": 3,
        "exact_kl_rows": 2,
        "save_every": 2,
    },
    "max_new_tokens": 10,
    "scorer_rows": 4,
}


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))
    return path


@pytest.fixture(scope="session")
def finished(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of an undisturbed `goldilocks train`."""
    out = tmp_path_factory.mktemp("finished") / "out"
    assert cli.main(["train", str(config), "--out", str(out)]) == 0
    return out


@pytest.fixture
def stages(finished: Path, tmp_path: Path) -> Path:
    """A workspace of its own where every stage but the run is made."""
    out = tmp_path / "out"
    shutil.copytree(finished, out, ignore=shutil.ignore_patterns("train"))
    return out


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail with a code and one line, and give that line."""

    def run(*arguments: object, code: int) -> str:
        capsys.readouterr()
        found = cli.main([str(argument) for argument in arguments])
        error = capsys.readouterr().err
        assert found == code, error
        assert error.count("\n") == 1, error
        assert error.startswith(f"goldilocks {arguments[0]}: ")
        return error

    return run
