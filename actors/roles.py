"""The roles of a run, each declared once. Light: a worker's module is imported when the role is opened."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framework.data.paths import absolute
from framework.gold import Classifier, Ngram

if TYPE_CHECKING:
    from framework.config import Config

Arguments = Callable[["Config", Mapping[str, Path]], dict[str, Any]]


@dataclass(frozen=True)
class RoleDeclaration:
    """All that the rest of the code needs to know of a role."""

    name: str
    worker: str
    """`module:Class`, built as `Class(**arguments(cfg, parents))`; for `pkgutil.resolve_name`."""
    client: str
    """`module:Class` of what the driver calls, a `Role`."""
    stages: tuple[str, ...]
    """Names that its calls are timed under; two roles may take part in one stage."""
    arguments: Arguments
    """The worker's, given the configuration and the folders that the run starts from, by name."""
    restarts: int = 2
    """How often a dead worker is built again and its call repeated. Scorers answer the same question the same way;
    a repeated update would be a second update."""
    most_replicas: int | None = None
    divides_members: bool = False
    """Whether replicas may divide an ensemble's members; its worker then takes `divide` as an argument too."""


def _policy(cfg: "Config", parents: Mapping[str, Path]) -> dict[str, Any]:
    return {
        **_sampling(cfg, parents["policy"]),
        "update": cfg.train.update,
        "objective": cfg.train.objective,
        "shaping": cfg.train.shaping,
        "needs_critic": cfg.train.advantage.needs_critic,
        "total_rollouts": cfg.train.steps,
        "rows": cfg.scorer_rows,
    }


def _reference(cfg: "Config", parents: Mapping[str, Path]) -> dict[str, Any]:
    return {**_sampling(cfg, parents["reference"]), "rows": cfg.scorer_rows}


def _reward(cfg: "Config", parents: Mapping[str, Path]) -> dict[str, Any]:
    return {
        "folder": str(parents["reward"]),
        "rows": cfg.scorer_rows,
        "max_cut_share": cfg.fit_reward.max_cut_share,
        "scorer": cfg.reward,
        "precision": cfg.native,
    }


def _gold(cfg: "Config", parents: Mapping[str, Path]) -> dict[str, Any]:
    placed = {
        name: gold.model_copy(update={"path": absolute(gold.path)}) if isinstance(gold, Ngram | Classifier) else gold
        for name, gold in cfg.all_golds.items()
    }
    return {"gold": placed.pop("gold"), "others": placed}


def _sampling(cfg: "Config", folder: Path) -> dict[str, Any]:
    """What a worker with a policy of its own is built from."""
    return {
        "folder": str(folder),
        "seed": cfg.seed,
        "max_new_tokens": cfg.max_new_tokens,
        "temperature": cfg.temperature,
        "instruction": cfg.instruction,
        "precision": cfg.native,
    }


_DECLARED = (
    RoleDeclaration(
        "policy", "actors.policy:PolicyWorker", "actors.policy:PolicyRole",
        stages=("rollout", "update", "exact_kl", "checkpoint"), arguments=_policy, restarts=0, most_replicas=1,
    ),
    RoleDeclaration(
        "reference", "actors.reference:ReferenceWorker", "actors.reference:ReferenceRole",
        stages=("reference", "answers", "exact_kl", "checkpoint"), arguments=_reference,
    ),
    RoleDeclaration(
        "reward", "actors.reward:RewardWorker", "actors.reward:RewardRole",
        stages=("reward", "checkpoint"), arguments=_reward, divides_members=True,
    ),
    RoleDeclaration("gold", "actors.gold:GoldWorker", "actors.gold:GoldRole", stages=("gold",), arguments=_gold),
)  # fmt: skip
ROLES: Mapping[str, RoleDeclaration] = {role.name: role for role in _DECLARED}
