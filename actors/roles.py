"""The roles of a run, each declared once, and what their clients share. Light: workers are imported as roles open."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from framework.data.paths import absolute
from framework.gold import Classifier, Ngram

if TYPE_CHECKING:
    from actors.group import Group, Pending
    from framework.config import Config

Arguments = Callable[["Config", Mapping[str, Path]], dict[str, Any]]


class Role:
    """Base of the typed clients. Remembers its calls, so that a step can tell where its time went."""

    def __init__(self, group: "Group", rows: int = 1, divide: Literal["rows", "members"] = "rows") -> None:
        """A client of the workers in `group`.

        Args:
            rows: of one forward pass of a scorer; shares are multiples of it.
            divide: whether workers divide the rows of a batch or the members of the ensemble.
        """
        self.group, self.rows, self.divide = group, rows, divide
        self._calls: list[tuple[str, Pending[Any]]] = []

    def track(self, stage: str, pending: "Pending[Any]") -> "Pending[Any]":
        """The pending result, remembered under the stage it belongs to."""
        self._calls.append((stage, pending))
        return pending

    def take_calls(self) -> "list[tuple[str, Pending[Any]]]":
        """(stage, pending) of every call since the last time, forgotten afterwards."""
        calls, self._calls = self._calls, []
        return calls


class WeightsRole(Role):
    """A role whose workers hold weights that can be exchanged while they live."""

    def load(self, folder: Path) -> "Pending[list[Any]]":
        """Every worker goes on with what lies in `folder`, instead of what it holds."""
        return self.track("checkpoint", self.group.load(str(folder)))


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
    train = cfg.train
    learning = {"update": train.update, "objective": train.objective, "shaping": train.shaping}
    sizes = {"needs_critic": train.advantage.needs_critic, "total_rollouts": train.steps}
    return _sampling(cfg, parents["policy"]) | learning | sizes


def _reference(cfg: "Config", parents: Mapping[str, Path]) -> dict[str, Any]:
    return _sampling(cfg, parents["reference"])


def _reward(cfg: "Config", parents: Mapping[str, Path]) -> dict[str, Any]:
    served = {"folder": str(parents["reward"]), "rows": cfg.scorer_rows, "precision": cfg.native}
    return served | {"max_cut_share": cfg.fit_reward.max_cut_share, "scorer": cfg.reward}


def _gold(cfg: "Config", parents: Mapping[str, Path]) -> dict[str, Any]:
    placed = {
        name: gold.model_copy(update={"path": absolute(gold.path)}) if isinstance(gold, Ngram | Classifier) else gold
        for name, gold in cfg.all_golds.items()
    }
    return {"gold": placed.pop("gold"), "others": placed}


def _sampling(cfg: "Config", folder: Path) -> dict[str, Any]:
    """What a worker with a policy of its own is built from."""
    sampling = {name: getattr(cfg, name) for name in ("seed", "max_new_tokens", "temperature", "instruction")}
    return sampling | {"folder": str(folder), "precision": cfg.native, "rows": cfg.scorer_rows}


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
