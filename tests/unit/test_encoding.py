"""Texts as token rows: the end token, cuts, templates, padding."""

import pytest
import torch

from framework.models.encoding import padded, tokenize_texts
from framework.worlds.reviews import Reviews
from tests.tiny_reward import encode_texts

PROMPTS = ["the room :", "the food :", "the staff :"]
RESPONSES = [" the room was grand .", " was good", " the staff was kind , and the food was very good ."]


@pytest.fixture
def tokenizer():
    return Reviews().tokenizer()


def test_an_end_token_closes_a_text_for_a_causal_encoder(tokenizer):
    ids, mask, _ = encode_texts(tokenizer, PROMPTS, RESPONSES, 64, tokenizer.eos_token_id)
    last = mask.sum(dim=1) - 1
    assert ids[torch.arange(3), last].tolist() == [tokenizer.eos_token_id] * 3
    whole = tokenizer(PROMPTS[1] + RESPONSES[1])["input_ids"]
    assert ids[1][mask[1]].tolist() == [*whole, tokenizer.eos_token_id]


def test_a_response_that_was_cut_off_shows_no_end(tokenizer):
    rows, _ = tokenize_texts(tokenizer, PROMPTS, RESPONSES, 64, tokenizer.eos_token_id, [True, False, True])
    assert [row[-1] == tokenizer.eos_token_id for row in rows] == [True, False, True]
    assert rows[1] == tokenizer(PROMPTS[1] + RESPONSES[1])["input_ids"]


def test_a_template_closes_the_last_turn_only_of_a_response_that_ended(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} <eos> {% endfor %}"
    rows, _ = tokenize_texts(tokenizer, ["the room"] * 2, ["was grand"] * 2, 64, None, [True, False])
    assert [tokenizer.decode(row) for row in rows] == ["the room <eos> was grand <eos>", "the room <eos> was grand"]


def test_a_cut_keeps_the_end_and_is_counted(tokenizer):
    ids, mask, num_cut = encode_texts(tokenizer, PROMPTS, RESPONSES, 8, tokenizer.eos_token_id)
    whole = tokenizer(PROMPTS[2] + RESPONSES[2])["input_ids"]
    assert num_cut == 2
    assert ids.shape[1] == 8
    assert ids[2].tolist() == [*whole[-7:], tokenizer.eos_token_id]
    assert mask.sum(dim=1).tolist() == [8, 6, 8]


def opens_and_closes(tokenizer):
    """As BERT's tokenizer does, or a Llama's with add_eos_token: <unk> stands for [CLS] or <s>."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        "<unk> $A <eos>", None, [("<unk>", 2), ("<eos>", tokenizer.eos_token_id)]
    )
    tokenizer.bos_token = tokenizer.cls_token = "<unk>"
    return tokenizer


def test_a_text_begins_as_the_tokenizer_begins_it_and_ends_once(tokenizer):
    own = opens_and_closes(tokenizer)
    (both,), _ = tokenize_texts(own, ["the"], [" room"], 64, None)
    (causal,), _ = tokenize_texts(own, ["the"], [" room"], 64, own.eos_token_id)
    assert both == causal == [2, 6, 72, 1]  # a causal encoder's too: as the policy reads it, and one end token


@pytest.mark.parametrize("end", [None, 1])
@pytest.mark.parametrize("template", [None, "<unk>{% for m in messages %} {{ m.content }}{% endfor %} <eos>"])
def test_a_cut_text_keeps_the_token_that_opens_it_and_the_one_that_closes_it(tokenizer, end, template):
    own = opens_and_closes(tokenizer)
    own.chat_template = template
    rows, num_cut = tokenize_texts(own, PROMPTS, RESPONSES, 6, end)
    assert num_cut == 3
    last = own("very good .", add_special_tokens=False)["input_ids"]
    for row in rows:
        assert (row[0], row[-1], len(row)) == (2, 1, 6)
    assert [i for i in rows[2] if i not in (1, 2)][-3:] == last


def test_a_template_writes_the_turns_and_its_own_special_tokens(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{{ 'he' if m.role == 'user' else 'she' }} {{ m.content }} {% endfor %}"
    )
    (row,), _ = tokenize_texts(tokenizer, ["the room"], ["was grand"], 64, tokenizer.eos_token_id)
    assert tokenizer.decode(row) == "he the room she was grand <eos>"


def test_no_texts_and_empty_ones(tokenizer):
    assert tokenize_texts(tokenizer, [], [], 8, 1) == ([], 0)
    assert tokenize_texts(tokenizer, [""], [""], 8, 1) == ([[1]], 0)
    ids, mask = padded([])
    assert ids.shape == mask.shape == (0, 0)


def test_padding_is_on_the_right_and_as_wide_as_the_longest():
    ids, mask = padded([[5, 6, 7], [8], []])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0], [0, 0, 0]]
    assert mask.tolist() == [[True] * 3, [True, False, False], [False] * 3]
