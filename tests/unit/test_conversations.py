"""Conversations are the same turns whatever they are kept in, and stay turns until a model reads them."""

import copy
import csv
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.data.conversations import Conversation, Turn, from_cell, joined, parse_cell, to_cell, turns_of
from framework.data.dialogues import read_dialogues
from framework.data.pair_tables import read_pairs
from framework.data.preferences import Pair, write_pairs
from framework.data.tables import TableSource
from framework.data.text import Text
from framework.errors import UserError
from framework.generation.sampler import SampleRequest

SYSTEM, USER, BOT = (
    lambda text, role=role: {"role": role, "content": text} for role in ("system", "user", "assistant")
)
TALK = [SYSTEM("Be brief."), USER("Hi."), BOT("Hello."), USER("Colour?")]
PLAIN = "Be brief.\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Colour?\n\nAssistant:"
ONE = [USER("Colour?")]

contents = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["it's", 'a "b" c', "}\n {", "'} {'", "\\", "\\'", "{'role': 'user', 'content': 'x'}", "[{", "", "é\n\n"]
)
talks = st.lists(
    st.builds(lambda r, c: {"role": r, "content": c}, st.sampled_from(["user", "assistant"]), contents), max_size=3
)


def talk(*turns):
    return Conversation([Turn(**turn) for turn in turns])


def numpy_text(turns):
    """A list of turns as NumPy, and with it `datasets` and pandas, writes it into a CSV file: without commas."""
    return "[" + "\n ".join(map(str, turns)) + "]"


@settings(max_examples=200)
@given(talks, contents.filter(str.strip))
def test_a_conversation_is_the_same_in_every_spelling(before, last):
    turns = [*before, USER(last)]
    expected = [Turn(**turn) for turn in turns]
    for cell in (
        turns,
        json.dumps(turns),
        json.dumps(turns, indent=1, ensure_ascii=False),
        str(turns),
        numpy_text(turns),
    ):
        assert parse_cell(cell) == expected
    kept = Conversation(expected)
    for again in (from_cell(to_cell(kept)), pickle.loads(pickle.dumps(kept)), copy.deepcopy(kept)):
        assert isinstance(again, Conversation)
        assert (again.turns, again) == (kept.turns, kept)


@given(contents)
def test_plain_text_stays_as_it_is(text):
    assert parse_cell(text) == text
    assert from_cell(to_cell(text)) == text
    assert type(from_cell(to_cell(text))) is str
    assert joined(text, "x") == text + "x"


def test_what_datasets_writes_as_csv_is_what_it_holds(tmp_path):
    import datasets

    turns = [USER('it\'s "x"\n} {'), SYSTEM("b, c"), USER("d")]
    datasets.Dataset.from_list([{"messages": turns}, {"messages": ONE}]).to_csv(tmp_path / "t.csv")
    assert [p.turns for p, _ in read_dialogues(TableSource(path=str(tmp_path / "t.csv")), replies=False)] == [
        talk(*turns).turns,
        talk(*ONE).turns,
    ]


def test_the_plain_rendering_and_its_reply():
    assert (talk(*TALK), talk(*ONE)) == (PLAIN, "Colour?")
    assert joined(talk(*TALK), "Blue.") == f"{PLAIN} Blue."
    assert joined(talk(*ONE), "Blue.") == "Colour? Blue."
    for own_blank in (" Blue.", "\nBlue.", ""):
        assert joined(talk(*ONE), own_blank) == "Colour?" + own_blank
    assert joined("Colour?", "Blue.") == "Colour?Blue."


def test_a_request_to_sample_keeps_the_turns():
    request = SampleRequest(
        prompts=(talk(*TALK), "p"), positions=(0, 1), samples_per_prompt=1, step=0, policy_version=0
    )
    assert turns_of(request.prompts[0]) == TALK
    assert turns_of(request.prompts[1]) == [USER("p")]


@pytest.fixture
def table(tmp_path):
    def build(*records, suffix=".jsonl", columns=None):
        path = tmp_path / f"table{suffix}"
        if suffix == ".jsonl":
            path.write_text("\n".join(map(json.dumps, records)))
        elif suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(list(records)), path)
        else:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(records[0]))
                writer.writeheader()
                writer.writerows(records)
        return TableSource(path=str(path), columns=columns or {})

    return build


FORMATS = [
    ({"prompt": "Q?", "response": " A."}, "Q?", " A."),
    ({"prompt": "Q?", "completion": " A."}, "Q?", " A."),
    ({"prompt": "Q? ", "completion": "A.\n"}, "Q?", " A."),
    ({"prompt": " Q<br />? ", "response": "A."}, "Q\n?", " A."),
    ({"prompt": ONE, "completion": [BOT("A.")]}, talk(*ONE), "A."),
    ({"prompt": ONE, "completion": "A."}, talk(*ONE), "A."),
    ({"prompt": TALK, "completion": [BOT("A.")]}, talk(*TALK), "A."),
    ({"prompt": TALK, "completion": [*TALK, BOT("A.")]}, talk(*TALK), "A."),
    ({"prompt": "Colour?", "completion": [BOT("A.")]}, talk(*ONE), "A."),
    ({"messages": [*TALK, BOT("A.")]}, talk(*TALK), "A."),
    ({"prompt": "the first turn", "messages": [*TALK, BOT("A.")]}, talk(*TALK), "A."),
]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
@pytest.mark.parametrize(("record", "prompt", "reply"), FORMATS)
def test_prompts_and_replies_of_every_format(table, suffix, record, prompt, reply):
    ((found, said),) = read_dialogues(table(record, suffix=suffix), replies=True)
    assert (found, said, type(found)) == (prompt, reply, type(prompt))
    assert turns_of(found) == turns_of(prompt)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
@pytest.mark.parametrize(
    ("record", "prompt"),
    [
        ({"prompt": "Q? "}, "Q?"),
        ({"prompt": ONE}, talk(*ONE)),
        ({"prompt": TALK, "response": "A."}, talk(*TALK)),
        ({"messages": TALK}, talk(*TALK)),
        ({"messages": [*TALK, BOT("A.")]}, talk(*TALK)),
    ],
)
def test_prompts_of_every_format_alone(table, suffix, record, prompt):
    ((found, _),) = read_dialogues(table(record, suffix=suffix), replies=False)
    assert (found, turns_of(found), type(found)) == (prompt, turns_of(prompt), type(prompt))


@pytest.mark.parametrize("replies", [True, False])
@pytest.mark.parametrize(
    ("good", "bad", "column"),
    [
        ({"prompt": "Q?", "response": "A."}, {"prompt": value, "response": "A."}, "prompt")
        for value in (None, " ", 7, [], [7], [BOT("a")], [USER(" ")], [{"role": "tool", "content": "x"}], "a \ud83d")
    ]
    + [
        ({"messages": [*ONE, BOT("A.")]}, {"messages": value}, "messages")
        for value in (None, "text", [], [BOT("a")], [{"from": "human", "value": "x"}], [USER("\udc00"), BOT("a")])
    ],
)
def test_a_row_that_is_no_prompt_is_named(table, good, bad, column, replies):
    with pytest.raises(UserError, match=rf"table.jsonl row 2: column '{column}' ") as raised:
        read_dialogues(table(good, bad), replies)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("good", "bad", "column"),
    [
        ({"prompt": "Q?", "response": "A."}, {"prompt": "Q?", "response": value}, "response")
        for value in (None, " ", 7, [], [BOT("")], [USER("a")], [BOT("a"), USER("b")])
    ]
    + [({"messages": [*ONE, BOT("A.")]}, {"messages": value}, "messages") for value in (ONE, [*ONE, BOT(" ")])],
)
def test_a_row_without_a_reply_is_named(table, good, bad, column):
    with pytest.raises(UserError, match=rf"table.jsonl row 2: column '{column}' ") as raised:
        read_dialogues(table(good, bad), replies=True)
    assert "\n" not in str(raised.value)


def test_a_world_of_conversations(table):
    source = table(*({"messages": [*TALK[:3], USER(f"Colour {i}?"), BOT(f"Blue {i}.")]} for i in range(40)))
    world = Text(source=source, corpus_source=source, opening_words=None)
    prompts = world.prompts("label") + world.prompts("train")
    assert {p.turns[-1].content for p in prompts} == {f"Colour {i}?" for i in range(40)}
    corpus = world.corpus(0)
    assert sorted(reply for _, reply in corpus) == sorted(f"Blue {i}." for i in range(40))
    assert all(isinstance(prompt, Conversation) for prompt, _ in corpus)


@pytest.mark.parametrize(
    ("record", "name"), [({"messages": TALK}, "messages"), ({"prompt": ONE, "text": None}, "prompt")]
)
@pytest.mark.parametrize("mapped", [True, False])
def test_openings_asked_of_whole_prompts_say_how_to_take_them(table, record, name, mapped):
    source = table(record, columns={"text": name} if mapped else None)
    with pytest.raises(UserError, match=rf"; or take '{name}' as whole prompts: world\.opening_words=null$"):
        Text(source=source).prompts("train")


@pytest.mark.parametrize("conversational", [True, False])
def test_pairs_of_conversations_come_back_from_a_file(tmp_path, conversational):
    pairs = [Pair(talk(*turns, USER(f"And {i}?")), f"a{i}", " b") for i in range(4) for turns in (TALK[:3], [])]
    write_pairs(tmp_path / "pairs.parquet", pairs, conversational)
    found = read_pairs(tmp_path / "pairs.parquet")
    assert [turns_of(p.prompt) for p in found] == [turns_of(p.prompt) for p in pairs]
    assert [(p.chosen, p.rejected) for p in found] == [(p.chosen, p.rejected) for p in pairs]
    cell = pq.read_table(tmp_path / "pairs.parquet")["prompt"][0].as_py()
    assert cell == (turns_of(pairs[0].prompt) if conversational else json.dumps(turns_of(pairs[0].prompt)))


def test_text_that_was_written_as_turns_comes_back_as_text(tmp_path):
    """Else a blank would come between a prompt and a response that goes on with its last word."""
    write_pairs(tmp_path / "pairs.parquet", [Pair("the fil", "m was", "ms")] * 2, conversational=True)
    assert {type(p.prompt) for p in read_pairs(tmp_path / "pairs.parquet")} == {str}
