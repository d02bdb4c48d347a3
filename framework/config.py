"""One experiment as one validated tree. An empty file is a correct tiny run.

The root holds the online loop, which is the main job; each stage before it has a section of its own.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from jaxtyping import Float
from pydantic import BaseModel, Field, ValidationError, model_validator
from torch import Tensor

from framework.advantages import Advantage, Gae
from framework.aggregation import Aggregation, Mean
from framework.analysis.pair_sets import ScorePairs
from framework.best_of_n import BestOfN
from framework.can_act import assert_can_act
from framework.component import Component
from framework.config_errors import explain
from framework.data.preferences import Label
from framework.errors import UserError, one_line
from framework.gold import Gold, Rule
from framework.gold.ngram import FitNgram
from framework.gold_turn import GoldTurn
from framework.kl import Fixed, KlController
from framework.models.causal import PolicyModel, TinyLlama
from framework.objectives import Objective, PpoClip
from framework.overrides import apply_overrides
from framework.precision import Precision, native_precision
from framework.shaping import KlInReward, Shaping
from framework.sweep import Sweep
from framework.training.policy_fit import FitPolicy
from framework.training.policy_update import Update
from framework.training.reward_settings import FitReward
from framework.transforms import Transforms
from framework.transforms.fold import transformed
from framework.transforms.references import AnswerScores
from framework.types import ReferenceScores, Rollout
from framework.worlds import World
from framework.worlds.reviews import Reviews

_AROUND = (
    "backend", "cluster", "seeds", "variants", "conditions", "baseline", "best_of_n", "score_pairs", "sweep"
)  # fmt: skip
BESIDE_A_FIT = {"save_every", "compare_on"}
"""Settings of a reward fit that change nothing of the model."""
AROUND: dict[str, Any] = {**dict.fromkeys(_AROUND, True), "fit_reward": BESIDE_A_FIT}
"""The machines, the study around a run, and what is measured beside it: they change no number of it."""


class Config(Component):
    """An experiment: a world, a policy, a proxy fitted in it, and a policy trained on the proxy."""

    seed: int = Field(default=0, ge=0)
    """Every random number of every stage derives from it."""

    world: World = Reviews()
    """Where prompts and texts come from."""
    policy: PolicyModel = TinyLlama()
    sft: FitPolicy = FitPolicy()
    gold: Gold = Rule()
    """The signal that is withheld: it labels pairs and measures, and never trains a policy."""
    fit_gold: FitNgram | None = None
    """What `fit-gold` fits an n-gram gold scorer to: text that nothing else sees."""
    label: Label = Label()
    fit_reward: FitReward = FitReward()

    best_of_n: BestOfN | None = None
    """Of `best-of-n`, and of a study that is to have its curves beside those of its runs."""
    score_pairs: ScorePairs | None = None
    """Of `score-pairs`: the pairs, and the reward model whose agreement with their labels is measured."""

    steps: int = Field(default=160, ge=1)
    """Rollouts, each followed by one update."""
    prompts_per_step: int = Field(default=16, ge=1)
    """Prompts sampled from in each step."""
    samples_per_prompt: int = Field(default=4, ge=1)
    """Responses to each prompt; they form a group for leave-one-out and group-mean baselines."""
    max_new_tokens: int = Field(default=24, ge=1)
    """Tokens a response may have, the end token included."""
    temperature: float = Field(default=1.0, gt=0)
    """Of sampling, and of every log-probability and KL figure."""
    instruction: str | None = None
    """Wraps each prompt for a chat model's template, for example "Continue: {prompt}". None: plain text."""

    aggregation: Aggregation = Mean()
    """K heads' scores to one reward."""
    transforms: Transforms = ()
    """What is then made of the reward, one after the other: clip, length_calibration, log_sigmoid, par."""
    shaping: Shaping = KlInReward()
    """Where the KL penalty acts."""
    kl: KlController = Fixed(coef=0.01)
    """How the KL coefficient moves."""
    advantage: Advantage = Gae()
    objective: Objective = PpoClip()
    update: Update = Update()

    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Of forward and backward passes; master weights stay float32. auto: bfloat16 where this machine computes
    in it natively; a run writes down which it was."""
    scorer_rows: int = Field(default=32, ge=1)
    """Rows per forward pass of the reference and the reward model."""
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

    backend: Literal["ray", "inline"] = "ray"
    """Roles as Ray actors, or in this process. The numbers are the same."""
    cluster: str = "laptop"
    """A shipped layout (laptop, one_gpu, four_gpu) or the path of one."""

    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Seeds of a study; `train` and the single stages use `seed`."""
    variants: dict[str, dict[str, Any]] = Field(default={})
    """Of a study: a name, and the dotted overrides that make it differ."""
    conditions: dict[str, dict[str, Any]] = Field(default={})
    """Of a study: each variant is run under each of these; a variant's overrides come after a condition's."""
    baseline: str | None = None
    """The variant that the others are compared with, inside their condition and seed. None: no comparison."""
    sweep: Sweep = Sweep()
    """Of `sweep`: what it varies beside variants and seeds, above all `kl.budget`."""

    @property
    def native(self) -> Precision:
        """The precision, once `auto` has been settled by `parse_config`."""
        assert self.precision != "auto"
        return self.precision

    @property
    def rollouts(self) -> int:
        """Rows per step."""
        return self.prompts_per_step * self.samples_per_prompt

    @property
    def needs_answers(self) -> int:
        """Answers of the reference policy to each prompt that the transforms compare with; usually 0."""
        return max((transform.needs_answers for transform in self.transforms), default=0)

    def reward(
        self,
        rollout: Rollout,
        proxy: Float[Tensor, "B"],
        answers: AnswerScores | None,
        reference: Callable[[], ReferenceScores],
    ) -> Float[Tensor, "B"]:
        """What the policy is paid: the aggregated scores `proxy` after the transforms; see `transformed`."""
        return transformed(self.transforms, self.aggregation, rollout, proxy, answers, reference)

    @model_validator(mode="after")
    def _batch_arithmetic(self) -> "Config":
        parts, rows = self.update.minibatches, self.rollouts
        if rows % parts:
            raise ValueError(
                f"prompts_per_step x samples_per_prompt = {self.prompts_per_step} x {self.samples_per_prompt} = {rows} "
                f"rollouts do not divide into update.minibatches={parts}"
            )
        micro = self.update.micro_batch
        if micro and (rows // parts) % micro:
            raise ValueError(
                f"a mini-batch of {rows // parts} rows does not divide into update.micro_batch={micro}"
            )
        pairs, batch = self.label.pairs, self.fit_reward.batch
        held_out = max(1, round(pairs * self.label.held_out))
        if self.fit_reward.pairs is None and pairs - held_out < batch:
            raise ValueError(
                f"label.pairs={pairs} less {held_out} held out are fewer than fit_reward.batch={batch}: "
                "raise label.pairs or lower the batch"
            )
        if self.advantage.kind in ("leave_one_out", "group_mean") and self.samples_per_prompt < 2:
            raise ValueError(
                f"advantage.kind={self.advantage.kind} compares samples of one prompt: set samples_per_prompt >= 2"
            )
        return self

    @model_validator(mode="after")
    def _method(self) -> "Config":
        steps = self.update.epochs * self.update.minibatches
        if self.objective.kind == "reinforce" and steps > 1:
            raise ValueError(
                f"objective.kind=reinforce is on-policy: {steps} optimiser steps per rollout need ppo_clip"
            )
        if self.world.kind == "text" and self.policy.kind == "tiny_llama":
            raise ValueError(
                "policy.kind=tiny_llama knows only the embedded world's words: set policy.kind=pretrained for text"
            )
        if self.gold.kind == "rule" and self.world.kind != "reviews":
            raise ValueError(
                "gold.kind=rule judges the embedded world only: set gold.kind to ngram or classifier"
            )
        if self.instruction is not None and "{prompt}" not in self.instruction:
            raise ValueError("instruction must contain {prompt}")
        return self

    @model_validator(mode="after")
    def _measurements(self) -> "Config":
        asked = self.gold_at
        if list(asked) != sorted(set(asked)) or any(not 0 <= step < self.steps for step in asked):
            raise ValueError(
                f"gold_at must name steps from 0 to {self.steps - 1} in ascending order, got {list(asked)}"
            )
        assert_can_act(self)
        return self

    @model_validator(mode="after")
    def _study(self) -> "Config":
        repeated = next((seed for seed, count in Counter(self.seeds).items() if count > 1), None)
        if repeated is not None:
            raise ValueError(f"seeds holds {repeated} twice: a run is made once, so leave one of them out")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds holds {min(self.seeds)}: a seed must be 0 or more")
        for section, names in (("variants", self.variants), ("conditions", self.conditions)):
            for name in names:
                if not name.replace("_", "").replace("-", "").isalnum():
                    raise ValueError(
                        f"{section}: {name!r} must be letters, digits, '-' and '_': it names a folder"
                    )
        if len(self.study_layout()) < len(self.variants) * max(1, len(self.conditions)):
            raise ValueError(
                "conditions: two runs of the study have one name, condition-variant: rename a variant"
            )
        if self.baseline is not None and self.baseline not in self.variants:
            known = ", ".join(self.variants) or "none"
            raise ValueError(f"baseline={self.baseline!r} is not a variant; variants: {known}")
        return self

    def fingerprint(self) -> str:
        """Hash of everything that can change a number."""
        tree = self.model_dump(mode="json", exclude=AROUND)
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        """The whole resolved tree."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def study_layout(self) -> dict[str, tuple[str, str]]:
        """Condition and variant of every run name of the study; the condition is "" where there are none."""
        crossed = [
            (condition, variant) for condition in self.conditions or ("",) for variant in self.variants
        ]
        return {"-".join(filter(None, pair)): pair for pair in crossed}

    def study_runs(self) -> dict[str, dict[str, Any]]:
        """The dotted overrides of every run name of the study."""
        return {
            name: _combined(self.conditions.get(condition, {}), self.variants[variant])
            for name, (condition, variant) in self.study_layout().items()
        }

    def variant(self, name: str, seed: int) -> "Config":
        """The configuration of one run name (see `study_runs`) and seed of a study."""
        tree = apply_overrides(self.model_dump(mode="json"), self.study_runs()[name])
        condition, variant = self.study_layout()[name]
        within = f"conditions.{condition}, " if condition else ""
        return parse_config(tree | {"seed": seed}, where=f"{within}variants.{variant}")


def load_config(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration of a YAML file (None: all defaults) with dotted overrides applied.

    Raises:
        UserError: no such file, not YAML, an unknown key (the nearest is offered) or a bad value.
    """
    tree: Any = {}
    if path is not None:
        if not path.is_file():
            raise UserError(f"{path} does not exist: give the path of a YAML configuration")
        try:
            tree = yaml.safe_load(path.read_text()) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not valid YAML: {one_line(error)}") from error
        if not isinstance(tree, dict):
            raise UserError(f"{path} must hold a mapping of keys, not a {type(tree).__name__}")
    where = str(path) if path else "configuration"
    return parse_config(apply_overrides(tree, overrides or {}), where)


def parse_config(tree: Mapping[str, Any], where: str = "configuration") -> Config:
    """A validated configuration, or one line that says which key is wrong and how to mend it."""
    try:
        cfg = Config.model_validate(_fill_defaults(dict(tree), Config))
    except ValidationError as error:
        # A misspelt key is also a missing one: say the former.
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise UserError(f"{where}: {explain(first, Config)}") from None
    return cfg.model_copy(update={"precision": native_precision()}) if cfg.precision == "auto" else cfg


def _combined(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides that, applied once, do what `first` and then `second` would."""
    sections = [key.removesuffix(".kind") if key.endswith(".kind") else key for key in second]
    replaced = tuple(f"{section}." for section in sections)
    return {key: value for key, value in first.items() if not f"{key}.".startswith(replaced)} | dict(second)


def _fill_defaults(tree: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Put what our default of a section sets, its kind included, where the section does not say.

    `sft: {optimizer: {lr: 0.001}}` changes the rate and keeps the warm-up, and `kl: {coef: 0.1}` means
    what it says. A section that names another kind starts anew.
    """
    out = dict(tree)
    for name, field in model.model_fields.items():
        node, default = out.get(name), field.default
        if not isinstance(node, dict) or not isinstance(default, BaseModel):
            continue
        if "kind" not in node:
            kind = {"kind": getattr(default, "kind")} if "kind" in type(default).model_fields else {}  # noqa: B009
            node = kind | default.model_dump(mode="json", exclude_unset=True) | node
        elif node["kind"] != getattr(default, "kind", None):
            continue
        out[name] = _fill_defaults(node, type(default))
    return out
