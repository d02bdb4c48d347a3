"""Pairs of the user's own, and options of a fit that cannot act, as a user meets them."""

import shutil
from dataclasses import replace

import pytest

from framework.data.pair_tables import read_pairs
from framework.data.preferences import write_pairs
from jobs import __main__ as cli


@pytest.fixture
def mine(finished, tmp_path):
    """Writes changed pairs of the finished experiment to a table; gives the words that name it, and a workspace."""
    (made,) = finished.glob("pairs-*/pairs.parquet")
    pairs, table, out = read_pairs(made), tmp_path / "mine.parquet", tmp_path / "out"
    shutil.copytree(finished, out, ignore=shutil.ignore_patterns("train", "reward-*", "pairs-*"))

    def write(change):
        write_pairs(table, [change(number, pair) for number, pair in enumerate(pairs)])
        return [f"fit_reward.pairs.path={table}", "fit_reward.batch=8", "--out", str(out)], out

    return write


def test_labels_own_file_fits_a_model_again(config, finished, mine, capsys):
    """What `label` writes is read as one's own pairs, responses without a word included."""
    words, out = mine(lambda number, pair: replace(pair, rejected="") if number == 0 else pair)
    assert cli.main(["fit-reward", str(config), *words]) == 0
    (copy,) = out.glob("pairs-*/pairs.parquet")
    (made,) = finished.glob("pairs-*/pairs.parquet")
    assert len(read_pairs(copy)) == len(read_pairs(made))
    reward = {path.name for path in out.glob("reward-*")}
    rollouts = next((finished / "train" / "rollouts").glob("*.parquet"))
    assert cli.main(["fit-reward", str(config), f"fit_reward.compare_on.path={rollouts}", *words]) == 0
    assert "disagreement_ratio" in (out / "compare_on.json").read_text()
    assert {path.name for path in out.glob("reward-*")} == reward  # what is compared changes no model


def test_rows_left_out_are_told(config, mine, capsys):
    words, _ = mine(lambda number, pair: replace(pair, rejected=pair.chosen) if number == 0 else pair)
    assert cli.main(["fit-reward", str(config), *words]) == 0
    assert "left out of 48 rows: 1 identical" in capsys.readouterr().err


def test_weights_that_are_all_nothing_are_refused(config, mine, fails):
    words, _ = mine(lambda number, pair: replace(pair, weight=0.0))
    assert "weight 0" in fails("fit-reward", config, *words, code=2)


def test_held_out_texts_that_must_be_cut_are_refused(config, mine, fails):
    long = " ".join(["the room was good ."] * 40)
    words, _ = mine(lambda number, pair: replace(pair, chosen=long) if pair.split == "held_out" else pair)
    assert "held-out texts are longer than" in fails("fit-reward", config, *words, code=2)


def test_brackets_in_an_override_come_back_as_they_were(config, stages, capsys):
    words = "fit_reward.ensemble={kind: full, members: 1, published: []}"
    assert cli.main(["fit-reward", str(config), words, "--out", str(stages)]) == 0
    assert "published: []}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "fit_reward={ensemble: {kind: full, members: 0, published: [x]}, augment: {share: 0.5}}",
            "augment changes a fit",
        ),
        ("fit_reward={ensemble: {kind: lora}, odin: {}}", "odin needs heads that are fitted once"),
        ("label={samples_per_prompt: 3}", "set held_out_by=prompt"),
    ],
)
def test_options_that_could_not_act_are_refused(config, tmp_path, fails, override, words):
    assert words in fails("fit-reward", config, override, "--out", tmp_path / "out", code=2)
