"""Every setting that names a file or a folder, given every kind of wrong place: one line that names it, and exit 2."""

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

TEXTS = [f"number {i} : the room was grand and the food was very good ." for i in range(40)]
PAIRS = {
    "prompt": ["the room :"] * 40,
    "chosen": [f" it was grand {i} ." for i in range(40)],
    "rejected": [f" it was dull {i} ." for i in range(40)],
}


@pytest.fixture(scope="module")
def good(finished, tmp_path_factory) -> dict[str, str]:
    """A place that each setting can name."""
    folder = tmp_path_factory.mktemp("good")
    pq.write_table(pa.table({"text": TEXTS, "label": [0, 1] * 20}), folder / "texts.parquet")
    pq.write_table(pa.table(PAIRS), folder / "pairs.parquet")
    policy = next(finished.glob("policy-*"))
    from framework.data.tables import read_labelled
    from framework.gold.ngram import FitNgram, fit_ngram

    source = FitNgram.model_validate({"source": {"path": str(folder / "texts.parquet")}}).source
    fit_ngram(*read_labelled(source), folder / "gold")
    texts, pairs, reward = folder / "texts.parquet", folder / "pairs.parquet", next(finished.glob("reward-*"))
    return {
        "world.source.path": str(texts), "policy.path": str(policy), "gold.path": str(folder / "gold"),
        "fit_gold.source.path": str(texts), "fit_reward.pairs.path": str(pairs), "fit_reward.encoder": str(policy),
        "fit_reward.strength.model": str(reward), "score_pairs.source.path": str(pairs), "score_pairs.model": str(reward),
    }  # fmt: skip


KINDS = ("missing", "empty file", "binary file", "empty folder", "loop", "long name", "no variable", "nothing")
USED_BY = {
    "world.source.path": "train", "policy.path": "fit-policy", "gold.path": "label", "fit_gold.source.path": "fit-gold",
    "fit_reward.pairs.path": "fit-reward", "fit_reward.encoder": "fit-reward", "fit_reward.strength.model": "fit-reward",
    "score_pairs.source.path": "score-pairs", "score_pairs.model": "score-pairs",
}  # fmt: skip


def _wrong(kind: str, folder: Path, like: str) -> str:
    """A wrong place, with the ending that a right one has."""
    path = folder / f"x{Path(like).suffix}"
    match kind:
        case "empty file":
            path.touch()
        case "binary file":
            path.write_bytes(bytes(range(256)) * 4)
        case "empty folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "long name":
            return str(folder / ("x" * 300 + path.suffix))
        case "no variable":
            return f"$NIX_A/{path.name}"
        case "nothing":
            return "''"
    return str(path)


def _words(places: dict[str, str]) -> list[str]:
    kinds = [
        "world.kind=text",
        "world.opening_words=[2, 4]",
        "policy.kind=pretrained",
        "gold.kind=ngram",
        "sft.steps=0",
    ]
    few = ["label.pairs=8", "fit_reward.batch=4", "label.batch=4", "fit_reward.epochs=1", "max_new_tokens=4"]
    return ["backend=inline", *kinds, *few, *(f"{key}={place}" for key, place in places.items())]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", USED_BY)
def test_a_wrong_place_is_named_by_check_and_by_the_verb(good, fails, tmp_path, key, kind):
    places = good | {key: _wrong(kind, tmp_path, good[key])}
    if key == "gold.path":
        del places["fit_reward.pairs.path"]  # gold would have nothing to label
    words = _words(places)
    name = "nothing" if kind == "nothing" else "NIX_A" if kind == "no variable" else "x"
    lines = [fails("check", *words, "--data", code=2), fails(USED_BY[key], *words, "--out", tmp_path / "out", code=2)]
    for line in lines:
        assert name in line or "is no path" in line
        assert "Errno" not in line and "Traceback" not in line


def test_check_opens_what_is_named(good, tmp_path, capsys):
    from jobs import __main__ as cli

    assert cli.main(["check", *_words(good), "--data"]) == 0
    out = capsys.readouterr().out
    for line in (
        "world: text; policy: pretrained; gold: ngram", "before a run: no SFT; pairs of ", "prompts: ", "policy.path: llama, ",
        "no chat template; the longest prompts have ", "gold: ngram, ready", "fit_reward.pairs: rows 40, pairs 40",
        "fit_reward.encoder: llama, ", "fit_reward.strength.model: a reward model of 1 members, 2 heads",
        "fit_gold.source: 40 texts, 20 of them labelled 1", "score_pairs.source: 40 pairs", "score_pairs.model: a reward model",
    ):  # fmt: skip
        assert line in out


@pytest.mark.parametrize("form", ["~/{}", "$PLACE/{}", "${{PLACE}}/{}", "./{}", "link/{}"])
def test_every_setting_means_one_place_however_it_is_written(good, tmp_path, monkeypatch, capsys, form):
    from jobs import __main__ as cli

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    places = {}
    for key, place in good.items():
        copy = tmp_path / f"blüten {key}{Path(place).suffix}"
        (shutil.copytree if os.path.isdir(place) else shutil.copyfile)(place, copy)
        places[key] = form.format(copy.name)
    assert cli.main(["check", *_words(places), "--data"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("spoil", ["cut", "shard gone", "index", "config", "no tokenizer", "another family"])
@pytest.mark.parametrize("key", ["policy.path", "fit_reward.encoder"])
def test_check_sees_a_model_that_is_not_whole(good, tmp_path, fails, key, spoil):
    folder = tmp_path / "model"
    shutil.copytree(good[key], folder)
    weights = folder / "model.safetensors"
    match spoil:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-10])
        case "shard gone":
            (folder / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "model-00001-of-2.safetensors"}}'
            )
        case "index":
            (folder / "model.safetensors.index.json").write_text("[]")
        case "config":
            (folder / "config.json").write_text("{")
        case "no tokenizer":
            for path in folder.glob("tokenizer*"):
                path.unlink()
        case "another family":
            (folder / "config.json").write_text('{"model_type": "t5"}')
    line = fails("check", *_words(good | {key: str(folder)}), "--data", code=2)
    assert str(folder) in line or "'t5'" in line


def test_check_counts_tokens_against_the_context(good, tmp_path, fails):
    line = fails("check", *_words(good), "max_new_tokens=63", "--data", code=2)
    assert "with max_new_tokens=63 that is over the model's context of 64" in line


def test_check_sees_that_a_weight_is_not_there(good, tmp_path, fails):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(good["policy.path"], folder)
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if "q_proj" in name)
    save_file(
        {name: value for name, value in weights.items() if name != gone}, folder / "model.safetensors", {"format": "pt"}
    )
    line = fails("check", *_words(good | {"policy.path": str(folder)}), "--data", code=2)
    assert f"policy.path={folder}: weights are missing ({gone})" in line
    own = f"fit_reward.ensemble={{kind: full, members: 0, published: ['{good['policy.path']}']}}"  # has no trained head
    others = {key: place for key, place in good.items() if not key.startswith("fit_reward")}
    line = fails("check", *_words(others), own, "--data", code=2)
    assert f"fit_reward.ensemble.published={good['policy.path']}: weights are missing (score.weight)" in line
