"""Supervised fitting of a policy to a corpus of (prompt, response) texts."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from framework.component import Component
from framework.errors import RunError, UserError
from framework.models.causal import CausalPolicy
from framework.models.huggingface import HfTokenizer
from framework.seeding import numpy_generator
from framework.training.engine import Engine, Optimizer


class FitPolicy(Component):
    """Supervised fine-tuning. Zero steps keep the model as it is."""

    steps: int = Field(default=280, ge=0)
    """Optimiser steps."""
    batch: int = Field(default=64, ge=1)
    """Texts per step."""
    max_tokens: int = Field(default=64, ge=2)
    """Tokens of a text that are learnt from; the rest is cut."""
    optimizer: Optimizer = Optimizer(lr=5e-3, warmup_steps=20, decay="linear", weight_decay=0.01)


Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (step, steps, figures) as a fit goes on."""


def fit_policy(
    policy: CausalPolicy,
    tokenizer: HfTokenizer,
    corpus: Sequence[tuple[str, str]],
    settings: FitPolicy,
    engine: Engine,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Fit in place; returns the mean loss (nats per token) over the last tenth of the steps.

    The loss is on response tokens and the end token, not on the prompt.

    Raises:
        UserError: a text is longer than the model's context.
        RunError: a loss or a gradient that is not finite.
    """
    rows = encode_corpus(tokenizer, corpus, settings.max_tokens)
    longest = max(len(row) for row, _ in rows)
    if longest > policy.context:
        raise UserError(
            f"fit-policy: a text has {longest} tokens, over the model's context of {policy.context}; "
            "lower sft.max_tokens"
        )
    order = numpy_generator(seed, "sft-order")
    queue: list[int] = []
    losses: list[float] = []
    device = policy.output_weight.device
    policy.train()
    for step in range(settings.steps):
        while len(queue) < settings.batch:
            queue.extend(order.permutation(len(rows)).tolist())
        picked, queue = queue[: settings.batch], queue[settings.batch :]
        ids, learn = pad_rows([rows[i] for i in picked])
        with engine.autocast():
            loss = response_loss(policy, ids.to(device), learn.to(device))
        if not bool(torch.isfinite(loss)):
            raise RunError(
                f"fit-policy: the loss is {float(loss.detach())} at step {step}; lower sft.optimizer.lr"
            )
        engine.backward(loss)
        if not math.isfinite(engine.step()):
            raise RunError(f"fit-policy: the gradient is not finite at step {step}; lower sft.optimizer.lr")
        losses.append(float(loss.detach()))
        if progress:
            progress(step + 1, settings.steps, {"loss": losses[-1]})
    policy.eval()
    tail = losses[-max(1, len(losses) // 10) :]
    return {"loss": float(np.mean(tail)) if tail else float("nan")}


def encode_corpus(
    tokenizer: HfTokenizer, corpus: Sequence[tuple[str, str]], max_tokens: int
) -> list[tuple[list[int], int]]:
    """Token ids of prompt + response + end token, and how many of them are prompt."""
    prompts = tokenizer([p for p, _ in corpus])["input_ids"]
    texts = tokenizer([p + r for p, r in corpus])["input_ids"]
    end = tokenizer.eos_token_id
    return [([*t, end][:max_tokens], len(p)) for p, t in zip(prompts, texts, strict=True)]


def pad_rows(rows: Sequence[tuple[list[int], int]]) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"]]:
    """Right-padded ids, and True where a token is to be learnt."""
    width = max(len(row) for row, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    learn = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (row, skip) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        learn[i, skip : len(row)] = True
    return ids, learn


def response_loss(
    policy: CausalPolicy, ids: Int[Tensor, "B S"], learn: Bool[Tensor, "B S"]
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood per learnt token, in nats."""
    states = policy.hidden_states(ids, torch.ones_like(learn[:, :1]))[:, :-1]
    wanted = learn[:, 1:]
    logits = (states[wanted] @ policy.output_weight.T).float()
    return F.cross_entropy(logits, ids[:, 1:][wanted])
