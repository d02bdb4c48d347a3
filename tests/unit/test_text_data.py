import json

import pytest
from pydantic import ValidationError

from framework.data.tables import TableSource
from framework.data.text import Text
from framework.errors import UserError

SENTENCE = "the film was long and slow but the cast did what it could with so little"


def world(folder, texts, **fields):
    path = folder / "texts.jsonl"
    path.write_text("\n".join(json.dumps(row if isinstance(row, dict) else {"text": row}) for row in texts))
    source = TableSource(path=str(path))
    return Text(source=source, corpus_source=source, **fields)


@pytest.fixture
def texts():
    return [f"Number {i} " + SENTENCE[i % 5 :] for i in range(300)]


def test_prompts_are_openings_of_the_texts_in_the_wanted_lengths(tmp_path, texts):
    made = world(tmp_path, texts)
    prompts = made.prompts("label") + made.prompts("train")
    assert len(prompts) == len(texts)
    assert all(any(text.startswith(prompt + " ") for text in texts) for prompt in prompts[:20])
    assert {len(prompt.split()) for prompt in prompts} == set(range(4, 13))


def test_splits_never_share_an_opening_and_do_not_move(tmp_path, texts):
    made = world(tmp_path, texts, label_share=0.3)
    label, train = made.prompts("label"), made.prompts("train")
    starts = [{tuple(prompt.split()[:4]) for prompt in split} for split in (label, train)]
    assert not starts[0] & starts[1]
    assert 50 < len(label) < 130
    # More rows in the table, and a cap, leave every prompt in the split it was in.
    grown = world(tmp_path, texts + [text + " anew" for text in texts[:5]], label_share=0.3, max_prompts=40)
    assert not {tuple(p.split()[:4]) for p in grown.prompts("train")} & starts[0]
    assert len(grown.prompts("train")) == 40


def test_equal_prompts_are_given_once_and_reading_twice_gives_the_same(tmp_path, texts):
    made = world(tmp_path, texts + texts)
    assert len(made.prompts("train")) == len(set(made.prompts("train")))
    assert made.prompts("train") == made.prompts("train")


def test_corpus_is_the_whole_text_and_the_continuation_keeps_its_blank(tmp_path, texts):
    made = world(tmp_path, ["One two<br /><br />three four five six seven", *texts])
    corpus = made.corpus(seed=1)
    assert {p + c for p, c in corpus} == {"One two\n\nthree four five six seven", *texts}
    assert all(c[0] in " \n" and c.strip() for _, c in corpus)
    assert sorted(made.corpus(seed=2)) == sorted(corpus)
    assert made.corpus(seed=2) != corpus
    few = made.model_copy(update={"max_corpus": 7}).corpus(seed=1)
    assert few == corpus[:7]


def test_prompts_of_the_corpus_and_of_the_splits_agree(tmp_path, texts):
    made = world(tmp_path, texts)
    assert {p for p, _ in made.corpus(0)} == {*made.prompts("label"), *made.prompts("train")}


def test_whole_prompts(tmp_path):
    rows = [{"prompt": f"Question {i}?", "response": f"Answer {i}."} for i in range(50)]
    made = world(tmp_path, rows, opening_words=None)
    assert {*made.prompts("label"), *made.prompts("train")} == {row["prompt"] for row in rows}
    assert ("Question 3?", "Answer 3.") in made.corpus(0)


def test_no_prompt_left_says_what_to_change(tmp_path, texts):
    with pytest.raises(UserError, match=r"no prompt is left for 'train' of 0 usable texts"):
        world(tmp_path, ["too short", "also too short"]).prompts("train")
    # One text has one split, so one of the two must be empty.
    with pytest.raises(UserError, match=r"of 1 usable texts; .*world\.label_share"):
        world(tmp_path, texts[:1], label_share=0.001).prompts("label")


def test_no_corpus_and_short_corpus(tmp_path):
    made = world(tmp_path, ["one two three"])
    with pytest.raises(UserError, match="no text is longer"):
        made.corpus(0)
    with pytest.raises(UserError, match=r"sft\.steps=0"):
        made.model_copy(update={"corpus_source": None}).corpus(0)


@pytest.mark.parametrize("words", [(0, 3), (5, 4)])
def test_impossible_opening(words):
    with pytest.raises(ValidationError, match="fewest"):
        Text(source=TableSource(path="x.jsonl"), opening_words=words)
