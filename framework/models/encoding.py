"""Texts as a reward model reads them: token rows of prompt + response, right-padded."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from framework.models.huggingface import HfTokenizer


def whole_texts(
    tokenizer: HfTokenizer, prompts: Sequence[str], responses: Sequence[str], ended: Sequence[bool] | None = None
) -> list[str]:
    """Prompt and response as one text: two turns of the tokenizer's chat template, where it has one.

    The template closes the second turn only where the response ended by itself; None: all did.
    """
    if not tokenizer.chat_template:
        return [p + r for p, r in zip(prompts, responses, strict=True)]
    turns = (
        [{"role": "user", "content": p}, {"role": "assistant", "content": r}]
        for p, r in zip(prompts, responses, strict=True)
    )
    return [
        tokenizer.apply_chat_template(each, tokenize=False, continue_final_message=not whole)
        for each, whole in zip(turns, ended or [True] * len(responses), strict=True)
    ]


def tokenize_texts(
    tokenizer: HfTokenizer,
    prompts: Sequence[str],
    responses: Sequence[str],
    max_tokens: int,
    end_id: int | None,
    ended: Sequence[bool] | None = None,
) -> tuple[list[list[int]], int]:
    """Token ids of prompt + response, and how many rows had to be cut.

    A causal encoder is read at its last token: `end_id` is appended there where the response ended by itself (None:
    all did). Shown after a response that was cut off, it would make it look ended, and never to end would cost nothing.
    Cutting removes the *start* of a text, so the response is always seen.
    """
    texts = whole_texts(tokenizer, prompts, responses, ended)
    if not texts:
        return [], 0
    # A template writes its own special tokens; a causal encoder wants none but the end.
    special = end_id is None and not tokenizer.chat_template
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=special)["input_ids"]
    if end_id is not None:
        whole = ended or [True] * len(rows)
        # A text without a token is read at its end token all the same: there is nothing else to read.
        rows = [[*row, end_id] if closed or not row else row for row, closed in zip(rows, whole, strict=True)]
    num_cut = sum(len(row) > max_tokens for row in rows)
    return [row[-max_tokens:] for row in rows], num_cut


def pad_right(rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"]]:
    """Ids and mask of rows of unequal length, as wide as the longest."""
    width = max((len(row) for row in rows), default=0)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    return ids, mask
