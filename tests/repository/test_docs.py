"""The documentation against the code: quotations are the source, lists are complete, links lead somewhere."""

import ast
import dataclasses
import json
import re
import shlex
import textwrap
import tomllib
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml

from actors.gold import GoldRole
from actors.group import InlineGroup
from actors.policy import VERSION_FILE, PolicyRole
from actors.reference import ReferenceRole
from actors.reward import RewardRole
from cluster.spec import ClusterSpec, shipped_specs
from framework.advantages import Gae
from framework.analysis.best_of_n import POOL_LINK
from framework.analysis.columns import LABELS, POSITION
from framework.analysis.experiment import analyse
from framework.analysis.records import RunRecord
from framework.analysis.run_folder import STOPPED_FILE
from framework.analysis.table import build_table, record_of, summarise_run
from framework.artifacts import MANIFEST, write_manifest
from framework.component import Component
from framework.config import Config, load_config, parse_config
from framework.data import preferences
from framework.gold import ngram
from framework.measurement import ROLLOUT_SCHEMA, Measurement
from framework.models.causal import VALUE_HEAD_FILE, CausalPolicy
from framework.models.convert import SOURCE_FILE
from framework.models.reward_folder import CALIBRATION_FILE, SETTINGS_FILE
from framework.models.reward_heads import HEADS_FILE
from framework.models.settings import TinyLlama
from framework.objectives import Objective, PpoClip
from framework.overrides import parse_overrides
from framework.report.sections.curves import FIGURES
from framework.shaping import KlInReward
from framework.training.engine import Optimizer
from framework.training.policy_update import PolicyUpdate, Update
from framework.training.torch_engine import COUNT_FILE, TENSORS_FILE, TorchEngine
from framework.types import Scores
from jobs.__main__ import VERBS
from jobs.best_of_n import POOL_FILE, SCORES_FILE
from jobs.checkpoint import STATE
from jobs.experiment.ledger import RUNS_FILE
from jobs.experiment.plan import plan_of
from jobs.experiment.run import EXPERIMENT_FILE, TABLE_FILE
from jobs.fit_job import QUALITY_FILE
from jobs.roles import STAGES, Roles
from jobs.run_state import RunState
from jobs.stages import PAIRS_FILE, SPLITS_FILE
from tests.repository.generate_configuration import PAGE, render
from tests.unit.fake_run import write_fake_run

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARTIFACTS = (ROOT / "docs" / "artifacts.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, without the fence and its indentation."""
    found, inside, lines = [], None, []
    for line in text.splitlines(keepends=True):
        fence = re.fullmatch(r" *```(\w*)\n?", line)
        if fence is None:
            lines.append(line)
        elif inside is None:
            inside, lines = fence[1], []
        else:
            found.append((inside, textwrap.dedent("".join(lines))))
            inside = None
    return [block for name, block in found if name == language]


def section(text: str, heading: str) -> str:
    """What stands between a heading and the next one."""
    after = text.split(f"\n## {heading}\n", 1)[1]
    return after.split("\n## ", 1)[0]


def keys(text: str, table: int = 0) -> list[str]:
    """The first column of the n-th table, as code."""
    tables = re.findall(r"(?:^\|.*\n)+", text + "\n", flags=re.MULTILINE)
    return re.findall(r"^\| `([^`]+)`", tables[table], flags=re.MULTILINE)


def driver() -> tuple[str, str]:
    """The source of `train_policy`, and its body after the docstring."""
    source = (ROOT / "jobs" / "driver.py").read_text(encoding="utf-8")
    function = next(node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    whole = ast.get_source_segment(source, function)
    assert whole is not None
    lines = source.splitlines()[function.body[1].lineno - 1 : function.end_lineno]
    return whole, textwrap.dedent("\n".join(lines))


def test_the_readme_quotes_the_driver():
    assert blocks(README, "python")[0].rstrip() == driver()[1]


def test_the_driver_page_quotes_the_whole_function():
    page = (ROOT / "docs" / "driver.md").read_text(encoding="utf-8")
    assert blocks(page, "python")[0].rstrip() == driver()[0]


def test_the_driver_page_explains_every_statement():
    page = (ROOT / "docs" / "driver.md").read_text(encoding="utf-8")
    assigned = re.findall(r"^    (\w+) = ", driver()[1], flags=re.MULTILINE)
    assert set(keys(page)) >= {*assigned, "while", "log.step", "checkpoints.save"}


def test_the_verbs_table_is_the_help_text():
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", section(README, "Verbs"), flags=re.MULTILINE))
    assert rows == VERBS


def test_the_configuration_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == render(), "run python -m tests.repository.generate_configuration"


def test_a_section_written_in_part_keeps_the_other_defaults():
    whole, part = Config(), load_config(None, {"sft.optimizer.lr": 0.5, "train.kl.coef": 0.5})
    expected = whole.sft.optimizer.model_copy(update={"lr": 0.5})
    assert part.sft.optimizer == expected
    assert part.train.kl == whole.train.kl.model_copy(update={"coef": 0.5})


def test_configurations_and_layouts_in_the_docs_are_valid():
    for text in blocks(README, "yaml"):
        assert plan_of(parse_config(yaml.safe_load(text)))
    layouts = blocks((ROOT / "docs" / "cluster.md").read_text(encoding="utf-8"), "yaml")
    assert layouts
    for text in layouts:
        ClusterSpec.model_validate({"name": "documented"} | yaml.safe_load(text))


@EACH_PAGE
def test_commands_name_verbs_and_keys_that_exist(page):
    """Every `goldilocks` line in a fenced block: a known verb, and overrides that validate."""
    for block in blocks(page.read_text(encoding="utf-8"), ""):
        for line in block.splitlines():
            words = shlex.split(line.partition("goldilocks ")[2]) if "goldilocks " in line else []
            if not words:
                continue
            assert words[0] in VERBS or words[0] == "VERB", line
            overrides = {k: v for k, v in parse_overrides([w for w in words if "=" in w]).items() if "[" not in k}
            shipped = [ROOT / w for w in words if w.startswith("jobs/configs/")]
            load_config(shipped[0] if shipped else None, overrides | _kinds(overrides))


def _kinds(overrides: dict[str, object]) -> dict[str, str]:
    """The kinds that a reader's own file names in these examples."""
    return {"train.kl.kind": "budget"} if "train.kl.budget" in overrides else {}


def test_the_layouts_page_lists_the_shipped_layouts():
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    assert sorted(keys(section(page, "Layouts"))) == shipped_specs()


@pytest.fixture
def credited(make_rollout, make_shaped):
    """Two rows of two tokens with a critic's values."""
    mask = torch.ones(2, 2, dtype=torch.bool)
    return Gae()(make_shaped(mask, torch.rand(2, 2), values=torch.zeros(2, 2)))


def test_every_metric_is_documented(credited):
    written: set[str] = set()
    for member in get_args(get_args(Objective)[0]):
        objective: Objective = PpoClip(dual_clip=3.0) if member is PpoClip else member()
        model = TinyLlama(hidden=8, layers=1, heads=2, intermediate=8).build(4, 0, 1)
        policy = CausalPolicy(model, with_value_head=True)
        engine = TorchEngine(policy, Optimizer())
        written |= PolicyUpdate(engine, Update(), objective, KlInReward(), seed=0, temperature=1.0)(credited).keys()
    rollout, scores = credited.shaped.rollout, Scores(torch.rand(3, 2), torch.rand(1, 2))
    measured = Measurement(rollout, rollout.logprobs, scores, torch.rand(2), torch.rand(2))
    written |= measured.figures(torch.rand(2), 0.1).keys()
    assert set(keys(section(ARTIFACTS, "metrics.jsonl"))) == written | {"step", "warnings"}


def test_every_timing_is_documented():
    group = InlineGroup("role", object)
    roles = Roles(PolicyRole(group), ReferenceRole(group, 1), RewardRole(group, 1), GoldRole(group, 1), exact_kl_rows=1)
    written = roles.timings(step=0, step_seconds=1.0, log_seconds=0.1)
    page = section(ARTIFACTS, "timings.jsonl")
    assert set(keys(page)) == {"step", "tokens", *written}
    assert set(keys(page, table=1)) == set(written["stage_seconds"])
    assert set(STAGES) < set(written["stage_seconds"])


def test_every_column_is_documented_with_its_type():
    page = section(ARTIFACTS, "Rollouts")
    assert keys(page) == ROLLOUT_SCHEMA.names
    assert keys(section(ARTIFACTS, "Stage folders"), table=1) == [
        field.name for field in dataclasses.fields(preferences.Pair)
    ]
    typed = re.findall(r"^\| `(\w+)` \| ([\w ]+) \|", page, flags=re.MULTILINE)
    shown = {f.name: "list of float32" if f.name == "scores" else str(f.type) for f in ROLLOUT_SCHEMA}
    assert {name: kind.replace("float32", "float") for name, kind in typed} == {
        name: kind.replace("float32", "float") for name, kind in shown.items()
    }


def test_every_summary_key_is_documented_in_file_order(tmp_path):
    folder = write_fake_run(tmp_path / "v" / "train", steps=12)
    assert keys(section(ARTIFACTS, "summary.json of a run")) == [*summarise_run(folder), "ended"]
    records = [record_of(folder)]
    whole = analyse("v", build_table(records), records).to_json()
    assert keys(section(ARTIFACTS, "summary.json of an experiment")) == list(whole)


def test_every_label_of_the_table_and_of_a_run_is_documented():
    columns = keys(section(ARTIFACTS, "results.parquet"))
    assert columns == [*LABELS, *POSITION, "gap"]
    assert keys(section(ARTIFACTS, "An experiment")) == [field.name for field in dataclasses.fields(RunRecord)]


def test_manifest_and_checkpoint_state_are_documented(tmp_path):
    write_manifest(tmp_path, "policy", "0", {}, {})
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert keys(section(ARTIFACTS, "manifest.json")) == list(manifest)
    state = RunState.start(Config().train).to_json()
    for name in [*state, *state["kl"]]:
        assert f"`{name}`" in section(ARTIFACTS, "Checkpoints")


def test_every_file_name_is_documented():
    names = [MANIFEST, STATE, VERSION_FILE, VALUE_HEAD_FILE, TENSORS_FILE, COUNT_FILE, SOURCE_FILE, HEADS_FILE]
    names += [CALIBRATION_FILE, QUALITY_FILE, SPLITS_FILE, POOL_FILE, SCORES_FILE, POOL_LINK]
    names += [
        SETTINGS_FILE,
        PAIRS_FILE,
        EXPERIMENT_FILE,
        RUNS_FILE,
        STOPPED_FILE,
        TABLE_FILE,
        ngram.SETTINGS_FILE,
        ngram.NGRAMS_FILE,
    ]
    assert [name for name in names if name not in ARTIFACTS] == []


def test_every_plot_is_documented():
    sections = (ROOT / "framework" / "report" / "sections").glob("*.py")
    drawn = {name for path in sections for name in re.findall(r'\bFigure\(\s*"(\w+)"', path.read_text())}
    names = drawn | set(FIGURES)
    assert len(names) == 10
    assert [name for name in names if f"`{name}.png`" not in ARTIFACTS] == []


def test_every_dependency_has_a_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    names = {re.split(r"[\[<>=!~ ]", requirement)[0] for requirement in wanted}
    page = (ROOT / "docs" / "decisions" / "001-dependencies.md").read_text(encoding="utf-8")
    assert {*keys(page), *keys(page, table=1)} == names


def test_every_decision_is_listed_and_numbered_in_order():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"^(\d+)\. \[.*\]\(decisions/(\d+)-(.*)\.md\)$", index, flags=re.MULTILINE)
    files = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [f"{number}-{name}.md" for _, number, name in listed] == [path.name for path in files]
    for number, (listed_number, padded, _), path in zip(range(1, 100), listed, files, strict=False):
        assert int(listed_number) == int(padded) == number
        assert path.read_text(encoding="utf-8").startswith(f"# {number}. ")


def test_the_example_in_contributing_is_a_component():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    made: dict[str, object] = {}
    exec(compile(blocks(text, "python")[0], "CONTRIBUTING.md", "exec"), made)
    example = next(
        value for value in made.values()
        if isinstance(value, type) and issubclass(value, Component) and value is not Component
    )  # fmt: skip
    assert example()(torch.tensor([[1.0], [5.0], [2.0]])).tolist() == [2.0]


def anchors(page: Path) -> set[str]:
    """The link targets inside a page: its headings, as hosts of repositories spell them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@EACH_PAGE
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}"


@EACH_PAGE
def test_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    example = "framework/aggregation/median.py"
    for name in re.findall(r"\b((?:framework|actors|cluster|jobs|tests)/[\w./]*\.(?:py|yaml|md|json))\b", text):
        assert name == example or (ROOT / name).exists(), f"{page.name} names {name}"
