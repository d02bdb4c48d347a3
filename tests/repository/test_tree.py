"""The repository against its own rules: configurations load, knobs are listed, files stay small."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
from pydantic import BaseModel

from cluster.plan import Node, bundles, explain
from cluster.spec import load_spec, shipped_specs
from framework.config import Config, load_config
from jobs import __main__ as cli
from jobs.experiment.plan import num_runs, plan_of
from tests.repository import config_keys

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("framework", "actors", "jobs", "cluster")
LONGEST_FILE, LONGEST_FUNCTION, LONGEST_DRIVER, MOST_LINES = 400, 60, 40, 18_700


def _tracked() -> list[Path]:
    """Files under version control, and those that are about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sorted({path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()})


def _named(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda p: str(p.relative_to(ROOT)))


SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@_named(SOURCES)
def test_text_is_utf8_whatever_the_locale(path):
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        name = getattr(getattr(call, "func", None), "attr", getattr(getattr(call, "func", None), "id", ""))
        opens = name in ("read_text", "open") or (name == "write_text" and isinstance(call.func, ast.Attribute))
        is_binary = opens and any("b" in str(getattr(word, "value", "")) for word in call.args if name == "open")
        said = opens and any(word.arg == "encoding" for word in call.keywords)
        assert said or is_binary or not opens, f"line {call.lineno}: say encoding='utf-8'"


@_named(sorted((ROOT / "jobs" / "configs").glob("*.yaml")))
def test_every_configuration_checks(path, capsys):
    assert cli.main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "valid" in out
    cfg = load_config(path)
    assert f"= {num_runs(cfg)} runs" in out or num_runs(cfg) == 1
    assert len(plan_of(cfg)) == num_runs(cfg)


@pytest.mark.parametrize("name", shipped_specs())
def test_every_layout_fits_the_machine_it_is_named_after(name):
    spec = load_spec(name)
    machine = Node("machine", cpus=4, gpus={"laptop": 0, "one_gpu": 1, "four_gpu": 4}[name])
    assert not explain(bundles(spec), [machine], spec.strategy).problem


def test_the_list_of_configuration_keys_is_current():
    before, now = config_keys.LIST.read_text(), config_keys.render()
    changed = config_keys.retuned(before, now)
    assert not changed, config_keys.RAISE.format(", ".join(changed))
    assert before == now, "a key is new or gone: run python -m tests.repository.config_keys and read the difference"


def test_a_default_with_another_value_wants_another_revision_and_a_new_key_does_not():
    before = "# revision 1\nseed = 0\nkl: fixed\nlr = 0.1 (by itself 0.2)\ngone = 3\n"
    assert config_keys.retuned(before, "# revision 1\nseed = 0\nkl: fixed\nnew = 7\nlr = 0.1 (by itself 0.2)\n") == []
    now = "# revision {}\nseed = 1\nkl: budget\nlr = 0.1 (by itself 0.3)\n"
    assert config_keys.retuned(before, now.format(1)) == ["seed", "kl", "lr"]
    assert config_keys.retuned(before, now.format(2)) == []


def test_the_driver_is_short_and_free_of_tensors_and_ray():
    tree = ast.parse((ROOT / "jobs" / "driver.py").read_text())
    (driver,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    assert driver.name == "train_policy"
    assert driver.end_lineno - driver.lineno + 1 <= LONGEST_DRIVER
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not {name.partition(".")[0] for name in imported} & {"ray", "torch", "numpy"}
    # One sum of two settings is counting, not arithmetic on a tensor.
    operations = [node for node in ast.walk(driver) if isinstance(node, ast.BinOp)]
    assert [ast.unparse(node) for node in operations] == ["train.steps + 1"]
    statements = [node for line in driver.body for node in ast.walk(line)]
    assert not [node for node in statements if isinstance(node, ast.AugAssign | ast.Subscript)]


@_named(SOURCES)
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


@_named(SOURCES)
def test_functions_stay_readable(path):
    functions = [
        node for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]  # fmt: skip
    long = [f"{node.name}: {node.end_lineno - node.lineno + 1}" for node in functions]
    assert [name for name in long if int(name.rpartition(" ")[2]) > LONGEST_FUNCTION] == []


def test_the_product_stays_within_its_lines():
    """A change that needs more says so here, and why in its note."""
    assert sum(len(path.read_text().splitlines()) for path in SOURCES) <= MOST_LINES


@_named([path for path in SOURCES if path.is_relative_to(ROOT / "framework")])
def test_what_framework_offers_says_what_it_is(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or path.name == "__init__.py", "the module"
    silent = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not silent


def _reachable(model: type[BaseModel]) -> set[type[BaseModel]]:
    """The component classes of a configuration tree."""
    inner = {section for field in model.model_fields.values() for section in config_keys.sections(field.annotation)}
    return {model}.union(*(_reachable(section) for section in inner))


@pytest.mark.parametrize("model", sorted(_reachable(Config), key=lambda m: m.__name__), ids=lambda m: m.__name__)
def test_every_number_says_what_it_counts(model):
    silent = [
        name
        for name, field in model.model_fields.items()
        if not field.description and isinstance(field.default, int | float) and not isinstance(field.default, bool)
    ]
    assert not silent


def test_no_tracked_file_names_a_machine_path_or_a_registry():
    # Written in pieces, so that this file does not find itself.
    forbidden = re.compile(
        "|".join(
            ["/wo" + "rk/", "/ro" + "ot/", "/ho" + r"me/\w+/", "/tm" + r"p/\w", "pypi" + r"\.org", "--index" + "-url"]
        )
    )
    found = []
    for path in _tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if forbidden.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not found


def test_nothing_else_stands_at_the_top_level():
    allowed = {
        "pyproject.toml", "framework", "actors", "jobs", "cluster", "tests", "docs", "README.md", "Makefile",
        "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "SECURITY.md", "requirements",
    }  # fmt: skip
    top = {path.relative_to(ROOT).parts[0] for path in _tracked()}
    assert {name for name in top if not name.startswith(".")} <= allowed


def test_tests_leave_no_file_behind_that_git_would_see():
    assert not [p for p in _tracked() if p.suffix in (".parquet", ".safetensors", ".pt", ".pkl", ".log")]
