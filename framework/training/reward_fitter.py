"""How one module is fitted to preference pairs; an ensemble's recipe asks for it once per part."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from framework.data.preferences import Pair, both_sides
from framework.ensembles.recipe import Part
from framework.errors import UserError
from framework.models.encoders import load_encoder, reads_and_takes
from framework.models.encoding import padded, tokenize_texts
from framework.models.huggingface import HfTokenizer
from framework.models.reward_heads import Member, RewardHeads
from framework.preference import preference_loss
from framework.seeding import derive, numpy_generator
from framework.training.fit import FitLoop, FitSetting
from framework.training.odin import odin_penalty
from framework.training.reward_settings import FitReward
from framework.training.torch_engine import TorchEngine

Fitted = TypeVar("Fitted", bound=Member)


@dataclass(frozen=True)
class EncodedPairs:
    """Training pairs as the encoder reads them."""

    chosen: list[list[int]]
    rejected: list[list[int]]
    labels: dict[str, Float[Tensor, "N"]]
    """Target, margin and weight, as `preference_loss` takes them."""
    lengths: Float[Tensor, "N two"]
    """Characters of the chosen and the rejected response."""
    num_cut: int
    """Texts that lost their start."""

    def __len__(self) -> int:
        return len(self.chosen)


class RewardFitter:
    """Fits the parts of `settings.ensemble`, each from where a stopped fit left it."""

    def __init__(
        self, settings: FitReward, source: str, tokenizer: HfTokenizer, pairs: Sequence[Pair], setting: FitSetting
    ) -> None:
        """`source` is the folder or hub id of the encoder, `pairs` those to train on."""
        self.settings, self.source, self.setting = settings, source, setting
        self.seed, self.device = setting.seed, setting.device
        self.parts = settings.ensemble.parts()
        self.pairs = encode_pairs(tokenizer, pairs, settings, *reads_and_takes(source))
        total_steps = sum(self.steps(part) for part in self.parts.values())
        self.loop = FitLoop("fit_reward", setting, total_steps, settings.save_every)
        self.losses: list[float] = []
        """Mean loss over the last tenth of each part."""

    def seed_member(self, member: int) -> None:
        """Set torch's global generator to the member's own seed, before something is drawn from it."""
        torch.manual_seed(derive(self.seed, "reward", member) % 2**32)

    def start(
        self, member: int, heads: int = 1, init_scales: tuple[float, ...] = (1.0,), dropout: float = 0.0
    ) -> RewardHeads:
        """The encoder as it is before any reward fit, with heads drawn from the member's own seed."""
        encoder = load_encoder(self.source)
        if self.settings.odin:  # quality heads, then as many length heads
            heads, init_scales = 2 * heads, init_scales * (2 if len(init_scales) > 1 else 1)
        self.seed_member(member)
        return RewardHeads(encoder, heads, init_scales, dropout).to(self.device)

    def steps(self, part: Part) -> int:
        """Optimiser steps of a part."""
        return (part.epochs or self.settings.epochs) * (len(self._share(part)) // self.settings.batch)

    def fit(self, module: Fitted, name: str) -> Fitted:
        """The `module`, fitted in place as the recipe's part `name`, from where a stopped fit left it; errors as of `FitLoop`."""
        part, optimizer = self.parts[name], self.settings.optimizer
        optimizer = optimizer.model_copy(update={"lr": optimizer.lr * part.lr_factor})
        total, share, counts = self.steps(part), self._share(part), self._counts(module, part)

        def loss(engine: TorchEngine, step: int) -> Float[Tensor, ""]:
            return self._loss(module, engine, self._batch(share, part.order, step), counts)

        losses = self.loop.fit(module, name, total, optimizer, loss, ("reward-dropout", part.order))
        self.losses.append(sum(tail := losses[-max(1, total // 10) :]) / len(tail))
        return module

    def _share(self, part: Part) -> list[int]:
        """The pairs that a part is fitted to."""
        fixed = numpy_generator(self.seed, "reward-parts").permutation(len(self.pairs)).tolist()
        start, stop = (round(share * len(self.pairs)) for share in part.pairs)
        return sorted(fixed[start:stop])

    def _batch(self, share: list[int], order: int, step: int) -> list[int]:
        """The pairs of one step; a pass leaves out what does not fill a batch."""
        epoch, at = divmod(step, len(share) // self.settings.batch)
        shuffled = _shuffled(len(share), self.seed, order, epoch)
        return [share[i] for i in shuffled[at * self.settings.batch : (at + 1) * self.settings.batch]]

    def _counts(self, module: Member, part: Part) -> Float[Tensor, "K N"]:
        """How often each head's resample holds each pair; all ones without bootstrap."""
        shape = (self._quality_heads(module), len(self.pairs))
        if not part.bootstrap:
            return torch.ones(shape)
        return torch.from_numpy(numpy_generator(self.seed, "bootstrap").poisson(1.0, shape)).float()

    def _quality_heads(self, module: Member) -> int:
        return module.num_heads // (2 if self.settings.odin else 1)

    def _loss(
        self, module: Member, engine: TorchEngine, index: list[int], counts: Float[Tensor, "K N"]
    ) -> Float[Tensor, ""]:
        """The loss of a batch; under ODIN pairs are judged by the sum of quality and length heads."""
        settings, pairs, shard = self.settings, self.pairs, self.setting.shard
        mine = shard.take(index)
        ids, mask = padded([pairs.chosen[i] for i in mine] + [pairs.rejected[i] for i in mine])
        with engine.autocast():
            raw = engine(ids.to(self.device), mask.to(self.device))
        chosen, rejected = (shard.gather(part) for part in raw.split(len(mine), dim=1))
        heads = self._quality_heads(module)
        loss = preference_loss(
            _summed(chosen, heads),
            _summed(rejected, heads),
            **{name: values[index].to(raw.device) for name, values in pairs.labels.items()},
            counts=counts[:, index].to(raw.device),
            score_l2=settings.score_l2,
            label_smoothing=settings.label_smoothing,
        )
        if settings.odin is None:
            return loss
        assert isinstance(module, RewardHeads)
        both = torch.cat([chosen, rejected], dim=1)
        lengths = pairs.lengths[index].T.reshape(-1).to(raw.device)
        weight = module.heads.weight
        return loss + odin_penalty(both[:heads], both[heads:], lengths, weight[:heads], weight[heads:], settings.odin)


def encode_pairs(
    tokenizer: HfTokenizer, pairs: Sequence[Pair], settings: FitReward, causal: bool, positions: int | None = None
) -> EncodedPairs:
    """Token rows and labels of the pairs.

    A `UserError` where too many texts are longer than `settings.max_tokens`, or one than the encoder's `positions`.
    """
    end = tokenizer.eos_token_id if causal else None
    prompts, responses, ended = both_sides(pairs)
    rows, num_cut = tokenize_texts(tokenizer, prompts, responses, settings.max_tokens, end, ended)
    refuse_cut(num_cut, len(rows), settings, "training texts")
    longest = max((len(row) for row in rows), default=0)
    if positions is not None and longest > positions:
        mend = f"lower fit_reward.max_tokens={settings.max_tokens} to that"
        raise UserError(f"a text has {longest} tokens, and the encoder takes {positions}: {mend}")
    return EncodedPairs(
        chosen=rows[: len(pairs)],
        rejected=rows[len(pairs) :],
        labels={
            name: torch.tensor([float(getattr(p, name)) for p in pairs]) for name in ("target", "margin", "weight")
        },
        lengths=torch.tensor([[float(len(p.chosen)), float(len(p.rejected))] for p in pairs]).reshape(-1, 2),
        num_cut=num_cut,
    )


def refuse_cut(num_cut: int, count: int, settings: FitReward, what: str) -> None:
    """Raise a UserError where too many of `count` texts had to be cut."""
    if num_cut > settings.max_cut_share * count:
        raise UserError(
            f"{num_cut} of {count} {what} are longer than fit_reward.max_tokens={settings.max_tokens}: "
            "raise it, or fit_reward.max_cut_share to accept the cut"
        )


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, order: int, epoch: int) -> tuple[int, ...]:
    return tuple(numpy_generator(seed, "reward-order", order, epoch).permutation(count).tolist())


def _summed(scores: Float[Tensor, "J B"], heads: int) -> Float[Tensor, "K B"]:
    """Quality and length heads added; without length heads the scores as they are."""
    return scores if len(scores) == heads else scores[:heads] + scores[heads:]
