"""Preference pairs: labels, flips, ties, sides, and files that are not what they should be."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from framework.data.pair_tables import read_pairs
from framework.data.preferences import Pair, divided, pair_up, split_of, split_record, write_pairs
from framework.errors import UserError
from framework.seeding import numpy_generator


def _pairs(count: int, noise: float, seed: int = 0) -> list[Pair]:
    prompts = [f"p{i}" for i in range(count)]
    responses = [[f"a{i}", f"b{i}"] for i in range(count)]
    pairs, dropped = pair_up(prompts, responses, [[1.0, 0.0]] * count, noise, seed)
    assert dropped == {"ties": 0, "identical": 0}
    return pairs


def test_without_noise_gold_decides():
    pairs, _ = pair_up(["p", "q"], [["a", "b"], ["c", "d"]], [[1.0, 0.0], [0.0, 2.0]], 0.0, 0)
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


def test_two_responses_take_one_draw_per_prompt_dropped_or_not():
    drawn = numpy_generator(7, "flip").random(50) < 0.4
    gold = [[1.0, 1.0 if i % 5 == 0 else 0.0] for i in range(50)]
    pairs, dropped = pair_up([f"p{i}" for i in range(50)], [["a", "b"]] * 50, gold, 0.4, 7)
    assert dropped["ties"] == 10
    assert {p.prompt: p.flipped for p in pairs} == {f"p{i}": drawn[i] for i in range(50) if i % 5}


def test_every_two_of_n_responses_make_a_pair():
    pairs, dropped = pair_up(["p"], [["a", "b", "c", "d"]], [[3.0, 1.0, 2.0, 0.0]], 0.0, 0)
    assert {(p.chosen, p.rejected) for p in pairs} == {
        ("a", "b"), ("a", "c"), ("a", "d"), ("b", "d"), ("c", "b"), ("c", "d"),
    }  # fmt: skip
    assert sum(dropped.values()) == 0


def test_ties_and_equal_texts_make_no_pair_and_are_told_apart():
    responses = [["a", "b"], ["a", "a"], ["a", "c"]]
    pairs, dropped = pair_up(["p"] * 3, responses, [[1, 1], [2, 2], [2, 3]], 0.0, 0)
    assert dropped == {"ties": 1, "identical": 1}
    assert [p.chosen for p in pairs] == ["c"]


def test_the_side_of_a_pair_is_decided_by_its_text_alone():
    pairs = divided(_pairs(4000, noise=0.25), 0.1, "pair")
    sides = {p.prompt: p.split for p in pairs}
    assert sum(side == "held_out" for side in sides.values()) / 4000 == pytest.approx(0.1, abs=0.02)
    other = divided(_pairs(4000, noise=0.25, seed=5)[::-1], 0.1, "pair")
    assert {p.prompt: p.split for p in other} == sides
    # A larger share keeps what a smaller one held out.
    assert all(split_of(p, 0.2, "pair") == "held_out" for p in pairs if p.split == "held_out")


def test_a_pair_is_on_one_side_whichever_response_is_chosen():
    for i in range(300):
        one, other = Pair("p", f"a{i}", f"b{i}"), Pair("p", f"b{i}", f"a{i}")
        assert split_of(one, 0.5, "pair") == split_of(other, 0.5, "pair")


def test_by_prompt_no_prompt_is_on_both_sides_and_by_pair_some_are():
    pairs = [Pair(f"p{i % 20}", f"a{i}", f"b{i}") for i in range(600)]

    def both(by):
        sides = [{p.prompt for p in divided(pairs, 0.5, by) if p.split == side} for side in ("train", "held_out")]
        return sides[0] & sides[1]

    assert both("prompt") == set()
    assert both("pair")


def test_the_record_of_the_sides_knows_texts_but_not_order():
    pairs = divided(_pairs(100, noise=0.0), 0.3, "pair")
    record = split_record(pairs, "pair")
    assert record["train_pairs"] + record["held_out_pairs"] == 100
    assert record["train_sha256"] != record["held_out_sha256"]
    assert split_record(pairs[::-1], "pair") == record
    changed = [Pair("new", "a", "b", split="held_out"), *pairs]
    assert split_record(changed, "pair")["held_out_sha256"] != record["held_out_sha256"]
    assert split_record(changed, "pair")["train_sha256"] == record["train_sha256"]


def test_a_pair_on_both_sides_is_a_broken_invariant():
    with pytest.raises(AssertionError, match="a pair is on both sides"):
        split_record([Pair("p", "a", "b"), Pair("p", "b", "a", split="held_out")], "pair")


@pytest.mark.parametrize("conversational", [False, True])
def test_a_file_gives_back_what_was_written(tmp_path, conversational):
    pairs = divided(_pairs(5, noise=0.4), 0.5, "pair")
    pairs.append(Pair("p", "", "b", 0.5, 0.25, margin=0.5, weight=2.0, target=0.75))
    write_pairs(tmp_path / "pairs.parquet", pairs, conversational)
    assert read_pairs(tmp_path / "pairs.parquet") == pairs


@pytest.mark.parametrize("conversational", [False, True])
def test_datasets_loads_the_file_as_trl_expects_it(tmp_path, conversational):
    import datasets

    write_pairs(tmp_path / "pairs.parquet", _pairs(3, noise=0.0), conversational)
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "pairs.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.column_names[:3] == ["prompt", "chosen", "rejected"]
    texts = [loaded[0][name] for name in ("prompt", "chosen", "rejected")]
    if conversational:
        assert texts == [
            [{"role": role, "content": text}]
            for role, text in (("user", "p0"), ("assistant", "a0"), ("assistant", "b0"))
        ]
    else:
        assert texts == ["p0", "a0", "b0"]


def _table(**columns: list) -> pa.Table:
    return pa.table({"prompt": ["p", "q"], "chosen": ["a", "c"], "rejected": ["b", "d"]} | columns)


def test_pairs_of_others_need_no_gold(tmp_path):
    pq.write_table(_table(), tmp_path / "theirs.parquet")
    assert [p.chosen for p in read_pairs(tmp_path / "theirs.parquet")] == ["a", "c"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (_table().drop_columns("chosen"), "has no column 'chosen'; it has prompt, rejected"),
        (_table(rejected=["b", None]), "row 2: column 'rejected' is missing"),
        (_table(prompt=[1, 2]), "row 1: column 'prompt' holds int, neither text"),
        (_table().slice(0, 0), "the table holds no rows"),
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
    with pytest.raises(UserError, match=r"nix\.parquet: no such file"):
        read_pairs(tmp_path / "nix.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"torn\.parquet: not a readable \.parquet file"):
        read_pairs(tmp_path / "torn.parquet")


@pytest.mark.parametrize("by", ["pair", "prompt"])
@pytest.mark.parametrize("count", [3, 8, 32])
def test_a_small_set_has_something_to_calibrate_on(by, count):
    """Without care, one set of 32 pairs in thirty would have none held out."""
    for draw in range(40):
        pairs = [Pair(f"prompt {draw} {i}", f"good {i}", f"bad {i}") for i in range(count)]
        made = divided(pairs, 0.1, by)
        assert sum(pair.split == "held_out" for pair in made) >= 2
        assert any(pair.split == "train" for pair in made)
        hashed = [split_of(pair, 0.1, by) for pair in pairs]
        if hashed.count("held_out") >= 2:
            assert [pair.split for pair in made] == hashed
