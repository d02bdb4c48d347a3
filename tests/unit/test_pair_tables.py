"""Pairs from tables of others: both layouts, conversations, implicit prompts, and all that is refused."""

import json
import math

import pytest

from framework.data.conversations import joined, turns_of
from framework.data.pair_tables import read_pair_rows, read_pair_table
from framework.data.preferences import Pair, divided, write_pairs
from framework.data.tables import TableSource
from framework.errors import UserError


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


def rows(count=40, **more):
    """Good rows, so that one bad row is fewer than 5%."""
    return [{"prompt": f"p{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} | more for i in range(count)]


@pytest.fixture
def source(tmp_path):
    def build(records, suffix=".jsonl", **fields):
        path = tmp_path / f"table{suffix}"
        if suffix == ".csv":
            lines = [list(records[0]), *(record.values() for record in records)]
            path.write_text("\n".join(",".join(map(str, line)) for line in lines))
        else:
            path.write_text("\n".join(map(json.dumps, records)))
        return TableSource(path=str(path), **fields)

    return build


def texts(source):
    return [(row.prompt, row.chosen, row.rejected) for row in read_pair_rows(source)]


@pytest.mark.parametrize("conversational", [False, True])
def test_our_own_file_comes_back_as_it_was(tmp_path, conversational):
    pairs = [
        Pair(f"p{i}", f"a{i}", f" b{i}", 1.0, -0.5 * i, i % 3 == 0, margin=0.5, weight=2.0, target=0.75)
        for i in range(9)
    ]
    pairs = [*divided(pairs, 0.5, "pair"), Pair("q", "c", "d")]
    write_pairs(tmp_path / "pairs.parquet", pairs, conversational)
    found, counts = read_pair_table(TableSource(path=str(tmp_path / "pairs.parquet")))
    assert {p.split for p in found} == {"train", "held_out"}
    # Equality of two nan is identity, so the pair without gold is compared apart.
    assert found[:-1] == pairs[:-1]
    assert math.isnan(found[-1].gold_chosen) and (found[-1].chosen, found[-1].rejected) == ("c", "d")
    assert (counts["rows"], counts["pairs"], counts["identical"], counts["empty"]) == (10, 10, 0, 0)


def test_a_saved_dataset_with_conversations_is_read_too(tmp_path):
    import datasets

    datasets.Dataset.from_list(
        [{"prompt": [user("Colour?")], "chosen": [bot("Blue.")], "rejected": [bot("Green.")]}]
    ).save_to_disk(tmp_path / "set")
    assert texts(TableSource(path=str(tmp_path / "set"))) == [("Colour?", "Blue.", "Green.")]


def test_a_label_says_which_of_two_is_better(source):
    records = [{"prompt": "p", "first": "a", "second": "b", "label": label} for label in (0, 1, "first", "second")]
    expected = [("p", "a", "b"), ("p", "b", "a")] * 2
    assert texts(source(records)) == expected
    assert texts(source(records, suffix=".csv")) == expected


def test_columns_may_have_other_names(source):
    records = [{"question": "p", "a": "x", "b": "y", "winner": label} for label in ("first", "second")]
    names = {"prompt": "question", "first": "a", "second": "b", "label": "winner"}
    assert texts(source(records, columns=names)) == [("p", "x", "y"), ("p", "y", "x")]


DIALOGUE = [user("Hi."), bot("Hello."), user("Colour?")]
JOINED = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Colour?\n\nAssistant:"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        # One user turn is the prompt itself, whoever repeats it.
        ({"prompt": [user("Q")], "chosen": [bot("a")], "rejected": [bot("b")]}, ("Q", "a", "b")),
        ({"chosen": [user("Q"), bot("a")], "rejected": [user("Q"), bot("b")]}, ("Q", "a", "b")),
        ({"prompt": "Q", "chosen": [user("Q"), bot("a")], "rejected": [user("Q"), bot("b")]}, ("Q", "a", "b")),
        ({"prompt": [user("Q")], "chosen": "a", "rejected": "b"}, ("Q", "a", "b")),
        # Several turns are written as the HH data writes them.
        ({"prompt": DIALOGUE, "chosen": [bot("a")], "rejected": [bot("b")]}, (JOINED, "a", "b")),
        ({"chosen": [*DIALOGUE, bot("a")], "rejected": [*DIALOGUE, bot("b")]}, (JOINED, "a", "b")),
        ({"prompt": DIALOGUE, "chosen": [*DIALOGUE, bot("a")], "rejected": [*DIALOGUE, bot("b")]}, (JOINED, "a", "b")),
        (
            {"prompt": [{"role": "system", "content": "Be kind."}, user("Q")], "chosen": "a", "rejected": "b"},
            ("Be kind.\n\nHuman: Q\n\nAssistant:", "a", "b"),
        ),
        # Implicit prompts of plain strings.
        ({"chosen": f"{JOINED} I say a", "rejected": f"{JOINED} I say b"}, (JOINED, " I say a", " I say b")),
        ({"chosen": "The sky is blue.", "rejected": "The sky is blonde."}, ("The sky is", " blue.", " blonde.")),
        ({"chosen": "The sky is", "rejected": "The sky is green."}, ("The sky is", "", " green.")),
        ({"chosen": "The cat", "rejected": "The cathedral."}, ("The", " cat", " cathedral.")),
        ({"chosen": "The sky is  blue.", "rejected": "The sky is\ngreen."}, ("The sky is", "  blue.", "\ngreen.")),
    ],
)
def test_conversations_and_implicit_prompts_become_text(source, record, expected):
    assert texts(source([record])) == [expected]


def test_each_of_several_chosen_is_paired_with_each_rejected(source):
    """RewardBench 2 has one right answer and three wrong ones, and ties of several right ones."""
    records = [
        {"prompt": f"Q{i}", "chosen": ["a", "b"][: 1 + i % 2], "rejected": ["x", [bot("y")], "z"]} for i in range(20)
    ]
    table = source(records)
    rows = read_pair_rows(table)
    assert [(r.number, r.chosen, r.rejected) for r in rows[:9]] == [
        *((1, "a", wrong) for wrong in "xyz"),
        *((2, right, wrong) for right in "ab" for wrong in "xyz"),
    ]
    pairs, counts = read_pair_table(table, held_out=0.3)
    assert counts["pairs"] == 90
    # They share responses, so that all of a prompt are on one side.
    sides = [{p.prompt for p in pairs if p.split == split} for split in ("train", "held_out")]
    assert all(sides) and not sides[0] & sides[1]


def test_a_string_and_replies_that_are_turns_are_a_conversation(source):
    for chosen, rejected in (([bot("a")], [bot("b")]), ([bot("a")], "b"), ("a", [bot("b")])):
        (row,) = read_pair_rows(source([{"prompt": "Q", "chosen": chosen, "rejected": rejected}]))
        assert (turns_of(row.prompt), row.chosen, row.rejected) == ([user("Q")], "a", "b")
        assert joined(row.prompt, row.chosen) == "Q a"
    (row,) = read_pair_rows(
        source(
            [{"prompt": "Q", "chosen": [bot("A?"), user("B"), bot("a")], "rejected": [bot("A?"), user("B"), bot("b")]}]
        )
    )
    assert turns_of(row.prompt) == [user("Q"), bot("A?"), user("B")]
    (row,) = read_pair_rows(source([{"prompt": "Q", "chosen": "a", "rejected": "b"}]))
    assert joined(row.prompt, row.chosen) == "Qa"


def test_a_joined_prompt_and_reply_are_the_conversation_in_full(source):
    whole = f"{JOINED} It is blue."
    as_turns = {"chosen": [*DIALOGUE, bot("It is blue.")], "rejected": [*DIALOGUE, bot("Green.")]}
    as_text = {"chosen": whole, "rejected": f"{JOINED} Green."}
    for record in (as_turns, as_text):
        ((prompt, chosen, _),) = texts(source([record]))
        assert joined(prompt, chosen) == whole


def test_what_cannot_be_a_pair_is_dropped_and_counted(source):
    other = [user("Hi."), bot("Go away."), user("Colour?"), bot("b")]
    bad = [
        {"prompt": "p", "chosen": "same", "rejected": "same"},
        {"prompt": "p", "chosen": "a", "rejected": "  "},
        {"prompt": "p", "chosen": [*DIALOGUE, bot("a")], "rejected": other},
    ]
    pairs, counts = read_pair_table(source(rows(57) + bad))
    assert len(pairs) == counts["pairs"] == 57
    assert (counts["rows"], counts["identical"], counts["empty"], counts["parted"]) == (60, 1, 1, 1)
    assert "same" not in {text for p in pairs for text in (p.chosen, p.rejected)}
    assert counts["chosen_longer"] == 1.0
    assert counts["held_out"] == sum(p.split == "held_out" for p in pairs) > 0


@pytest.mark.parametrize(
    ("chosen", "rejected", "fault"),
    [
        ([*DIALOGUE, bot("a")], [*DIALOGUE, bot("a")], "identical"),
        ([*DIALOGUE, bot("a")], [*DIALOGUE, bot("")], "empty"),
        ([*DIALOGUE, bot("a")], [user("Hi."), bot("Hello."), user("Shade?"), bot("a")], "parted"),
        ([*DIALOGUE, bot("a")], [user("Hi."), bot("Hello.")], "parted"),
        (f"{JOINED} a", f"{JOINED} a", "identical"),
        (f"{JOINED} a", f"{JOINED} ", "empty"),
        (f"{JOINED} a\n\nHuman: Why?\n\nAssistant: b", f"{JOINED} c", "parted"),
    ],
)
def test_whole_conversations_with_a_fault(source, chosen, rejected, fault):
    (row,) = read_pair_rows(source([{"chosen": chosen, "rejected": rejected}]))
    assert row.fault == fault


def test_too_many_such_rows_are_refused_with_their_counts(source):
    bad = [{"prompt": "p", "chosen": "same", "rejected": "same"}, {"prompt": "p", "chosen": "", "rejected": "b"}]
    assert read_pair_table(source(rows(38) + bad))[1]["pairs"] == 38
    with pytest.raises(
        UserError, match=r"2 of 39 rows are no pairs \(1 with identical responses, 1 with an empty one, 0"
    ):
        read_pair_table(source(rows(37) + bad))
    with pytest.raises(UserError, match="the first in row 38: more than 5%"):
        read_pair_table(source(rows(37) + bad))


def test_optional_columns_are_taken_and_gaps_have_defaults(source):
    records = rows(3)
    records[0] |= {"margin": 0.5, "weight": 2, "target": 0.9, "split": "held_out", "gold_chosen": 1, "gold_rejected": 2}
    records[1] |= {"margin": None, "flipped": True, "gold_chosen": float("nan"), "split": None}
    found, _ = read_pair_table(source(records))
    assert found[0] == Pair("p0", "good 0", "bad 0", 1.0, 2.0, True, "held_out", 0.5, 2.0, 0.9)
    assert found[1].flipped and found[1].margin == 0.0 and math.isnan(found[1].gold_chosen)
    assert (found[2].weight, found[2].target, found[2].flipped) == (1.0, 1.0, False)


def test_numbers_of_a_csv_are_read(source):
    found, _ = read_pair_table(source(rows(3, weight="0.5", margin="", flipped="False"), suffix=".csv"))
    assert [(p.weight, p.margin, p.flipped) for p in found] == [(0.5, 0.0, False)] * 3


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("rejected", None, "column 'rejected' is missing"),
        ("chosen", 7, "column 'chosen' holds int, neither text nor a list"),
        ("chosen", [user("a"), "b"], "column 'chosen' holds a turn that is str, not {role, content}"),
        ("chosen", [{"from": "gpt", "value": "a"}], "holds a turn that is {from, value}, not {role, content}"),
        ("chosen", [7], "column 'chosen' holds int, neither text nor a list"),
        ("chosen", [], "column 'chosen' holds empty, neither text nor a list"),
        ("chosen", "[{'role': 'assistant', 'content': 'a'", "looks like a list of {role, content} and is neither"),
        ("rejected", "bad \ud83d end", "column 'rejected' holds half of a character ('\\ud83d', a lone surrogate)"),
        ("prompt", [user("bad \ud83d end")], "column 'prompt' holds half of a character"),
        ("prompt", '[{"role": "user", "content": "bad \\ud83d end"}]', "column 'prompt' holds half of a character"),
        ("prompt", [user(" ")], "column 'prompt' ends with an empty turn of 'user'"),
        ("chosen", [{"role": "tool", "content": "x"}], "role 'tool'; known: user, assistant, system"),
        ("chosen", [{"role": "assistant", "content": [1]}], "turn of 'assistant' whose content is list, not text"),
        ("chosen", [user("a")], "ends with a turn of 'user', not with a reply"),
        ("prompt", [user("a"), bot("b")], "its last turn is a reply of 'assistant'"),
        ("prompt", "  ", "column 'prompt' is empty"),
        ("margin", -1, "column 'margin' holds -1; a number from 0 is needed"),
        ("weight", "much", "column 'weight' holds 'much'"),
        ("weight", float("inf"), "column 'weight' holds inf"),
        ("weight", True, "column 'weight' holds True"),
        ("target", 1.5, "column 'target' holds 1.5; a number from 0 to 1 is needed"),
        ("target", float("nan"), "column 'target' holds nan"),
        ("gold_chosen", float("inf"), "column 'gold_chosen' holds inf; a number finite is needed"),
        ("flipped", "maybe", "column 'flipped' holds 'maybe'; it is true or false"),
        ("split", "test", "column 'split' holds 'test'; it is one of train, held_out"),
    ],
)
def test_a_bad_cell_is_named(source, column, value, message):
    records = rows(40)
    records[6][column] = value
    with pytest.raises(UserError) as raised:
        read_pair_table(source(records))
    assert "table.jsonl row 7: " in str(raised.value)
    assert message in str(raised.value)


@pytest.mark.parametrize("label", [2, "a", True, None])
def test_a_label_of_another_value_is_refused(source, label):
    records = [{"prompt": "p", "first": "a", "second": "b", "label": value} for value in (0, 1, label)]
    with pytest.raises(UserError, match=r"row 3: column 'label' holds .*; it is 0 or 'first'"):
        read_pair_table(source(records))


def test_one_sided_labels_are_refused_with_the_way_out(source):
    records = [{"prompt": "p", "a": "x", "b": "y", "label": 1}] * 5
    with pytest.raises(UserError, match=r"says 'second' in all 5 rows: .* columns: {chosen: b, rejected: a}"):
        read_pair_table(source(records, columns={"first": "a", "second": "b"}))


def test_a_pair_or_prompt_on_both_sides_is_refused(source):
    records = [
        {"prompt": "p", "chosen": f"a{i % 3}", "rejected": "b", "split": s}
        for i, s in enumerate(["train", "held_out"] * 3)
    ]
    with pytest.raises(UserError, match=r"3 of 3 pairs are on both sides of column 'split', for example 'p'"):
        read_pair_table(source(records))
    apart = [
        {"prompt": "p", "chosen": "a", "rejected": f"b{i}", "split": s} for i, s in enumerate(["train", "held_out"])
    ]
    assert len(read_pair_table(source(apart))[0]) == 2
    with pytest.raises(UserError, match="1 of 1 prompts are on both sides"):
        read_pair_table(source(apart), held_out_by="prompt")


@pytest.mark.parametrize(
    ("record", "columns", "message"),
    [
        ({"prompt": "p", "choice": "a", "rejected": "b"}, {}, r"no column 'chosen' \(did you mean 'choice'\?\)"),
        ({"prompt": "p", "first": "a", "second": "b"}, {}, "no column 'label'"),
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, {"margin": "lead"}, "no column 'lead'"),
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, {"chsen": "chosen"}, "columns maps 'chsen'"),
        ({"chosen": "Blue.", "rejected": "Green."}, {}, "row 1: column 'chosen' begins unlike the other"),
        ({"chosen": [bot("a")], "rejected": [bot("b")]}, {}, "shares no turn with the other"),
        ({"chosen": [user("a"), bot("a")], "rejected": "b"}, {}, "is text, and the other response is a conversation"),
    ],
)
def test_a_table_without_the_right_columns_is_refused(source, record, columns, message):
    with pytest.raises(UserError, match=message):
        read_pair_table(source([record], columns=columns))
