"""Supervised fitting of a policy to a corpus of (prompt, response) texts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import Field

from framework.component import Component
from framework.errors import UserError
from framework.seeding import numpy_generator
from framework.tensor import Tensor
from framework.training.engine import Optimizer

if TYPE_CHECKING:
    from framework.models.causal import CausalPolicy
    from framework.models.huggingface import HfTokenizer
    from framework.training.fit import FitSetting
    from framework.training.torch_engine import TorchEngine

SAVE_EVERY = 100
"""Optimiser steps between saves of an unfinished fit."""


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
    save_every: int = SAVE_EVERY,
) -> dict[str, float]:
    """Fit in place; returns the mean loss (nats per token) over the last tenth of the steps.

    The loss is on response tokens and the end token, not on the prompt. In a fit over several processes all come
    to the same policy.

    Raises:
        UserError: a text is longer than the model's context.
        RunError: a loss or a gradient that is not finite.
    """
    from framework.models.causal import ResponseLoss
    from framework.training.fit import FitLoop, assert_divides

    shard, size = setting.shard, settings.batch
    assert_divides("sft", size, shard)
    rows = encode_corpus(tokenizer, corpus, settings.max_tokens)
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
        ids, learn = pad_rows([rows[i] for i in shard.take(batch)])
        with engine.autocast():
            total = engine(ids.to(setting.device), learn.to(setting.device))
        # Of the whole batch: a text's first token is predicted from nothing, and is never learnt.
        learnt = sum(max(0, len(row) - max(skip, 1)) for row, skip in (rows[i] for i in batch))
        return shard.gather((total / learnt).reshape(1, 1)).sum()

    loop = FitLoop("sft", setting, settings.steps, save_every)
    module = ResponseLoss(policy).to(setting.device)
    losses = loop.fit(module, "policy", settings.steps, settings.optimizer, loss, ("sft-dropout",))
    tail = losses[-max(1, len(losses) // 10) :]
    return {"loss": float(np.mean(tail)) if tail else float("nan")}


def encode_corpus(
    tokenizer: "HfTokenizer", corpus: Sequence[tuple[str, str]], max_tokens: int
) -> list[tuple[list[int], int]]:
    """Token ids of prompt + response + end token, and how many of them are prompt."""
    prompts = tokenizer([p for p, _ in corpus])["input_ids"]
    texts = tokenizer([p + r for p, r in corpus])["input_ids"]
    end = tokenizer.eos_token_id
    return [([*t, end][:max_tokens], len(p)) for p, t in zip(prompts, texts, strict=True)]


def pad_rows(rows: Sequence[tuple[list[int], int]]) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"]]:
    """Right-padded ids, and True where a token is to be learnt."""
    from framework.models.encoding import pad_right

    ids, learn = pad_right([row for row, _ in rows])
    for i, (_, skip) in enumerate(rows):
        learn[i, :skip] = False
    return ids, learn
