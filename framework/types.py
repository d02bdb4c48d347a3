"""The tensors that travel between roles, and the letters that name their sizes.

Legend, used in every annotation of this package:

    B  rollouts (prompt-response rows)      T  response tokens, right-padded
    P  prompt tokens, left-padded           S  prompt + response tokens
    K  ensemble heads                       V  vocabulary        H  hidden width
    E  encodings of a text by the ensemble's members
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Protocol, Self

from jaxtyping import Bool, Float, Int

from framework.tensor import Tensor

if TYPE_CHECKING:
    import torch


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
        import torch

        at = torch.as_tensor(index, dtype=torch.long)

        def picked(name: str, value: object) -> object:
            if isinstance(value, torch.Tensor):
                return value[at]
            if isinstance(value, tuple):
                return tuple(value[i] for i in index)
            return value.select(index) if isinstance(value, Rows) else value

        return self._mapped(picked)

    def columns(self, width: int) -> Self:
        """The first `width` response tokens of every row, as the same type."""
        import torch

        def cut(name: str, value: object) -> object:
            if isinstance(value, torch.Tensor) and value.dim() == 2 and not name.startswith("prompt"):
                return value[:, :width]
            return value.columns(width) if isinstance(value, Rows) else value

        return self._mapped(cut)

    def to(self, device: "torch.device | str") -> Self:
        """The same rows with every tensor on `device`."""
        import torch

        return self._mapped(lambda _, value: value.to(device) if isinstance(value, torch.Tensor | Rows) else value)

    def _mapped(self, change: Callable[[str, object], object]) -> Self:
        """The same type with each field as `change` of its name and value."""
        return replace(self, **{f.name: change(f.name, getattr(self, f.name)) for f in fields(self)})


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
    """Log-probability of each sampled token under the policy: KL is measured from these. 0 at padding."""
    values: Float[Tensor, "B T"] | None
    """The critic's value before each token, or None without a critic; 0 at padding."""
    ended: Bool[Tensor, "B"]
    """True where the policy chose an end token; False where the response was cut at its limit."""
    group: Int[Tensor, "B"]
    """Rows that answer the same prompt share this number."""
    prompts: tuple[str, ...]
    """The prompt as a user wrote it, before any template: text, or a `Conversation`, which is text too."""
    responses: tuple[str, ...]
    """The response as text, special tokens removed."""
    step: int
    """The step these rows were sampled for."""
    policy_version: int
    """How many updates the sampling weights had seen."""
    drawn_logprobs: Float[Tensor, "B T"] | None = None
    """Log-probability under the distribution that each token was drawn from, where rounding sets it apart: in bfloat16."""

    @property
    def old_logprobs(self) -> Float[Tensor, "B T"]:
        """What the importance ratio corrects for: the distribution that each token was drawn from."""
        return self.logprobs if self.drawn_logprobs is None else self.drawn_logprobs


@dataclass(frozen=True)
class Answers(Rows):
    """Responses of the reference policy to the prompts of a rollout, for rewards that compare."""

    prompts: tuple[str, ...]
    responses: tuple[str, ...]
    ended: Bool[Tensor, "A"]
    """As of `Rollout`."""
    group: Int[Tensor, "A"]
    """The rollout's rows with this number answer the same prompt; answers of one group are adjacent."""
    step: int
    """The rollout's."""


@dataclass(frozen=True)
class Scores:
    """What the reward ensemble, or gold, says of a batch of texts, on the CPU."""

    values: Float[Tensor, "*heads B"]
    """The ensemble's: one row per head, in standard deviations on reference responses. Gold's: in its own unit."""
    num_cut: int = 0
    """Texts that were longer than what scored them can read, and were cut."""
    distances: Float[Tensor, "E B"] | None = None
    """From the training cloud of each encoding that has one, in r.m.s. distances of training texts."""

    @property
    def distance(self) -> Float[Tensor, "B"] | None:
        """The mean over encodings; None where no member keeps a cloud."""
        return None if self.distances is None or not len(self.distances) else self.distances.mean(dim=0)

    @classmethod
    def of_rows(cls, parts: Sequence["Scores"]) -> "Scores":
        """The scores of all texts, from parts that hold some texts each."""
        return cls._joined(parts, dim=-1, num_cut=sum(part.num_cut for part in parts))

    @classmethod
    def of_heads(cls, parts: Sequence["Scores"]) -> "Scores":
        """The scores of all heads, from parts that hold some heads each."""
        return cls._joined(parts, dim=0, num_cut=max(part.num_cut for part in parts))

    @classmethod
    def _joined(cls, parts: Sequence["Scores"], dim: int, num_cut: int) -> "Scores":
        import torch

        values = torch.cat([part.values for part in parts], dim=dim)
        distances = [part.distances for part in parts if part.distances is not None]
        return cls(values, num_cut, torch.cat(distances, dim=dim) if distances else None)


class GoldScorer(Protocol):
    """Judges whole texts; built by a gold component, and the only thing an actor needs to hold."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Scores:
        """Scores of each prompt with its response, one finite value per text in the order given.

        As plain text the two are `joined` (framework/data/conversations.py). A scorer whose tokenizer has a chat
        template reads the prompt's turns and the response as one of the assistant instead.
        """


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


@dataclass(frozen=True)
class Credited(Rows):
    """A shaped rollout with credit assigned to tokens: what an update consumes."""

    shaped: Shaped
    advantages: Float[Tensor, "B T"]
    """0 at padding."""
    returns: Float[Tensor, "B T"]
    """Regression target of the critic; 0 at padding."""


@dataclass(frozen=True)
class PolicyBatch(Rows):
    """What a policy objective sees of one (micro-)batch."""

    logprobs: Float[Tensor, "B T"]
    """Under the policy being updated; carries the gradient."""
    old_logprobs: Float[Tensor, "B T"]
    """Under the policy that sampled."""
    advantages: Float[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    logits: Float[Tensor, "B T V"] | None = None
    """Under the policy being updated, at the sampling temperature; None unless the objective needs them."""
    features: Float[Tensor, "B T H"] | None = None
    """The states that the tokens are predicted from; None unless the objective needs them."""


@dataclass(frozen=True)
class ObjectiveOutput:
    """What an objective returns: a loss per token, still to be reduced, and figures to log."""

    token_loss: Float[Tensor, "B T"]
    """0 at padding. The update multiplies it by the reduction's weights and sums."""
    token_metrics: dict[str, Float[Tensor, "B T"]]
    """Logged as means over real tokens; detached."""


@dataclass(frozen=True, eq=False)
class ReferenceScores:
    """What a reward model says of responses of the reference policy: those it was calibrated on, or answers to prompts.

    Compared by identity, so that what is worked out from it can be kept for it.
    """

    scores: Float[Tensor, "K *texts"]
    """Calibrated, in standard deviations of each head; one row where heads have been aggregated."""
    lengths: Float[Tensor, "*texts"]
    """Characters of each response."""
