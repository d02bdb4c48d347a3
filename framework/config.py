"""One experiment as one validated tree. An empty file is a correct tiny run.

`train` holds the method that makes the policy better; each stage before it has a section of its own.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from framework.aggregation import Aggregation, Mean
from framework.analysis.reward_quality import ScorePairs
from framework.artifacts import fingerprint
from framework.best_of_n import BestOfN
from framework.component import Component, spelled
from framework.config_errors import explain
from framework.data.preferences import Label
from framework.errors import UserError
from framework.gold import Gold, Judge, OtherGold, Python, Reward, Rule
from framework.gold.ngram import FitNgram
from framework.methods import Online, Train
from framework.methods.online import is_due
from framework.models.settings import PolicyModel, TinyLlama
from framework.overrides import apply_overrides, read_mapping
from framework.precision import Precision, native_precision
from framework.sweep import AROUND_RUNS, Sweep
from framework.trackers import TensorBoard, Trackers
from framework.training.policy_fit import FitPolicy
from framework.training.reward_settings import FitReward
from framework.worlds import World
from framework.worlds.reviews import Reviews

BESIDE_A_RUN = frozenset((
    "backend", "cluster", "trackers", "seeds", "variants", "conditions", "baseline", "best_of_n", "score_pairs", "sweep"
))  # fmt: skip
"""The machines, the experiment around a run, and what is measured beside it: they change no number of a run."""
BESIDE_A_FIT = frozenset(("save_every", "compare_on"))
"""Settings of a reward fit that change nothing of the model."""


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
    golds: dict[str, OtherGold] = Field(default={})
    """More signals that are only measured, by name, each as often as it says: `gold_NAME` beside `gold` in all tables."""
    fit_gold: FitNgram | None = None
    """What `fit-gold` fits an n-gram gold scorer to: text that nothing else sees."""
    label: Label = Label()
    fit_reward: FitReward = FitReward()
    reward: Reward | None = None
    """A proxy that nothing is fitted for, in its own unit: no pairs are made. None: the model of `fit_reward`."""
    reference_texts: int = Field(default=256, ge=2)
    """Responses of the start policy that a reward for which nothing is fitted is asked about first: a published model
    is calibrated on them, and transforms compare with them."""

    best_of_n: BestOfN | None = None
    """Of `best-of-n`, and of an experiment that is to have its curves beside those of its runs."""
    score_pairs: ScorePairs | None = None
    """Of `score-pairs`: the pairs, and the reward model whose agreement with their labels is measured."""

    max_new_tokens: int = Field(default=40, ge=1)
    """Tokens a response may have, the end token included. A review of the embedded world has up to 22 and its end."""
    temperature: float = Field(default=1.0, ge=1e-3, le=1e3)
    """Of sampling, and of every log-probability and KL figure."""
    instruction: str | None = None
    """Wraps each prompt for a chat model's template, for example "Continue: {prompt}". None: prompts as they are."""

    aggregation: Aggregation = Mean()
    """K heads' scores to one reward."""
    train: Train = Online()
    """How the policy is made better: a method and its settings."""

    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Of forward and backward passes; master weights stay float32. auto: bfloat16 where this machine computes
    in it natively; a run writes down which it was."""
    scorer_rows: int = Field(default=32, ge=1)
    """Rows per forward pass of the reference and the reward model."""
    backend: Literal["ray", "inline"] = "ray"
    """Roles as Ray actors, or in this process. The numbers are the same."""
    cluster: str = "laptop"
    """A shipped layout (laptop, one_gpu, four_gpu) or the path of one."""
    trackers: Trackers = (TensorBoard(),)
    """Where the numbers of a run can be watched, beside its own files: tensorboard, wandb, mlflow, trackio."""

    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Seeds of an experiment; `train` and the single stages use `seed`."""
    variants: dict[str, dict[str, Any]] = Field(default={})
    """Of an experiment: a name, and the dotted overrides that make it differ."""
    conditions: dict[str, dict[str, Any]] = Field(default={})
    """Of an experiment: each variant is run under each of these; a variant's overrides come after a condition's."""
    baseline: str | None = None
    """The variant that the others are compared with, inside their condition and seed. None: no comparison."""
    sweep: Sweep = Sweep()
    """What is varied beside variants, conditions and seeds, above all `train.kl.budget`, and how runs are scheduled."""

    @property
    def native(self) -> Precision:
        """The precision, once `auto` has been settled by `parse_config`."""
        assert self.precision != "auto"
        return self.precision

    @property
    def needs_pairs(self) -> bool:
        """Whether the proxy comes from pairs: not where it is a scorer, or only published models and no pairs are given."""
        return self.reward is None and bool(self.fit_reward.pairs or self.fit_reward.ensemble.parts())

    @property
    def all_golds(self) -> dict[str, Gold]:
        """`gold` and each of `golds`, by the names of their settings."""
        return {"gold": self.gold, **{f"golds.{name}": own.scorer for name, own in self.golds.items()}}

    @property
    def num_heads(self) -> int:
        """Scores that the proxy gives each text."""
        return self.fit_reward.ensemble.num_heads if self.reward is None else 1

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        pairs, batch = self.label.pairs, self.fit_reward.batch
        held_out = max(1, round(pairs * self.label.held_out))
        if self.needs_pairs and self.fit_reward.pairs is None and pairs - held_out < batch:
            what = f"label.pairs={pairs} less {held_out} held out are fewer than fit_reward.batch={batch}"
            raise ValueError(f"{what}: raise label.pairs or lower the batch")
        if misfit := self.policy.misfit(self.world, max(self.max_new_tokens, self.label.max_new_tokens or 0)):
            raise ValueError(misfit)
        for where, gold in self.all_golds.items():
            if gold.worlds is not None and self.world.kind not in gold.worlds:
                what = f"{where}.kind={gold.kind} judges world.kind={' or '.join(gold.worlds)} only"
                raise ValueError(f"{what}: set {where}.kind to ngram, classifier, python or judge")
        for name in self.golds:
            if not name.isidentifier() or f"_{name}".endswith("_se"):
                rule = "must be letters, digits and '_', and not end in _se"
                raise ValueError(f"golds: {name!r} {rule}: it names a column")
        if self.instruction is not None and "{prompt}" not in self.instruction:
            raise ValueError("instruction must contain {prompt}")
        # An experiment around it may bring the heads: its runs are looked at.
        around = self.variants or self.conditions or self.sweep.keys
        measured = self.score_pairs and self.score_pairs.model  # has heads of its own
        if self.num_heads == 1 and self.aggregation.kind != "mean" and not around and not measured:
            sole = "the reward" if self.reward else f"fit_reward.ensemble.kind={self.fit_reward.ensemble.kind}"
            what = f"aggregation.kind={self.aggregation.kind} does nothing: {sole} has one head"
            raise ValueError(f"{what}; ask for more, or set aggregation.kind=mean")
        return self

    @model_validator(mode="after")
    def _study(self) -> "Config":
        repeated = next((seed for seed, count in Counter(self.seeds).items() if count > 1), None)
        if repeated is not None:
            raise ValueError(f"seeds holds {repeated} twice: a run is made once, so leave one of them out")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds holds {min(self.seeds)}: a seed must be 0 or more")
        for section, names in (("variants", self.variants), ("conditions", self.conditions)):
            for name, overrides in names.items():
                if around := next((key for key in overrides if key.partition(".")[0] in AROUND_RUNS), None):
                    what = f"{section}.{name}: {around} cannot differ between runs"
                    raise ValueError(f"{what}; give the seeds as seeds=[...]")
                if not name.replace("_", "").replace("-", "").isalnum():
                    raise ValueError(f"{section}: {name!r} must be letters, digits, '-' and '_': it names a folder")
        if self.baseline is not None and self.baseline not in self.variants:
            known = ", ".join(self.variants) or "none"
            raise ValueError(f"baseline={self.baseline!r} is not a variant; variants: {known}")
        return self

    def check_scorers(self) -> None:
        """Raise the UserError now that a function or a judge would show only once it is asked, after the fits."""
        for scorer in (*self.all_golds.values(), self.reward):
            if isinstance(scorer, Python | Judge):
                scorer.check()

    def golds_due(self, step: int) -> dict[str, bool]:
        """Of each of `golds`, whether it is measured at this step."""
        return {name: is_due(step, own.every, self.train.length) for name, own in self.golds.items()}

    def chosen(self, *sections: str) -> dict[str, Any]:
        """What these sections set, as fingerprints are taken of it: what is at its default is left out."""
        tree = {name: own for name, own in spelled(self).items() if name in sections}
        if fit := tree.get("fit_reward"):
            tree["fit_reward"] = {name: own for name, own in fit.items() if name not in BESIDE_A_FIT}
        return tree

    @property
    def settings(self) -> dict[str, Any]:
        """All that is set that can change a number of a run or of a stage before it."""
        return self.chosen(*set(type(self).model_fields) - BESIDE_A_RUN)

    def fingerprint(self) -> str:
        """Hash of everything that can change a number of a run or of a stage before it."""
        return fingerprint(self.settings, {})

    def run_fingerprint(self) -> str:
        """Hash of what can change a number of a run, given what it starts from: what its method says that it covers."""
        return fingerprint(self.chosen("seed", "train", *self.train.covers), {})

    def to_yaml(self) -> str:
        """The whole resolved tree."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_config(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration of a YAML file (None: all defaults) with dotted overrides applied.

    Raises:
        UserError: no readable file, not YAML, an unknown key (the nearest is offered) or a bad value.
    """
    tree = apply_overrides(read_mapping(path) if path else {}, overrides or {})
    return parse_config(tree, str(path or "configuration"), overrides or ())


def parse_config(tree: Mapping[str, Any], where: str = "configuration", overrides: Collection[str] = ()) -> Config:
    """A validated configuration, or one line that says which key is wrong and how to mend it."""
    try:
        cfg = Config.model_validate(_fill_defaults(dict(tree), Config))
    except ValidationError as error:
        raise UserError(explain(error.errors(), Config, where, overrides)) from None
    return cfg.model_copy(update={"precision": native_precision()}) if cfg.precision == "auto" else cfg


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
