"""A path means one place, however it is written, and text is UTF-8, whatever the locale."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from framework.data.paths import expand
from framework.errors import UserError
from jobs import __main__ as cli
from jobs.layouts import load_layout

ROOT = Path(__file__).resolve().parents[2]
NAME = "blüten 花=1"
FORMS: dict[str, Callable[[str], str]] = {
    "home": lambda name: f"~/{name}",
    "variable": lambda name: f"$PLACE/{name}",
    "braces": lambda name: f"${{PLACE}}/{name}",
    "relative": lambda name: f"./{name}",
    "link": lambda name: f"link/{name}",
    "absolute": lambda name: str(Path.cwd() / name),
}
PATH_OPTIONS = [(verb, "--out") for verb in cli.VERBS if verb != "report"]
PATH_OPTIONS += [(verb, "--resume") for verb in ("train", "study", "sweep")] + [("report", "folder")]


@pytest.fixture(params=FORMS)
def written(request, tmp_path, monkeypatch) -> Callable[[str], str]:
    """How a name in the working folder, which is home too, is written."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    return FORMS[request.param]


@pytest.mark.parametrize(("verb", "option"), PATH_OPTIONS)
def test_every_path_on_the_command_line_is_the_same_place(written, tmp_path, monkeypatch, verb, option):
    seen = []
    monkeypatch.setattr(cli, "_run", lambda options: seen.append(vars(options)[option.removeprefix("--")]) or 0)
    cli.main([verb, f"{option}={written(NAME)}" if option.startswith("--") else written(NAME)])
    assert seen[0].resolve() == tmp_path / NAME


def test_a_configuration_and_a_layout_are_found(written, tmp_path, capsys):
    (tmp_path / f"{NAME}.yaml").write_text("instruction: 'Grüße: {prompt}'\ntrain: {steps: 7}", encoding="utf-8")
    (tmp_path / "layout.yaml").write_text("roles: {policy: {threads: 3}}\nlocal: {num_cpus: 4}", encoding="utf-8")
    assert cli.main(["check", written(f"{NAME}.yaml"), "--show", f"cluster={written('layout.yaml')}"]) == 0
    out = capsys.readouterr().out
    assert "a run: 7 steps" in out
    assert "Grüße" in out
    assert load_layout(written("layout.yaml")).roles["policy"].threads == 3


@pytest.mark.parametrize("option", ["--out", "--resume"])
@pytest.mark.parametrize(
    ("path", "words"),
    [("$NIX_A/x", "NIX_A is not set"), ("${NIX_A}/x", "NIX_A is not set"), ("~nobody-here/x", "no such user"),
     ("", "is no path"), ("a\0b", "is no path")],
)  # fmt: skip
def test_a_path_that_leads_nowhere_is_refused(capsys, option, path, words):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", f"{option}={path}"])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert words in error
    assert error.count("\n") == 1
    with pytest.raises(UserError, match=words):
        expand(path)


def test_the_shared_folder_has_a_place_however_it_is_written(monkeypatch):
    monkeypatch.delenv("GOLDILOCKS_SHARED", raising=False)
    assert expand("$GOLDILOCKS_SHARED/x") == expand("${GOLDILOCKS_SHARED}/x") == "../shared/x"


def test_a_name_that_holds_a_dollar_sign_is_a_name(tmp_path):
    (tmp_path / "a$NIX_A").mkdir()
    assert expand(str(tmp_path / "a$NIX_A")) == str(tmp_path / "a$NIX_A")


@pytest.mark.parametrize("locale", ["C", "de_DE.ISO-8859-1"])
def test_text_and_names_are_utf8_whatever_the_locale(tmp_path, locale):
    (tmp_path / f"{NAME}.yaml").write_text("instruction: 'Grüße: {prompt}'", encoding="utf-8")
    environment = os.environ | {
        "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)
    }  # fmt: skip
    command = [sys.executable, "-m", "jobs", "check", f"~/{NAME}.yaml", "--show"]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert found.returncode == 0, found.stderr
    assert "Grüße" in found.stdout
    assert f"{NAME}.yaml: valid" in found.stdout
