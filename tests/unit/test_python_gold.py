"""A function of the user's own as gold: what it may give, what is refused, and when that is found out."""

import os
import sys
import time

import pytest
import torch

from actors.group import InlineGroup
from actors.spawn import Host, pack, unpack
from framework.config import parse_config
from framework.errors import RunError, UserError
from framework.gold import Python
from jobs import __main__ as cli

NAMES = iter(range(1000))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module into the working folder, under a name that no other test uses, and gives the name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text, name=None):
        name = name or f"own_gold_{next(NAMES)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def gold(name, function="score"):
    return Python(function=f"{name}:{function}")


def scores(name, prompts=("a", "b"), responses=("x", "yyy")):
    return gold(name).build("cpu").score(prompts, responses).values


@pytest.mark.parametrize(
    "given",
    [
        "[len(p) + 10.5 * len(r) for p, r in zip(prompts, responses)]",
        "tuple(len(p) + 10.5 * len(r) for p, r in zip(prompts, responses))",
        "np.array([11.5, 32.5])",
        "torch.tensor([11.5, 32.5], dtype=torch.float64, requires_grad=True)",
        "[np.float32(11.5), torch.tensor(32.5)]",
    ],
)
def test_whatever_holds_a_number_for_each_text_is_taken(module, given):
    name = module(f"import numpy as np, torch\ndef score(prompts, responses):\n    return {given}\n")
    found = scores(name)
    assert found.tolist() == [11.5, 32.5]
    assert found.dtype == torch.float32
    assert not found.requires_grad


def test_it_is_given_all_texts_at_once_as_lists(module):
    name = module(
        "def score(prompts, responses):\n"
        "    assert type(prompts) is type(responses) is list\n"
        "    return [len(responses)] * len(responses)\n"
    )
    assert scores(name, ["p"] * 7, ["r"] * 7).tolist() == [7.0] * 7
    assert scores(name, [], []).tolist() == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("[1.0]", "gave 1 scores for 2 texts"),
        ("[1.0, 2.0, 3.0]", "gave 3 scores for 2 texts"),
        ("np.float64(1)", "gave a float64: it must give a list"),
        ("[1.0, float('nan')]", "gave nan for row 1, 'yyy'"),
        ("[-float('inf'), 1]", "gave -inf for row 0, 'x'"),
        ("[1e300, 1]", r"gave 1e\+300 for row 0"),
        ("[1, 10**400]", "gave 10+ for row 1"),
        ("[None, 1.0]", "gave None for row 0"),
        ("['7', 1.0]", "gave '7' for row 0"),
        ("[[1.0], [2.0]]", r"gave \[1.0\] for row 0"),
        ("np.ones((2, 1))", r"gave \[1.0\] for row 0"),
        ("{0: 1.0, 1: 2.0}", "gave a dict: it must give a list"),
        ("{1.0, 2.0}", "gave a set: it must give a list"),
        ("(1.0 for _ in responses)", "gave a generator"),
        ("None", "gave a NoneType"),
        ("1 / 0", "raised ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_no_finite_number_for_each_text_stops_the_run_in_one_line(module, given, says):
    name = module(f"import numpy as np\ndef score(prompts, responses):\n    return {given}\n")
    with pytest.raises(RunError, match=f"^function={name}:score {says}") as caught:
        scores(name)
    assert "\n" not in str(caught.value)


def test_bools_of_a_verifier_are_ones_and_zeros(module):
    assert scores(module("def score(p, r):\n    return ['y' in x for x in r]\n")).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("text", "function", "says"),
    [
        ("def score(prompts, responses): pass", "scores", "has no scores"),
        ("score = 3", "score", r"cannot be called as \(prompts, responses\): 3 is not a callable object"),
        ("def score(texts): pass", "score", r"called as \(prompts, responses\): too many positional"),
        ("def score(p, r, *, scale): pass", "score", "missing a required argument: 'scale'"),
        ("def score(:", "score", "cannot be imported: SyntaxError"),
        ("import no_such_thing_at_all", "score", "cannot be imported: ModuleNotFoundError: No module named 'no_such"),
        ("raise SystemExit(0)", "score", "cannot be imported: SystemExit: 0"),
        ("raise ValueError('a\\nb')", "score", "cannot be imported: ValueError: a b"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_before_anything_is_fitted(module, capsys, text, function, says):
    name = module(text)
    with pytest.raises(UserError, match=f"^function={name}:{function}.*{says}"):
        gold(name, function).check()
    for verb in ("check", "train", "study", "fit-policy"):
        assert cli.main([verb, "gold.kind=python", f"gold.function={name}:{function}"]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith(f"goldilocks {verb}: function={name}:{function}")
    assert not os.path.exists("runs")


def test_a_module_that_is_not_there_and_a_name_that_is_no_function(module, capsys):
    with pytest.raises(UserError, match=r"there is no module absent_module in .* write module:name, as rules:score"):
        gold("absent_module").check()
    with pytest.raises(UserError, match=r"there is no module rules\.py in"):
        gold("rules.py").check()
    assert cli.main(["check", "gold.kind=python", "gold.function=rules"]) == 2
    assert "gold.function='rules'" in capsys.readouterr().err


def test_a_variant_is_checked_too(module, capsys):
    name = module("def score(p, r):\n    return [0.0] * len(r)\n")
    variants = f"variants={{a: {{gold.kind: python, gold.function: {name}:score}}, b: {{gold.kind: python, gold.function: x:y}}}}"
    for verb in ("check", "study"):
        assert cli.main([verb, variants]) == 2
        assert "function=x:y: there is no module x" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["statistics", "time"])
def test_an_installed_module_is_never_mistaken_for_ones_own(module, name):
    module("def score(p, r):\n    return [0.0] * len(r)\n", name=name)
    with pytest.raises(UserError, match=rf"function={name}:score: {name} means .* rename yours, or begin anew"):
        gold(name).check()


def test_a_function_of_a_package_and_a_method_are_found(module, tmp_path):
    name = f"own_package_{next(NAMES)}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "rules.py").write_text(
        "class Rule:\n    @staticmethod\n    def score(p, r):\n        return [len(x) for x in r]\n"
    )
    found = Python(function=f"{name}.rules:Rule.score").build("cpu").score(["p"], ["four"])
    assert found.values.tolist() == [4.0]


def test_an_edited_function_is_another_run_and_is_the_one_that_is_called(module, tmp_path):
    text = "def score(p, r):\n    return [{}] * len(r)\n"
    name = module(text.format(1.0))
    cfg = parse_config({"gold": {"kind": "python", "function": f"{name}:score"}})
    before = cfg.run_fingerprint(), cfg.fingerprint()
    assert scores(name).tolist() == [1.0, 1.0]
    path = tmp_path / f"{name}.py"
    path.write_text(text.format("2.50"))
    os.utime(path, (time.time() + 10, time.time() + 10))
    assert scores(name).tolist() == [2.5, 2.5]
    after = cfg.run_fingerprint(), cfg.fingerprint()
    assert before[0] != after[0]
    assert before[1] != after[1]
    path.write_text(text.format(1.0))
    assert (cfg.run_fingerprint(), cfg.fingerprint()) == before


def test_a_worker_elsewhere_finds_the_module_of_the_folder_it_was_asked_from(module, tmp_path, monkeypatch):
    name = module("def score(p, r):\n    return [3.0] * len(r)\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    host = Host("gold", _built, (gold(name),), 1, folder=str(tmp_path))
    assert unpack(host.run("score", pack((["p"], ["r"])))).result.values.tolist() == [3.0]
    lost = InlineGroup("gold", _built, (gold(f"{name}_else"),))
    with pytest.raises(UserError, match="there is no module"):
        lost.ready().get()


def _built(scorer):
    return scorer.build("cpu")
