"""What goes wrong for a user, as a user sees it: one line, a code, and nothing that was written lost."""

import errno
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors import reference
from actors.policy import PolicyWorker
from framework.config import load_config
from framework.gold.rule import Rule
from framework.models.causal import CausalPolicy
from framework.models.reward_model import RewardModel
from framework.objectives import PpoClip
from framework.training.torch_engine import TorchEngine
from framework.types import Scores
from jobs import __main__ as cli
from jobs import run_log
from tests.tiny import contents

BAD_STEP = 3


def _files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Contents and time of change of every file."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


# Not a number, and not on disk: a run in trouble


def _nan_reward(patch: pytest.MonkeyPatch, on: set[int]) -> None:
    _spoil(patch, RewardModel, "read", on, 1, lambda found: replace(found, values=found.values * math.nan))


def _nan_gold(patch: pytest.MonkeyPatch, on: set[int]) -> None:
    _spoil(patch, Rule, "score", on, 1, lambda scored: Scores(scored.values * math.inf))


def _nan_reference(patch: pytest.MonkeyPatch, on: set[int]) -> None:
    class Spoilt(CausalPolicy):
        pass

    _spoil(patch, Spoilt, "forward", on, 2, lambda said: replace(said, logprobs=said.logprobs * math.nan))
    patch.setattr(reference, "CausalPolicy", Spoilt)


def _nan_loss(patch: pytest.MonkeyPatch, on: set[int]) -> None:
    _spoil(patch, PpoClip, "__call__", on, 1, lambda out: type(out)(out.token_loss * math.nan, out.token_metrics))


def _full_at_rollout(patch: pytest.MonkeyPatch, on: set[int]) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    _spoil(patch, run_log.pq, "write_table", on, 1, full)


def _spoil(patch: pytest.MonkeyPatch, owner: object, name: str, on: set[int], calls_per_step: int, spoil) -> None:
    """Change what a function gives in some steps, told by counting its calls."""
    plain, count = getattr(owner, name), iter(range(10_000))

    def spoilt(*args: object, **kwargs: object) -> object:
        step = next(count) // calls_per_step
        return spoil(plain(*args, **kwargs)) if step in on else plain(*args, **kwargs)

    patch.setattr(owner, name, spoilt)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (_nan_reward, ["reward: head 0 gives nan for row 0", f"at step {BAD_STEP}"]),
        (_nan_gold, ["gold: the score of row 0 is", f"at step {BAD_STEP}"]),
        (_nan_reference, ["reference: a log-probability is not finite", f"at step {BAD_STEP}"]),
        (_nan_loss, ["policy: the loss is nan", f"at step {BAD_STEP}"]),
        (_full_at_rollout, ["step_000003.parquet: No space left on device"]),
    ],
)
def test_a_run_that_must_stop_can_go_on(config, finished, stages, fails, monkeypatch, trouble, words):
    run = stages / "train"
    with monkeypatch.context() as patch:
        trouble(patch, {BAD_STEP})
        line = fails("train", config, "--out", stages, code=1)
    for word in words:
        assert word in line
    assert f"last good checkpoint: {run / 'checkpoints' / 'step_2'}" in line
    assert f"go on with `goldilocks train --resume {run}`" in line
    steps = [json.loads(text)["step"] for text in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps[:BAD_STEP] == [0, 1, 2]
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert contents(run) == contents(finished / "train")


def test_a_disk_that_fills_up_during_a_checkpoint_costs_that_checkpoint_only(
    config, finished, stages, fails, monkeypatch
):
    run = stages / "train"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        _spoil(patch, TorchEngine, "save", {1}, 1, full)
        line = fails("train", config, "--out", stages, code=1)
    assert "No space left on device" in line
    assert f"last good checkpoint: {run / 'checkpoints' / 'step_2'}" in line
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["step_2"]
    assert cli.main(["train", "--resume", str(run)]) == 0
    assert contents(run) == contents(finished / "train")


@pytest.mark.parametrize("spoil", ["weights", "moments"])
def test_a_state_that_is_no_number_is_never_saved(config, stages, fails, monkeypatch, spoil):
    """The last sound checkpoint stays, and nobody is sent back to where the same would happen again."""
    run = stages / "train"

    plain = PolicyWorker.update

    def update(worker: PolicyWorker, credited: object) -> object:
        report = plain(worker, credited)
        weight = worker.engine.parameters[0]
        target = weight.data if spoil == "weights" else worker.engine.adam.state[weight]["exp_avg_sq"]
        if report.policy_version == 5:
            target.view(-1)[0] = math.inf if spoil == "weights" else math.nan
        return report

    monkeypatch.setattr(PolicyWorker, "update", update)
    line = fails("train", config, "train.steps=5", "--out", stages, code=1)
    assert (
        "policy, after 5 updates: " in line
        and "is not finite, and is not saved; begin another run with a lower" in line
    )
    assert f"last good checkpoint: {run / 'checkpoints' / 'step_4'}" in line and "go on with" not in line
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step_2", "step_4"]


def test_a_failure_before_the_first_checkpoint_says_so(config, stages, fails, monkeypatch):
    _nan_loss(monkeypatch, {1})
    line = fails("train", config, "--out", stages, code=1)
    assert "at step 1" in line
    assert "no checkpoint was written yet" in line


def test_a_disk_that_fills_up_during_a_stage_leaves_no_half_stage(config, finished, stages, fails, monkeypatch):
    shutil.rmtree(next(stages.glob("pairs-*")))
    before = _files(stages)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("jobs.stages.write_pairs", full)
        assert "No space left on device; nothing there was changed" in fails("label", config, "--out", stages, code=1)
    assert _files(stages) == before
    assert cli.main(["label", str(config), "--out", str(stages)]) == 0
    made, whole = (next(folder.glob("pairs-*")) for folder in (stages, finished))
    assert (made / "pairs.parquet").read_bytes() == (whole / "pairs.parquet").read_bytes()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["sft.optimizer.lr=1e10"], ["sft: the", "not finite at step", "lower sft.optimizer.lr"]),
        (["fit_reward.optimizer.lr=1e30"], ["fit_reward: the", "not finite at step", "lower fit_reward.optimizer.lr"]),
    ],
)
def test_a_fit_that_diverges_names_its_step_and_rate(config, stages, fails, settings, words):
    before = _files(stages)
    line = fails("fit-reward", config, *settings, "--out", stages, code=1)
    for word in words:
        assert word in line
    after = _files(stages)
    assert {name: after[name] for name in before} == before


def test_gold_that_is_no_number_labels_nothing(config, stages, fails, monkeypatch):
    shutil.rmtree(next(stages.glob("pairs-*")))
    _nan_gold(monkeypatch, {0})
    line = fails("label", config, "--out", stages, code=1)
    assert line.startswith("goldilocks label: label: the gold score of ")
    assert not list(stages.glob("pairs-*"))


# Folders


@pytest.mark.parametrize("verb", ["train", "study", "fit-policy"])
@pytest.mark.parametrize("place", ["file", "file/inside"])
def test_a_folder_that_cannot_be_written(config, fails, tmp_path, verb, place):
    (tmp_path / "file").touch()
    line = fails(verb, config, "--out", tmp_path / place, code=2)
    assert f"cannot write {tmp_path / place}" in line
    assert "choose another --out" in line


def test_a_file_where_the_run_should_be(config, stages, fails):
    (stages / "train").touch()
    assert f"cannot write {stages / 'train'}" in fails("train", config, "--out", stages, code=2)


def test_the_folder_of_another_run_is_left_alone(config, finished, fails):
    before = _files(finished)
    line = fails("train", config, "train.steps=7", "--out", finished, code=2)
    assert f"{finished / 'train'} holds a run of another configuration" in line
    assert _files(finished) == before


def test_a_folder_of_something_else_is_left_alone(config, stages, fails):
    (stages / "train").mkdir()
    (stages / "train" / "thesis.tex").write_text("precious")
    assert "is not empty and holds no run" in fails("train", config, "--out", stages, code=2)
    assert "is not empty and holds no experiment" in fails("study", config, "--out", stages, code=2)
    assert (stages / "train" / "thesis.tex").read_text() == "precious"


def test_a_resumed_run_wants_the_models_it_began_with(config, stages, fails):
    assert cli.main(["train", str(config), "train.steps=2", "--out", str(stages)]) == 0
    reward = next(stages.glob("reward-*"))
    weights = reward / "heads.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert "the reward at" in fails("train", "--resume", stages / "train", code=2)
    shutil.rmtree(reward)
    assert "is gone: put it back" in fails("train", "--resume", stages / "train", code=2)


def _flipped(data: bytes) -> bytes:
    """Another sign for the last number."""
    return data[:-1] + bytes([data[-1] ^ 128])


@pytest.mark.parametrize(
    ("verb", "stage", "file", "damage"),
    [
        ("train", "policy", "model.safetensors", _flipped),
        ("train", "pairs", "pairs.parquet", _flipped),
        ("train", "reward", "calibration.safetensors", _flipped),
        ("train", "reward", "heads.safetensors", lambda data: data[:40]),
        ("train", "reward", "reward.json", None),
        ("fit-policy", "policy", "model.safetensors", _flipped),
        ("label", "policy", "model.safetensors", _flipped),
        ("fit-reward", "pairs", "pairs.parquet", _flipped),
        ("best-of-n", "reward", "heads.safetensors", _flipped),
        ("study", "pairs", "pairs.parquet", _flipped),
    ],
)
def test_a_stage_that_was_edited_is_not_used(config, stages, tmp_path, fails, verb, stage, file, damage):
    words, out = [config], stages
    if verb == "study":
        out = tmp_path / "study"
        shutil.copytree(stages, out / "seed_0")
        (out / "experiment.yaml").write_text(load_config(config).to_yaml())
    if verb == "best-of-n":
        words += ["best_of_n.prompts=2", "best_of_n.samples=16"]
    (folder,) = out.rglob(f"{stage}-*")
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(damage(data)) if damage else (folder / file).unlink()
    line = fails(verb, *words, "--out", out, code=2)
    assert f"the {stage} at {folder} is damaged or was edited" in line
    assert f"delete {folder}, and the same command makes it again" in line
    assert not list(out.rglob("metrics.jsonl"))
    shutil.rmtree(folder)
    if verb in ("fit-policy", "fit-reward"):
        assert cli.main([verb, *map(str, words), "--out", str(out)]) == 0
        assert (folder / file).read_bytes() == data


def test_where_every_checkpoint_is_damaged_the_run_begins_again_and_says_so(config, finished, stages, capsys):
    shutil.copytree(finished / "train", stages / "train")
    (stages / "train" / "summary.json").unlink()
    for state in (stages / "train" / "checkpoints").glob("*/state.json"):
        state.write_text("{")
    assert cli.main(["train", "--resume", str(stages / "train")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "checkpoint step_6 is incomplete" in out
    assert "no sound checkpoint was left: began again at step 0" in out
    assert contents(stages / "train") == contents(finished / "train")


# Text and models


@pytest.fixture
def policy(finished, tmp_path) -> Path:
    """A pretrained policy's folder, to be spoilt."""
    folder = tmp_path / "policy"
    shutil.copytree(next(finished.glob("policy-*")), folder)
    (folder / "manifest.json").unlink()
    return folder


@pytest.fixture
def text_config(policy, tmp_path) -> Path:
    texts = [f"the room was grand and the food was very good . number {i}" for i in range(40)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "texts.parquet")
    path = tmp_path / "text.yaml"
    path.write_text(
        f"""
backend: inline
world: {{kind: text, opening_words: [2, 4], source: {{path: {tmp_path / "texts.parquet"}}}}}
policy: {{kind: pretrained, path: {policy}}}
sft: {{steps: 0}}
gold: {{kind: ngram, path: {tmp_path / "gold"}}}
"""
    )
    return path


def _edit(path: Path, **changes: object) -> None:
    tree = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in tree.items() if value is not None}))


def test_a_tokenizer_without_an_end_token(text_config, policy, fails, tmp_path):
    _edit(policy / "tokenizer_config.json", eos_token=None)
    line = fails("fit-policy", text_config, "--out", tmp_path / "out", code=2)
    assert f"{policy}: the tokenizer has no end token; set eos_token in its tokenizer_config.json" in line


def test_a_tokenizer_without_a_pad_token_is_warned_about_in_one_line(text_config, policy, tmp_path, capsys):
    _edit(policy / "tokenizer_config.json", pad_token=None)
    assert cli.main(["fit-policy", str(text_config), "--out", str(tmp_path / "out")]) == 0
    error = capsys.readouterr().err
    assert error == f"goldilocks: warning: {policy}: the tokenizer has no pad token; its end token stands in\n"


def test_a_tokenizer_that_is_not_the_models(text_config, policy, fails, tmp_path):
    tokens = json.loads((policy / "tokenizer.json").read_text())
    vocabulary = tokens["model"]["vocab"]
    vocabulary |= {f"extra{i}": len(vocabulary) + i for i in range(5)}
    (policy / "tokenizer.json").write_text(json.dumps(tokens))
    line = fails("fit-policy", text_config, "--out", tmp_path / "out", code=2)
    size = len(vocabulary)
    assert f"the model has {size - 5} tokens and the tokenizer needs {size}" in line


def test_a_model_that_is_not_there(text_config, policy, fails, tmp_path):
    shutil.rmtree(policy)
    assert f"{policy}: no such folder" in fails("fit-policy", text_config, "--out", tmp_path / "out", code=2)


def test_a_prompt_longer_than_the_context(config, stages, fails):
    line = fails("label", config, "max_new_tokens=62", "--out", stages, code=2)
    assert "has 3 tokens; with max_new_tokens=62 that is over the model's context of 64" in line


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (None, "no such file"),
        ({"txt": ["a b c d e"]}, "has no column 'text' (did you mean 'txt'?); it has txt"),
        ({"text": ["a b c d e", " "]}, "row 2: column 'text' is empty"),
        ({"text": ["a b c d e", None]}, "row 2: column 'text' is empty"),
        ({"text": [1, 2]}, "row 1: column 'text' holds int, not text"),
        ({"text": pa.array([], pa.string())}, "the table holds no rows"),
        ({"text": ["short", "too"]}, "no prompt is left for 'label' of 0 usable texts"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "study"])
def test_text_is_looked_at_before_anything_is_made(text_config, fails, tmp_path, verb, table, words):
    path = tmp_path / "texts.parquet"
    path.unlink()
    if table:
        pq.write_table(pa.table(table), path)
    line = fails(verb, text_config, "--out", tmp_path / "out", code=2)
    assert str(path) in line
    assert words in line
    assert not (tmp_path / "out").exists()


def test_a_stage_is_made_again_when_its_files_have_changed(text_config, policy, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        assert cli.main(["fit-policy", str(text_config), "--out", str(out)]) == 0
    assert len(list(out.iterdir())) == 1
    _edit(policy / "tokenizer_config.json", pad_token="<eos>")
    assert cli.main(["fit-policy", str(text_config), "--out", str(out)]) == 0
    assert len(list(out.iterdir())) == 2


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"text": ["a", "b"]}, "has no column 'label'"),
        ({"text": ["a", "b"], "label": [0, 2]}, "row 2: column 'label' holds 2; a label is 0 or 1"),
    ],
)
def test_labelled_text_that_is_not(fails, tmp_path, table, words):
    path = tmp_path / "labelled.parquet"
    pq.write_table(pa.table(table), path)
    line = fails("fit-gold", f"fit_gold.source.path={path}", "--out", tmp_path / "out", code=2)
    assert str(path) in line
    assert words in line


# Whatever the verb

LONG = "x" * 300
BAD_WORDS = (
    "folder", "loop", LONG, "nix.yaml", "binary.yaml", "holds_itself.yaml", "deep.yaml", "list.yaml", "false.yaml", "nix/=3",
    "=3", "x", "train.=3", "train.steps={", "train..steps=3", "sweep=3", "world=[]", "world.kind=3", "policy.kind=null",
    "train=null", "variants=[1]", "variants={a: null}", "variants={a: {seed: 1}}", "baseline=x", "sweep.grid={seed: [1]}",
    "sweep.points=[1]", "seeds=[0.5]", "seeds=[true]", "seed=-1", "train.steps=true", "train.steps=3000000000",
    "train.gold_at=[5, 3]", "best_of_n.ns=[3, 2]", "policy.heads=3", "train.kl.coef=.nan",
    "sft.optimizer.betas=[0.9, 1]", "sft.optimizer.eps=1e300", "gold={kind: ngram, path: x, on: response}",
)  # fmt: skip


@pytest.fixture
def bad_files(tmp_path, monkeypatch) -> None:
    """A working folder with files that are no configurations."""
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    Path("binary.yaml").write_bytes(bytes(range(256)))
    Path("holds_itself.yaml").write_text("variants: &a {b: *a}")
    Path("deep.yaml").write_text("[" * 9999)
    Path("list.yaml").write_text("[]")
    Path("false.yaml").write_text("false")


@pytest.mark.parametrize("word", BAD_WORDS, ids=lambda word: word[:40])
@pytest.mark.parametrize("verb", [verb for verb in cli.VERBS if verb != "report"])
def test_every_verb_refuses_what_it_is_told_wrongly(bad_files, fails, verb, word):
    line = fails(verb, word, code=2)
    for own in ("Traceback", "Errno", "--debug"):
        assert own not in line
    assert sorted(path.name for path in Path().iterdir() if path.is_dir()) == ["folder"]


@pytest.mark.parametrize(
    "place", ["nix", "folder", "loop", LONG, "list.yaml", "/dev/null"], ids=lambda place: place[:40]
)
@pytest.mark.parametrize("command", [["report"], ["train", "--resume"], ["study", "--resume"], ["sweep", "--resume"]])
def test_what_is_no_run_and_no_experiment_is_no_place_to_go_on(bad_files, fails, command, place):
    line = fails(*command, place, code=2)
    assert place[:40] in line
    assert "Errno" not in line


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1"])
def test_a_wait_must_be_one(bad_files, fails, seconds):
    Path("folder/config.yaml").touch()
    assert "give a number of seconds above 0" in fails("report", "folder", "--watch", "--every", seconds, code=2)


@pytest.mark.parametrize("place", ["loop", LONG, "list.yaml", "list.yaml/x"], ids=lambda place: place[:40])
@pytest.mark.parametrize(
    "verb", [verb for verb in cli.VERBS if verb not in ("check", "report", "fit-gold", "score-pairs")]
)
def test_a_place_that_cannot_be_written_is_named(bad_files, fails, verb, place):
    line = fails(verb, *([] if verb == "demo" else ["backend=inline"]), "sft.steps=1", "--out", place, code=2)
    assert place[:40] in line
    assert "Errno" not in line
