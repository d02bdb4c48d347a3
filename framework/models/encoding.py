"""Texts as models read them: prompts that a policy goes on from, and whole texts as token rows of a reward model."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from framework.data.conversations import Conversation, joined, turns_of
from framework.errors import UserError
from framework.models.huggingface import HfTokenizer

Opening: TypeAlias = tuple[str, bool]
"""A text that goes on, and whether a chat template wrote it: it then holds its special tokens already."""


def opening(tokenizer: HfTokenizer, prompt: str, instruction: str | None = None) -> Opening:
    """What the policy answers: a conversation, and any prompt with an instruction, through the chat template.

    The instruction stands around the last turn. Without a template a conversation is its plain rendering. A `UserError`
    where there is an instruction and no template, or the template refuses the conversation.
    """
    if instruction is not None and not tokenizer.chat_template:
        raise UserError("instruction is set, but the policy's tokenizer has no chat template: set instruction=null")
    if instruction is None and not (isinstance(prompt, Conversation) and tokenizer.chat_template):
        return prompt, False
    turns = turns_of(prompt)
    if instruction is not None:
        turns[-1]["content"] = instruction.replace("{prompt}", turns[-1]["content"])
    return through_template(tokenizer, turns, add_generation_prompt=True), True


def through_template(tokenizer: HfTokenizer, turns: Sequence[Mapping[str, str]], **options: Any) -> str:
    """The turns as the chat template writes them; a `UserError` where it refuses them, as some do a system turn."""
    from jinja2 import TemplateError  # slow to import, and most models have no template

    try:
        return str(tokenizer.apply_chat_template([dict(turn) for turn in turns], tokenize=False, **options))
    except (TemplateError, ValueError) as error:  # the latter where it leaves out the reply that is to stay open
        roles = ", ".join(turn["role"] for turn in turns)
        raise UserError(
            f"the chat template of {tokenizer.name_or_path or 'the tokenizer'} refuses a conversation of {roles} "
            f"({str(error).strip()}), which begins {turns[0]['content'][:40]!r}: mend or drop such rows"
        ) from error


def open_ids(tokenizer: HfTokenizer, texts: Sequence[Opening]) -> list[list[int]]:
    """Token ids of texts that go on: what the tokenizer writes before a text is there, what closes one is not."""
    special = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    closing = special[::-1].index(0) if 0 in special else 0  # as an end token, or [SEP]
    found: dict[int, list[int]] = {}
    for templated in (False, True):
        which = [i for i, (_, by_template) in enumerate(texts) if by_template == templated]
        if which:
            rows = tokenizer([texts[i][0] for i in which], add_special_tokens=not templated, verbose=False)["input_ids"]
            spare = 0 if templated else closing
            found |= {i: row[: len(row) - spare] for i, row in zip(which, rows, strict=True)}
    return [found[i] for i in range(len(texts))]


Ended: TypeAlias = Sequence[bool] | None
"""Whether each response ended by itself; None: all did."""


def whole_texts(tokenizer: HfTokenizer, prompts: Sequence[str], responses: Sequence[str], ended: Ended) -> list[str]:
    """Prompt and response as one text: the turns in the tokenizer's chat template, where it has one, else plain.

    The template closes the last turn only where the response ended by itself.
    """
    if not tokenizer.chat_template:
        return [joined(p, r) for p, r in zip(prompts, responses, strict=True)]
    turns = [[*turns_of(p), {"role": "assistant", "content": r}] for p, r in zip(prompts, responses, strict=True)]
    return [
        through_template(tokenizer, few, continue_final_message=not whole)
        for few, whole in zip(turns, ended or [True] * len(turns), strict=True)
    ]


def tokenize_texts(
    tokenizer: HfTokenizer,
    prompts: Sequence[str],
    responses: Sequence[str],
    max_tokens: int,
    end_id: int | None = None,
    ended: Ended = None,
) -> tuple[list[list[int]], int]:
    """Token ids of prompt + response, and how many rows had to be cut.

    A causal encoder is read at its last token: `end_id` is appended there where the response ended by itself, and
    nothing else that closes a text. Shown after a response that was cut off, it would make it look ended, and never to
    end would cost nothing. Cutting removes the *start* of a text, so the response is always seen.
    """
    texts = whole_texts(tokenizer, prompts, responses, ended)
    if not texts:
        return [], 0
    templated = bool(tokenizer.chat_template)  # a template writes its own special tokens
    if end_id is None:
        rows = tokenizer(texts, add_special_tokens=not templated, verbose=False)["input_ids"]
    else:
        rows = open_ids(tokenizer, [(text, templated) for text in texts])
        # A text without a token is read at its end token all the same: there is nothing else to read.
        closed = zip(rows, ended or [True] * len(texts), strict=True)
        rows = [[*row, end_id] if whole or not row else row for row, whole in closed]
    return cut_starts(tokenizer, rows, max_tokens)


def cut_starts(tokenizer: HfTokenizer, rows: Sequence[list[int]], max_tokens: int) -> tuple[list[list[int]], int]:
    """Rows without the start of over-long texts, and how many were cut; a token that opens a text, as [CLS], stays."""
    opens = {tokenizer.bos_token_id, tokenizer.cls_token_id}
    first = [1 if row and row[0] in opens else 0 for row in rows]
    cut = [
        [*row[:keep], *row[len(row) - max_tokens + keep :]] if len(row) > max_tokens else row
        for keep, row in zip(first, rows, strict=True)
    ]
    return cut, sum(len(row) > max_tokens for row in rows)


def padded(
    rows: Sequence[Sequence[int]], pad_id: int = 0, left: bool = False
) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"]]:
    """Ids and mask of rows of unequal length, as wide as the longest, padded on the right or on the left."""
    width = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        real = slice(width - len(row), width) if left else slice(len(row))
        ids[i, real] = torch.tensor(row)
        mask[i, real] = True
    return ids, mask
