"""The command line: exit codes, one line per mistake, and what it does not import."""

import contextlib
import errno
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.plan import Node
from framework.config import Config
from framework.errors import PlacementError, RunError
from jobs import __main__ as cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def fails(capsys):
    """Run a command that must fail; gives its one line."""

    def run(*arguments: str, code: int) -> str:
        try:
            found = cli.main(arguments)
        except SystemExit as stop:  # argparse
            found = stop.code
        error = capsys.readouterr().err
        assert found == code, error
        assert error.count("\n") == 1, error
        assert error.startswith("goldilocks")
        return error

    return run


@pytest.fixture
def broken(monkeypatch):
    """Make every verb fail in one way."""

    def install(failure: BaseException) -> None:
        def run(_options):
            raise failure

        monkeypatch.setattr(cli, "_run", run)

    return install


def test_check_spells_out_arithmetic_and_placement(capsys):
    arguments = [
        "check",
        "train.prompts_per_step=6",
        "train.samples_per_prompt=4",
        "train.update.minibatches=3",
        "train.update.micro_batch=2",
        "train.update.epochs=2",
        "variants={a: {}, b: {train.steps: 3}}",
        "seeds=[0, 1, 2]",
    ]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "6 prompts x 4 samples = 24 rollouts" in out
    assert "2 epochs x 3 mini-batches of 8 = 6 optimiser steps, 4 forward passes of 2 rows" in out
    assert "2 variants x 3 seeds = 6 runs" in out
    assert "layout laptop" in out
    assert "reference" in out


def test_check_shows_the_resolved_tree(capsys):
    assert cli.main(["check", "--show", "train.kl.kind=budget"]) == 0
    assert "kind: budget" in capsys.readouterr().out


def test_check_of_a_layout_that_does_not_fit_is_2(tmp_path, capsys):
    layout = tmp_path / "big.yaml"
    layout.write_text("roles:\n  policy: {gpus: 3}\nlocal: {num_cpus: 8, num_gpus: 2}\n")
    assert cli.main(["check", f"cluster={layout}"]) == 2
    assert "does not fit" in capsys.readouterr().out


def test_check_of_a_layout_whose_fit_does_not_fit_is_2(tmp_path, capsys):
    layout = tmp_path / "fit.yaml"
    layout.write_text("fit: {replicas: 9}\nlocal: {num_cpus: 8}\n")
    assert cli.main(["check", f"cluster={layout}"]) == 2
    assert "the workers of a fit do not fit: 9 workers ask for 9 CPUs" in capsys.readouterr().out


def test_check_looks_at_a_cluster_where_it_is_told_of_one(capsys, monkeypatch):
    from jobs.verbs import check

    monkeypatch.setattr(check, "connect", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(check, "live_nodes", lambda: [Node("far-away", 3, 4)])
    assert cli.main(["check", "--address", "auto", "cluster=four_gpu"]) == 2
    assert "does not fit: 4 workers ask for 4 CPUs" in capsys.readouterr().out
    monkeypatch.setattr(check, "live_nodes", lambda: [Node("far-away", 8, 4)])
    assert cli.main(["check", "--address", "auto", "cluster=four_gpu"]) == 0
    assert "roles: layout four_gpu on Ray at auto" in (out := capsys.readouterr().out)
    assert out.count("far-away") == 5


def test_check_of_a_cluster_that_does_not_answer_is_2():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    # In a process of its own: this one may be connected to a session of other tests.
    words = [sys.executable, "-m", "jobs", "check", "--address", f"127.0.0.1:{port}"]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 2 and f"no Ray head listens at 127.0.0.1:{port}" in found.stderr


def test_check_reads_every_variant(fails):
    line = fails("check", "variants={a: {train.kl.coff: 3}}", code=2)
    assert "variants.a: unknown key 'train.kl.coff'" in line


def test_a_layout_that_does_not_exist_offers_the_nearest(fails):
    assert "'laptp' is neither a file nor a shipped layout: laptop" in fails("check", "cluster=laptp", code=2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "invalid choice: 'nope'"),
        (["train", "--bogus"], "--bogus"),
        (["report", "a", "b"], "unrecognized arguments: b"),
        (["train", "a.yaml", "b.yaml"], "one configuration at a time: got a.yaml, b.yaml"),
        (["train", "nix.yaml"], "nix.yaml does not exist"),
        (["train", "--seed", "-1"], "seed=-1"),
        (["demo", "mine.yaml"], "use `goldilocks study` for yours"),
        (["train", "--resume", "nix"], "nix holds no run to resume"),
        (["train", "--resume", "nix", "train.steps=3"], "nix holds no run to resume"),
        (["train", "--resume", "nix", "train.steps=many"], "give a whole number of steps"),
        (["train", "--resume", "nix", "train.kl.coef=3"], "give nothing else"),
        (["report", "nix"], "nix holds neither a run nor an experiment"),
        (["fit-gold"], "fit_gold is not set"),
    ],
)
def test_a_mistake_on_the_command_line_is_2(fails, arguments, words):
    assert words in fails(*arguments, code=2)


def test_overrides_may_stand_on_both_sides_of_an_option(monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "_run", lambda options: seen.append((options.words, options.out)) or 0)
    assert cli.main(["train", "a.yaml", "steps=1", "--out", "x", "kl.coef=2", "--seed", "3", "seed=4"]) == 0
    assert seen == [(["a.yaml", "steps=1", "kl.coef=2", "seed=4"], Path("x"))]


@pytest.mark.parametrize(
    ("failure", "code", "line"),
    [
        (RunError("reward: nan at step 3"), 1, "goldilocks check: reward: nan at step 3\n"),
        (PlacementError("no room"), 2, "goldilocks check: no room\n"),
        (KeyError("gone"), 1, "goldilocks check: KeyError: 'gone' (--debug shows where)\n"),
        (ValueError("two\nlines"), 1, "goldilocks check: ValueError: two lines (--debug shows where)\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/run/x"),
            1,
            "goldilocks check: /run/x: No space left on device; free some space and run the same command again\n",
        ),
        (OSError(errno.EIO, "Input/output error"), 1, "goldilocks check: .: Input/output error; --debug shows where\n"),
        (KeyboardInterrupt(), 130, "goldilocks check: interrupted\n"),
    ],
)
def test_each_way_to_fail_has_its_code_and_line(fails, broken, failure, code, line):
    broken(failure)
    assert fails("check", code=code) == line


@pytest.mark.parametrize("failure", [RunError("reward: nan"), KeyError("gone")])
def test_debug_shows_the_traceback(capsys, broken, failure):
    broken(failure)
    assert cli.main(["check", "--debug"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "in run" in error


def test_a_warning_is_one_line(capsys, monkeypatch):
    import warnings

    monkeypatch.setattr(cli, "_run", lambda options: warnings.warn("look\nhere", stacklevel=1) or 0)
    assert cli.main(["check"]) == 0
    assert capsys.readouterr().err == "goldilocks: warning: look here\n"


def test_the_seed_option_is_the_seed_of_a_stage_and_the_seeds_of_a_study():
    from jobs.verbs import configured

    assert configured("train", [], 7)[0].seed == 7
    assert configured("study", [], 7)[0].seeds == (7,)
    assert configured("demo", [], 7)[0].seeds == (7,)
    assert configured("train", ["seed=3"], None)[0] == Config(seed=3)


def test_checking_a_configuration_imports_nothing_slow():
    code = (
        "import sys, jobs.__main__, jobs.verbs.check, framework.config, cluster.plan\n"
        "slow = ['transformers.models.auto', 'transformers.modeling_utils', 'sklearn', 'scipy.stats', 'ray',"
        " 'pandas', 'datasets', 'deepspeed', 'matplotlib', 'tensorboardX', 'torch._dynamo']\n"
        "print([name for name in slow if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_signals_are_left_as_they_were(capsys):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert cli.main(["fit-gold"]) == 2
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
