"""Texts as a reward model reads them: token rows of prompt + response, right-padded."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from framework.data.conversations import joined, turns_of
from framework.models.chat import open_ids, through_template
from framework.models.huggingface import HfTokenizer

Ended: TypeAlias = Sequence[bool] | None
"""Whether each response ended by itself; None: all did."""


def whole_texts(
    tokenizer: HfTokenizer, prompts: Sequence[str], responses: Sequence[str], ended: Ended = None
) -> list[str]:
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

    A causal encoder is read at its last token: `end_id` is appended there where the response ended by itself, and nothing
    else that closes a text. Shown after a response that was cut off, it would make it look ended, and never to end would
    cost nothing.
    Cutting removes the *start* of a text, so the response is always seen.
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
