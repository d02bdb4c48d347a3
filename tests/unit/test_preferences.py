"""Preference pairs: labels, flips, ties, and files that are not what they should be."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from framework.data.preferences import Pair, pair_up, read_pairs, write_pairs
from framework.errors import UserError


def _pairs(count: int, noise: float, seed: int = 0) -> list[Pair]:
    prompts, first, second = ([f"{name}{i}" for i in range(count)] for name in "pab")
    pairs, ties = pair_up(prompts, first, second, [1.0] * count, [0.0] * count, noise, seed)
    assert ties == 0
    return pairs


def test_without_noise_gold_decides():
    pairs, _ = pair_up(["p", "q"], ["a", "c"], ["b", "d"], [1.0, 0.0], [0.0, 2.0], 0.0, 0)
    assert [(p.chosen, p.rejected, p.gold_chosen, p.gold_rejected) for p in pairs] == [
        ("a", "b", 1.0, 0.0),
        ("d", "c", 2.0, 0.0),
    ]
    assert not any(p.flipped for p in pairs)


def test_a_flip_turns_the_label_and_says_so():
    for pair in _pairs(200, noise=0.25):
        assert pair.flipped == (pair.chosen[0] == "b") == (pair.gold_chosen < pair.gold_rejected)


def test_the_share_of_flips_is_the_noise_and_the_seed_draws_them():
    flips = [p.flipped for p in _pairs(4000, noise=0.25)]
    assert sum(flips) / len(flips) == pytest.approx(0.25, abs=0.03)
    assert flips == [p.flipped for p in _pairs(4000, noise=0.25)]
    assert flips != [p.flipped for p in _pairs(4000, noise=0.25, seed=1)]


def test_ties_and_equal_texts_make_no_pair():
    pairs, ties = pair_up(["p"] * 3, ["a", "a", "a"], ["b", "a", "c"], [1, 2, 2], [1, 0, 3], 0.0, 0)
    assert ties == 2
    assert [p.chosen for p in pairs] == ["c"]


def test_a_file_gives_back_what_was_written(tmp_path):
    pairs = _pairs(5, noise=0.4)
    write_pairs(tmp_path / "pairs.parquet", pairs)
    assert read_pairs(tmp_path / "pairs.parquet") == pairs


def _table(**columns: list) -> pa.Table:
    return pa.table({"prompt": ["p", "q"], "chosen": ["a", "c"], "rejected": ["b", "d"]} | columns)


def test_pairs_of_others_need_no_gold(tmp_path):
    pq.write_table(_table(), tmp_path / "theirs.parquet")
    assert [p.chosen for p in read_pairs(tmp_path / "theirs.parquet")] == ["a", "c"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (_table().drop_columns("chosen"), "has no column 'chosen'; it has prompt, rejected"),
        (_table(rejected=["b", None]), "row 2: column 'rejected' holds no text"),
        (_table(prompt=[1, 2]), "row 1: column 'prompt' holds no text"),
        (_table().slice(0, 0), "holds no pairs"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, table, message):
    path = tmp_path / "pairs.parquet"
    pq.write_table(table, path)
    with pytest.raises(UserError) as raised:
        read_pairs(path)
    assert str(path) in str(raised.value)
    assert message in str(raised.value)


def test_a_file_that_is_missing_or_torn_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nix\.parquet does not exist"):
        read_pairs(tmp_path / "nix.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"torn\.parquet is not a readable Parquet file"):
        read_pairs(tmp_path / "torn.parquet")
