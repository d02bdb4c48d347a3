"""Supervised fitting of a policy to a corpus of (prompt, response) texts."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from pydantic import Field

from framework.component import Component
from framework.data.conversations import Conversation, joined
from framework.errors import UserError
from framework.seeding import numpy_generator
from framework.tensor import Tensor
from framework.training.engine import Optimizer

if TYPE_CHECKING:
    from framework.models.causal import CausalPolicy
    from framework.models.huggingface import HfTokenizer
    from framework.training.fit import FitSetting
    from framework.training.torch_engine import TorchEngine


class FitPolicy(Component):
    """Supervised fine-tuning. Zero steps keep the model as it is."""

    steps: int = Field(default=280, ge=0)
    """Optimiser steps."""
    batch: int = Field(default=64, ge=1)
    """Texts per step, over all workers of the fit."""
    max_tokens: int = Field(default=64, ge=2)
    """Tokens of a text that are learnt from; the rest is cut."""
    optimizer: Optimizer = Optimizer(lr=5e-3, warmup_steps=20, decay="linear", weight_decay=0.01)


def fit_policy(
    policy: "CausalPolicy",
    tokenizer: "HfTokenizer",
    corpus: Sequence[tuple[str, str]],
    settings: FitPolicy,
    setting: "FitSetting",
    save_every: int = 100,
    instruction: str | None = None,
) -> dict[str, float]:
    """Fit in place; returns the mean loss (nats per token) over the last tenth of the steps.

    The loss is on response tokens and the end token, not on the prompt. In a fit over several processes all come
    to the same policy. Texts whose prompt alone is `max_tokens` long are left out, and counted as `nothing_to_learn`.

    Args:
        save_every: optimiser steps between saves of an unfinished fit.
        instruction: what stands around prompts in sampling.

    Raises:
        UserError: a text is longer than the model's context, or no text has a token to learn.
        RunError: a loss or a gradient that is not finite.
    """
    from framework.models.causal import ResponseLoss
    from framework.models.encoding import padded
    from framework.training.fit import FitLoop, assert_divides

    shard, size = setting.shard, settings.batch
    assert_divides("sft", size, shard)
    texts = encode_corpus(tokenizer, corpus, settings.max_tokens, instruction)
    rows = [row for row in texts if _learnt(*row)]
    if lost := len(texts) - len(rows):
        what = f"{lost} of {len(texts)} texts have no token to learn within sft.max_tokens={settings.max_tokens}"
        if not rows:
            raise UserError(f"sft: {what}: raise it")
        warnings.warn(f"sft: {what}, and are left out: raise it to learn from them", stacklevel=2)
    longest = max(len(row) for row, _ in rows)
    if policy.context is not None and longest > policy.context:
        raise UserError(
            f"sft: a text has {longest} tokens, over the model's context of {policy.context}; lower sft.max_tokens"
        )
    draws = numpy_generator(setting.seed, "sft-order")
    passes = -(-settings.steps * size // len(rows))
    order = [i for _ in range(passes) for i in draws.permutation(len(rows)).tolist()]

    def loss(engine: "TorchEngine", step: int) -> Float[Tensor, ""]:
        batch = order[step * size : (step + 1) * size]
        mine = [rows[i] for i in shard.take(batch)]
        ids, learn = padded([row for row, _ in mine])
        for at, (_, skip) in enumerate(mine):
            learn[at, :skip] = False
        with engine.autocast():
            total = engine(ids.to(setting.device), learn.to(setting.device))
        learnt = sum(_learnt(*rows[i]) for i in batch)  # of the whole batch
        return shard.gather((total / learnt).reshape(1, 1)).sum()

    loop = FitLoop("sft", setting, settings.steps, save_every)
    module = ResponseLoss(policy).to(setting.device)
    losses = loop.fit(module, "policy", settings.steps, settings.optimizer, loss, ("sft-dropout",))
    tail = losses[-max(1, len(losses) // 10) :]
    return {"loss": float(np.mean(tail)) if tail else float("nan"), "nothing_to_learn": float(lost)}


def _learnt(row: Sequence[int], skip: int) -> int:
    """Tokens of a row that are learnt: its first one is predicted from nothing, and never is."""
    return max(0, len(row) - max(skip, 1))


def encode_corpus(
    tokenizer: "HfTokenizer", corpus: Sequence[tuple[str, str]], max_tokens: int, instruction: str | None = None
) -> list[tuple[list[int], int]]:
    """Token ids of prompt + response + one end token, and how many of them are prompt.

    The prompt stands as in sampling: with the instruction, and through the chat template where a rollout's would. There
    a response begins without the blank that joins it to a prompt of plain text.
    """
    from framework.models.encoding import open_ids, opening

    openings = [opening(tokenizer, prompt, instruction) for prompt, _ in corpus]
    texts = [
        (text + (reply if isinstance(prompt, Conversation) else reply.removeprefix(" ")), True)
        if templated
        else (joined(prompt, reply), False)
        for (text, templated), (prompt, reply) in zip(openings, corpus, strict=True)
    ]
    end, rows = tokenizer.eos_token_id, []
    for prompt_ids, ids in zip(open_ids(tokenizer, openings), open_ids(tokenizer, texts), strict=True):
        # A token that prompt and response share, as they meet, is learnt.
        shared = next((i for i, (a, b) in enumerate(zip(prompt_ids, ids, strict=False)) if a != b), len(prompt_ids))
        ended = len(ids) > shared and ids[-1] == end  # a response may spell its end
        rows.append(((ids if ended else [*ids, end])[:max_tokens], shared))
    return rows
