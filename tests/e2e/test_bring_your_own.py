"""The examples of docs/bring_your_own.md, run as a user would: its files in an empty folder, its commands there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.judge_server import said, serving

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "bring_your_own.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(?:python|yaml|csv)\n(.*?)^```", re.DOTALL | re.MULTILINE)
NAME = re.compile(r"`(\w+\.(?:py|yaml|csv))`")
SHARED = Path(os.environ.get("GOLDILOCKS_SHARED", "../shared")).resolve()
SMALL = [
    "world.corpus_size=400", "policy={hidden: 32, layers: 2, heads: 2, intermediate: 64}", "sft={steps: 30, batch: 32}",
    "label={pairs: 96, batch: 32}", "fit_reward={epochs: 1, batch: 16}", "reference_texts=20", "max_new_tokens=12",
    "train.steps=3", "train.prompts_per_step=4",
]  # fmt: skip
"""The examples' own settings, smaller."""


@pytest.fixture
def folder(tmp_path):
    """An empty folder with the page's files in it."""
    # A file's name is the last one before its text.
    files = {NAME.findall(PAGE[: found.start()])[-1]: found[1] for found in FENCED.finditer(PAGE)}
    assert set(files) == {
        "rules.py",
        "own_gold.yaml",
        "own_reward.yaml",
        "judge.yaml",
        "prompts.csv",
        "own_prompts.yaml",
    }
    mine = tmp_path / "mine"
    mine.mkdir()
    for name, text in files.items():
        (mine / name).write_text(text, encoding="utf-8")
    return mine


def goldilocks(folder, *words, **environment):
    """What the installed command does: its script lies elsewhere, and Python puts that folder on its path, not this one."""
    script = folder.parent / "bin" / "goldilocks"
    script.parent.mkdir(exist_ok=True)
    script.write_text("import sys\nfrom jobs.__main__ import main\nsys.exit(main())\n")
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    settings |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment}
    command = [sys.executable, str(script), *words]
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def rollouts(run):
    import pyarrow.parquet as pq

    return [pq.read_table(path).to_pydict() for path in sorted((run / "rollouts").glob("*.parquet"))]


def rules(folder):
    made = {}
    exec((folder / "rules.py").read_text(), made)
    return made["wanted"], made["easy"]


def test_own_gold_labels_the_pairs_and_measures_the_run(folder):
    wanted, _ = rules(folder)
    assert "valid" in goldilocks(folder, "check", "own_gold.yaml", "backend=inline", *SMALL)
    goldilocks(folder, "train", "own_gold.yaml", "backend=inline", *SMALL, "--out", "runs/own_gold")
    for rows in rollouts(folder / "runs/own_gold/train"):
        assert rows["gold"] == pytest.approx(wanted(rows["prompt"], rows["response"]))
    import pyarrow.parquet as pq

    (pairs,) = (folder / "runs/own_gold").glob("pairs-*/pairs.parquet")
    labelled = pq.read_table(pairs).to_pydict()
    assert labelled["gold_chosen"] == pytest.approx(wanted(labelled["prompt"], labelled["chosen"]))


@pytest.mark.slow
def test_own_reward_and_gold_without_pairs_and_best_of_n(folder):
    wanted, easy = rules(folder)
    goldilocks(folder, "train", "own_reward.yaml", "backend=inline", *SMALL, "--out", "runs/own_reward")
    for rows in rollouts(folder / "runs/own_reward/train"):
        assert rows["gold"] == pytest.approx(wanted(rows["prompt"], rows["response"]))
        assert rows["proxy"] == pytest.approx(easy(rows["prompt"], rows["response"]))
    assert not list((folder / "runs/own_reward").glob("pairs-*"))
    words = ["own_reward.yaml", "backend=inline", *SMALL, "best_of_n={prompts: 4, samples: 8}"]
    assert "worst_case" not in goldilocks(folder, "best-of-n", *words, "--out", "runs/own_best")
    assert (folder / "runs/own_best/best_of_n.json").is_file()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("backend", ["inline", "ray"])
def test_a_study_compares_an_own_reward_with_a_fitted_one(folder, backend):
    variants = {"fitted": {}, "rule": {"reward.kind": "python", "reward.function": "rules:easy"}}
    words = [f"variants={json.dumps(variants)}", f"backend={backend}", *SMALL]
    goldilocks(folder, "study", "own_gold.yaml", *words, "--out", "runs/study")
    runs = json.loads((folder / "runs/study/runs.json").read_text())["runs"]
    assert {run["run"]: run["status"] for run in runs} == {"fitted": "finished", "rule": "finished"}
    _, easy = rules(folder)
    for rows in rollouts(folder / "runs/study/seed_0/rule/train"):
        assert rows["proxy"] == pytest.approx(easy(rows["prompt"], rows["response"]))


def judged(folder, url, out, *more):
    words = ["judge.yaml", f"golds.judge.url={url}", "golds.judge.every=2", *more, *SMALL, "--out", out]
    goldilocks(folder, "train", *words, JUDGE_KEY="sk-12345")
    return metrics(folder / out / "train")


def answer(_, body):
    return said(str(len(body["messages"][0]["content"]) % 11))


@pytest.mark.slow
def test_a_judge_beside_gold_at_its_own_cadence(folder):
    assert yaml.safe_load((folder / "judge.yaml").read_text())["golds"]["judge"]["url"] == "http://localhost:8000/v1"
    with serving(answer) as server:
        lines = judged(folder, server.url, "runs/judged", "backend=inline")
        assert {headers["Authorization"] for headers in server.headers} == {"Bearer sk-12345"}
        assert [line["gold_judge"] is None for line in lines] == [False, True, False]
        asked = len(server.bodies)
        assert judged(folder, server.url, "runs/again", "backend=inline") == lines
        assert len(server.bodies) == asked  # from the cache, in the folder that both were run from
        assert server.contents[0].startswith("Here is how a review begins")
    assert not [path for path in folder.rglob("*") if path.is_file() and b"sk-12345" in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.ray
def test_a_worker_on_ray_has_the_key_and_the_cache_of_the_folder(folder):
    with serving(answer) as server:
        lines = judged(folder, server.url, "runs/ray")
        asked = len(server.bodies)
        assert asked
        assert {headers["Authorization"] for headers in server.headers} == {"Bearer sk-12345"}
        assert judged(folder, server.url, "runs/inline", "backend=inline") == lines
        assert len(server.bodies) == asked


def test_own_prompts_are_valid(folder):
    assert "valid" in goldilocks(folder, "check", "own_prompts.yaml", "backend=inline")


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "models" / "stories260k").is_dir(), reason="no shared models here")
def test_own_prompts_train_a_policy_of_ones_own(folder):
    model = ["policy.path=${GOLDILOCKS_SHARED}/models/stories260k", "instruction=null", "precision=float32"]
    words = [*model, "backend=inline", "train.steps=2", "max_new_tokens=12", "--out", "runs/own_prompts"]
    goldilocks(folder, "train", "own_prompts.yaml", *words, GOLDILOCKS_SHARED=str(SHARED))
    prompts = {line for line in (folder / "prompts.csv").read_text().splitlines()[1:]}
    for rows in rollouts(folder / "runs/own_prompts/train"):
        assert set(rows["prompt"]) < prompts
