"""The tensors that travel between roles, and the letters that name their sizes.

Legend, used in every annotation of this package:

    B  rollouts (prompt-response rows)      T  response tokens, right-padded
    P  prompt tokens, left-padded           S  prompt + response tokens
    K  ensemble heads                       V  vocabulary        H  hidden width
    E  encodings of a text by the ensemble's members
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Base of the batch types: every field that is a tensor or tuple has one entry per row."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def rows(self, start: int, stop: int) -> Self:
        """The rows `start:stop`, as the same type."""
        return self.select(list(range(start, min(stop, len(self)))))

    def select(self, index: list[int]) -> Self:
        """The rows at `index`, in that order, as the same type."""
        picked: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                picked[field.name] = value[torch.as_tensor(index, dtype=torch.long)]
            elif isinstance(value, tuple):
                picked[field.name] = tuple(value[i] for i in index)
            elif isinstance(value, Rows):
                picked[field.name] = value.select(index)
        return replace(self, **picked)

    def columns(self, width: int) -> Self:
        """The first `width` response tokens of every row, as the same type."""
        cut: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Rows):
                cut[field.name] = value.columns(width)
            elif isinstance(value, Tensor) and value.dim() == 2 and not field.name.startswith("prompt"):
                cut[field.name] = value[:, :width]
        return replace(self, **cut)

    def to(self, device: torch.device | str) -> Self:
        """The same rows with every tensor on `device`."""
        moved: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor | Rows):
                moved[field.name] = value.to(device)
        return replace(self, **moved)


@dataclass(frozen=True)
class Rollout(Rows):
    """Responses that the policy sampled, with what it knew while sampling."""

    prompt_ids: Int[Tensor, "B P"]
    """Prompt tokens, left-padded."""
    prompt_mask: Bool[Tensor, "B P"]
    """True on real prompt tokens."""
    response_ids: Int[Tensor, "B T"]
    """Sampled tokens, right-padded; the end token, where there is one, is included."""
    mask: Bool[Tensor, "B T"]
    """True on real response tokens, the end token included."""
    logprobs: Float[Tensor, "B T"]
    """Log-probability of each sampled token under the distribution it was drawn from; 0 at padding."""
    values: Float[Tensor, "B T"] | None
    """The critic's value before each token, or None without a critic; 0 at padding."""
    ended: Bool[Tensor, "B"]
    """True where the policy chose an end token; False where the response was cut at its limit."""
    group: Int[Tensor, "B"]
    """Rows that answer the same prompt share this number."""
    prompts: tuple[str, ...]
    """The prompt as a user wrote it, before any template."""
    responses: tuple[str, ...]
    """The response as text, special tokens removed."""
    step: int
    """The step these rows were sampled for."""
    policy_version: int
    """How many updates the sampling weights had seen."""


@dataclass(frozen=True)
class Answers(Rows):
    """Responses of the reference policy to the prompts of a rollout, for rewards that compare."""

    prompts: tuple[str, ...]
    responses: tuple[str, ...]
    group: Int[Tensor, "A"]
    """The rollout's rows with this number answer the same prompt; answers of one group are adjacent."""
    step: int
    """The rollout's."""


@dataclass(frozen=True)
class Scores:
    """What the reward ensemble says of some responses."""

    values: Float[Tensor, "K B"]
    """Each head's score, in standard deviations on reference responses."""
    distances: Float[Tensor, "E B"]
    """From the training cloud of each encoding that has one, in r.m.s. distances of training texts."""

    @property
    def distance(self) -> Float[Tensor, "B"] | None:
        """The mean over encodings; None where no member keeps a cloud."""
        return self.distances.mean(dim=0) if len(self.distances) else None


@dataclass(frozen=True)
class Shaped(Rows):
    """A rollout with what it earned: the reward per token and the KL it spent."""

    rollout: Rollout
    reference: Float[Tensor, "B T"]
    """Log-probability of each sampled token under the reference policy; 0 at padding."""
    reward: Float[Tensor, "B"]
    """What each response is paid: what aggregation and transforms made of the heads' scores."""
    token_rewards: Float[Tensor, "B T"]
    """Reward placed on tokens, the KL penalty included where the shaping puts it there."""
    kl_nats: Float[Tensor, "B"]
    """k1 estimate of KL(policy || reference) per sequence, in nats."""
    kl_coef: float
    """The coefficient in force, reward units per nat."""

    def __len__(self) -> int:
        return len(self.rollout)


@dataclass(frozen=True)
class Credited(Rows):
    """A shaped rollout with credit assigned to tokens: what an update consumes."""

    shaped: Shaped
    advantages: Float[Tensor, "B T"]
    """0 at padding."""
    returns: Float[Tensor, "B T"]
    """Regression target of the critic; 0 at padding."""

    def __len__(self) -> int:
        return len(self.shaped)


@dataclass(frozen=True)
class PolicyBatch(Rows):
    """What a policy objective sees of one (micro-)batch."""

    logprobs: Float[Tensor, "B T"]
    """Under the policy being updated; carries the gradient."""
    old_logprobs: Float[Tensor, "B T"]
    """Under the policy that sampled."""
    advantages: Float[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]


@dataclass(frozen=True)
class ObjectiveOutput:
    """What an objective returns: a loss per token, still to be reduced, and figures to log."""

    token_loss: Float[Tensor, "B T"]
    """0 at padding. The update multiplies it by the reduction's weights and sums."""
    token_metrics: dict[str, Float[Tensor, "B T"]]
    """Logged as means over real tokens; detached."""


@dataclass(frozen=True, eq=False)
class ReferenceScores:
    """What a reward model says of its reference responses: held-out samples of the reference policy.

    Compared by identity, so that what is worked out from it can be kept for it.
    """

    scores: Float[Tensor, "K N"]
    """Calibrated scores, in standard deviations of each head."""
    lengths: Float[Tensor, "N"]
    """Characters of each response."""
