"""Fitting reward heads to preference pairs, and calibrating them on reference responses."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from framework.component import Component
from framework.data.preferences import Pair
from framework.errors import RunError, UserError
from framework.models.huggingface import HfTokenizer
from framework.models.reward_ensemble import RewardEnsemble, encode_texts
from framework.preference import bradley_terry
from framework.seeding import numpy_generator
from framework.training.engine import Engine, Optimizer
from framework.training.policy_fit import Progress


class FitReward(Component):
    """A shared encoder with K heads, fitted by Bradley-Terry per head on the same pairs."""

    heads: int = Field(default=1, ge=1)
    """K: 1 is a single reward model."""
    encoder: str | None = None
    """Hub id or folder of the encoder. None: start from the fitted policy, as the source paper does."""
    freeze_encoder: bool = False
    """Fit the heads alone."""
    bootstrap: bool = True
    """With several heads, each sees its own resample of the pairs (Poisson(1) counts)."""
    init_scale: float = Field(default=1.0, gt=0)
    """Initial head weights are N(0, init_scale^2 / (H + 1))."""
    epochs: int = Field(default=2, ge=1)
    """Passes over the training pairs."""
    batch: int = Field(default=64, ge=1)
    """Pairs per step."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of pairs kept for accuracy and calibration."""
    max_tokens: int = Field(default=128, ge=4)
    """Tokens of prompt + response that the encoder reads."""
    max_cut_share: float = Field(default=0.05, ge=0, le=1)
    """Share of texts longer than that; above it the fit is refused."""
    optimizer: Optimizer = Optimizer(lr=1.5e-3, warmup_steps=10, decay="linear", weight_decay=0.01)


def fit_reward(
    ensemble: RewardEnsemble,
    tokenizer: HfTokenizer,
    pairs: Sequence[Pair],
    settings: FitReward,
    engine: Engine,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Fit and calibrate in place; returns held-out accuracy (mean over heads), loss and disagreement.

    The loss is the mean over heads and pairs of -log sigmoid(r_chosen - r_rejected). Calibration uses
    the held-out responses, which are samples of the reference policy.
    """
    train, held = split_pairs(pairs, settings, seed)
    order = numpy_generator(seed, "reward-order")
    counts = _bootstrap_counts(len(train), settings, seed)
    total = fit_steps(len(pairs), settings)
    losses: list[float] = []
    ensemble.train()
    for _ in range(settings.epochs):
        shuffled = order.permutation(len(train))
        for start in range(0, len(train) - settings.batch + 1, settings.batch):
            index = shuffled[start : start + settings.batch].tolist()
            with engine.autocast():
                chosen, rejected = _score_pairs(ensemble, tokenizer, [train[i] for i in index], settings)
            weights = counts[:, index].to(chosen.device)
            loss = (bradley_terry(chosen, rejected) * weights).mean()
            value, at = float(loss.detach()), f"at step {len(losses)}; lower fit_reward.optimizer.lr"
            if not math.isfinite(value):
                raise RunError(f"fit-reward: the loss is {value} {at}")
            engine.backward(loss)
            if not math.isfinite(engine.step()):
                raise RunError(f"fit-reward: the gradient is not finite {at}")
            losses.append(value)
            if progress:
                progress(len(losses), total, {"loss": losses[-1]})
    ensemble.eval()
    return {"loss": float(np.mean(losses[-max(1, total // 10) :]))} | _hold_out(
        ensemble, tokenizer, held, settings
    )


def fit_steps(num_pairs: int, settings: FitReward) -> int:
    """Optimiser steps of a fit to `num_pairs` pairs, the held-out ones among them."""
    return settings.epochs * ((num_pairs - num_held_out(num_pairs, settings)) // settings.batch)


def num_held_out(num_pairs: int, settings: FitReward) -> int:
    """Pairs kept from the fit; at least one."""
    return max(1, round(num_pairs * settings.held_out))


def split_pairs(pairs: Sequence[Pair], settings: FitReward, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Training and held-out pairs, disjoint, drawn by seed.

    Raises:
        UserError: fewer training pairs than one batch.
    """
    order = numpy_generator(seed, "reward-split").permutation(len(pairs)).tolist()
    num_held = num_held_out(len(pairs), settings)
    held, train = order[:num_held], order[num_held:]
    if len(train) < settings.batch:
        raise UserError(
            f"{len(train)} training pairs are fewer than fit_reward.batch={settings.batch}: "
            "raise label.pairs or lower the batch"
        )
    return [pairs[i] for i in train], [pairs[i] for i in held]


def _bootstrap_counts(num_pairs: int, settings: FitReward, seed: int) -> Float[Tensor, "K N"]:
    """How often each head's resample holds each pair; all ones for one head or without bootstrap."""
    if settings.heads == 1 or not settings.bootstrap:
        return torch.ones(settings.heads, num_pairs)
    drawn = numpy_generator(seed, "bootstrap").poisson(1.0, (settings.heads, num_pairs))
    return torch.from_numpy(drawn).float()


def _score_pairs(
    ensemble: RewardEnsemble, tokenizer: HfTokenizer, pairs: Sequence[Pair], settings: FitReward
) -> tuple[Float[Tensor, "K B"], Float[Tensor, "K B"]]:
    """Raw scores of chosen and rejected responses, in one pass over both."""
    end = tokenizer.eos_token_id if ensemble.causal else None
    prompts = [p.prompt for p in pairs] * 2
    responses = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    ids, mask, num_cut = encode_texts(tokenizer, prompts, responses, settings.max_tokens, end)
    if num_cut > settings.max_cut_share * len(prompts) + 1:
        raise UserError(
            f"{num_cut} of {len(prompts)} texts are longer than fit_reward.max_tokens={settings.max_tokens}: "
            "raise it, or fit_reward.max_cut_share to accept the cut"
        )
    device = ensemble.heads.weight.device
    scores = ensemble.raw_scores(ids.to(device), mask.to(device))
    return scores[:, : len(pairs)], scores[:, len(pairs) :]


@torch.no_grad()
def _hold_out(
    ensemble: RewardEnsemble, tokenizer: HfTokenizer, held: Sequence[Pair], settings: FitReward
) -> dict[str, float]:
    """Calibrate on the held-out responses and measure accuracy on the held-out pairs."""
    parts = [
        _score_pairs(ensemble, tokenizer, held[i : i + settings.batch], settings)
        for i in range(0, len(held), settings.batch)
    ]
    chosen = torch.cat([c for c, _ in parts], dim=1)
    rejected = torch.cat([r for _, r in parts], dim=1)
    raw = torch.cat([chosen, rejected], dim=1).float()
    ensemble.calibrate(raw)
    scored = (raw - ensemble.centre.unsqueeze(1)) / ensemble.scale.unsqueeze(1)
    clean = torch.tensor([not p.flipped for p in held], device=chosen.device)
    right = (chosen > rejected).float()
    true_right = torch.where(clean, right, 1 - right)
    return {
        "accuracy_on_labels": float(right.mean()),
        "accuracy_on_gold": float(true_right.mean()),
        "disagreement": float(scored.std(dim=0, correction=0).mean()),
        "held_out_pairs": float(len(held)),
    }
