"""The online loop: the policy samples, the proxy scores, the policy learns."""

from collections.abc import Callable
from typing import ClassVar, Literal, Self

from jaxtyping import Float
from pydantic import Field, model_validator

from framework.advantages import Advantage, Gae
from framework.aggregation import Aggregation
from framework.gold_turn import GoldTurn
from framework.kl import Fixed, KlController
from framework.methods.method import Method
from framework.objectives import Objective, PpoClip
from framework.shaping import KlInReward, Shaping
from framework.tensor import Tensor
from framework.training.policy_update import Update
from framework.transforms import Transforms
from framework.transforms.apply import apply_transforms
from framework.types import ReferenceScores, Rollout
from framework.worlds import World


class Online(Method):
    """Rollouts, each followed by one update of the policy on its proxy reward (PPO by default)."""

    kind: Literal["online"] = "online"
    covers: ClassVar[tuple[str, ...]] = (
        "world", "gold", "golds", "max_new_tokens", "temperature", "instruction", "aggregation", "precision", "scorer_rows"
    )  # fmt: skip
    measures: ClassVar[tuple[str, ...]] = ("proxy", "gold", "kl_nats", "kl_exact_nats", "disagreement", "ended")

    steps: int = Field(default=160, ge=1)
    """Rollouts, each followed by one update."""
    prompts_per_step: int = Field(default=16, ge=1)
    """Prompts sampled from in each step."""
    samples_per_prompt: int = Field(default=4, ge=1)
    """Responses to each prompt; they form a group for leave-one-out and group-mean baselines."""

    transforms: Transforms = ()
    """What is made of the aggregated reward, one after the other: clip, length_calibration, log_sigmoid, par."""
    missing_end_penalty: float | None = Field(default=None, ge=0)
    """Reward units off for a response that is cut off at `max_new_tokens`. None: 1 in the embedded world, whose texts
    have an end, else 0; a warning is raised when the share of responses that end by themselves falls."""
    shaping: Shaping = KlInReward()
    """Where the KL penalty acts."""
    kl: KlController = Fixed(coef=0.01)
    """How the KL coefficient moves."""
    advantage: Advantage = Gae()
    objective: Objective = PpoClip()
    update: Update = Update()

    gold_every: int = Field(default=1, ge=1)
    """Steps between gold measurements; the last step is always measured."""
    gold_at: tuple[int, ...] = ()
    """Steps at which gold is measured, and no others: for a signal that is costly. Empty: see `gold_every`."""
    stop_at_gold_turn: GoldTurn | None = None
    """Ends the run once gold has turned with stated confidence. None: it goes on to the last step."""
    exact_kl_every: int = Field(default=10, ge=0)
    """Steps between exact full-vocabulary KL measurements on a few rows; 0 never."""
    exact_kl_rows: int = Field(default=16, ge=1)
    """Rollouts that exact KL is measured on, of as many prompts as can be: each needs tokens x vocabulary numbers twice."""
    save_every: int = Field(default=25, ge=1)
    """Steps between checkpoints; the last step is always saved."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints kept; older ones are deleted."""

    @property
    def length(self) -> int:
        return self.steps

    @property
    def budget(self) -> float | None:
        return self.kl.set_point

    @property
    def sets_kl(self) -> tuple[str, ...]:
        return tuple(f"kl.{name}" for name in self.kl.sets_kl)

    @property
    def gold_steps(self) -> tuple[int, ...]:
        return tuple(step for step in range(self.steps) if self.gold_due(step))

    @property
    def bound_to_length(self) -> str | None:
        if self.update.optimizer.decay != "constant":
            return "train.update.optimizer.decay falls to zero at its last step"
        if self.stop_at_gold_turn and not self.gold_at and (self.steps - 1) % self.gold_every:
            what = "has looked at the gold of its last step, which a longer run would not measure"
            return f"train.stop_at_gold_turn {what}"
        return None

    def gold_due(self, step: int) -> bool:
        """Whether gold is measured at this step."""
        return step in self.gold_at if self.gold_at else is_due(step, self.gold_every, self.steps)

    @property
    def rollouts(self) -> int:
        """Rows per step."""
        return self.prompts_per_step * self.samples_per_prompt

    @property
    def needs_answers(self) -> int:
        """Answers of the reference policy to each prompt that the transforms compare with; usually 0."""
        return max((transform.needs_answers for transform in self.transforms), default=0)

    def describe(self, max_new_tokens: int) -> list[str]:
        rows, parts, epochs = self.rollouts, self.update.minibatches, self.update.epochs
        micro = self.update.micro_batch or rows // parts
        passes = -(-(rows // parts) // micro)
        return [
            f"a step: {self.prompts_per_step} prompts x {self.samples_per_prompt} samples = {rows} rollouts of up to "
            f"{max_new_tokens} tokens; {epochs} epochs x {parts} mini-batches of {rows // parts} = {epochs * parts} "
            f"optimiser steps, {passes} forward passes of {micro} rows each",
            f"a run: {self.steps} steps = {self.steps * rows} rollouts, at most {self.steps * rows * max_new_tokens} "
            f"tokens; it measures {', '.join(self.measures)}",
            f"KL: {self.kl.kind}, {self.shaping.kind}, k1 in nats per sequence to the start policy",
        ]

    def reward(
        self,
        aggregation: Aggregation,
        world: World,
        rollout: Rollout,
        proxy: Float[Tensor, "B"],
        answers: ReferenceScores | None,
        reference: Callable[[], ReferenceScores],
    ) -> Float[Tensor, "B"]:
        """What the policy is paid: the aggregated scores `proxy` after the transforms (see `apply_transforms`), less the
        penalty where a response was cut off."""
        paid = apply_transforms(self.transforms, aggregation, rollout, proxy, answers, reference)
        penalty = world.missing_end_penalty if self.missing_end_penalty is None else self.missing_end_penalty
        return paid - penalty * ~rollout.ended

    @model_validator(mode="after")
    def _batch_arithmetic(self) -> Self:
        parts, rows = self.update.minibatches, self.rollouts
        if rows % parts:
            product = f"{self.prompts_per_step} x {self.samples_per_prompt} = {rows} rollouts"
            what = f"train.prompts_per_step x train.samples_per_prompt = {product}"
            raise ValueError(f"{what} do not divide into train.update.minibatches={parts}")
        micro = self.update.micro_batch
        if micro and (rows // parts) % micro:
            raise ValueError(f"train.update.micro_batch={micro} does not divide a mini-batch of {rows // parts} rows")
        if self.advantage.compares_samples and self.samples_per_prompt < 2:
            what = f"train.advantage.kind={self.advantage.kind} compares samples of one prompt"
            raise ValueError(f"{what}: set train.samples_per_prompt >= 2")
        steps = self.update.epochs * parts
        if self.objective.on_policy and steps > 1:
            what = f"train.objective.kind={self.objective.kind} is on-policy"
            raise ValueError(f"{what}: {steps} optimiser steps per rollout need ppo_clip")
        return self

    @model_validator(mode="after")
    def _measurements(self) -> Self:
        asked = list(self.gold_at)
        if asked != sorted(set(asked) & set(range(self.steps))):
            what = f"steps from 0 to {self.steps - 1} in ascending order"
            raise ValueError(f"train.gold_at must name {what}, got {asked}")
        self.kl.refuse_idle(self.steps, self.rollouts)
        if self.stop_at_gold_turn is not None:
            self.stop_at_gold_turn.refuse_idle(len(self.gold_steps), self.prompts_per_step)
        return self


def is_due(step: int, every: int, steps: int) -> bool:
    """Whether something done `every` steps is due at this one; always at the last of `steps`. 0 is never."""
    return every > 0 and (step % every == 0 or step == steps - 1)
