"""The four roles of a run, opened inline or as Ray actors: the driver cannot tell which."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from jaxtyping import Float
from torch import Tensor

from actors.gold import GoldRole, GoldWorker
from actors.group import Done, Group, InlineGroup, Pending, RayGroup, Span, covered_seconds
from actors.policy import PolicyRole, PolicyWorker
from actors.reference import ReferenceRole, ReferenceWorker
from actors.reward import RewardRole, RewardWorker
from actors.role import Role
from cluster.placement import Placement, inherited, place
from cluster.plan import bundles
from cluster.session import connect
from cluster.spec import ClusterSpec, load_spec
from framework.batch_mean import rows_across_prompts
from framework.config import Config
from framework.transforms.references import AnswerScores, answers_per_row
from framework.types import Answers, ReferenceScores, Rollout

T = TypeVar("T")
U = TypeVar("U")
ROLE_NAMES = ("policy", "reference", "reward", "gold")
STAGES = ("rollout", "reference", "reward", "answers", "gold", "update", "exact_kl", "checkpoint")
MEMORY_EVERY = 10
"""Steps between looks at the workers' memory: each costs a call per role."""


class _Then(Generic[T, U]):
    """A result that one more call makes of another. Both calls are remembered by the roles that answer them."""

    spans: tuple[Span, ...] = ()
    busy_seconds = 0.0

    def __init__(self, first: Pending[T], then: Callable[[T], U]) -> None:
        self._first, self._then = first, then

    def get(self, timeout_seconds: float | None = None) -> U:
        """The result; the second call is made now."""
        return self._then(self._first.get(timeout_seconds))


@dataclass(frozen=True)
class Roles:
    """Typed clients, one per role."""

    policy: PolicyRole
    reference: ReferenceRole
    reward: RewardRole
    gold: GoldRole
    exact_kl_rows: int

    def exact_kl(self, rollout: Rollout, when: bool) -> Pending[Float[Tensor, "n"] | None]:
        """Exact KL in nats of a few rows (see `rows_across_prompts`) under the policy that sampled them, where it is due.

        Asked for before the update is, and a worker handles its calls in order: the weights are the sampling ones.
        """
        if not when:
            return Done(None)
        few = rollout.select(rows_across_prompts(rollout.group, self.exact_kl_rows))
        return self.policy.exact_kl(few, self.reference.full_logprobs(few).get())

    def answers(self, rollout: Rollout, count: int) -> Pending[AnswerScores | None]:
        """Scores of `count` answers of the reference policy to each row's prompt; None at once for none.

        The reference samples while the others work; the reward role is given the answers once it is waited for.
        """
        if not count:
            return Done(None)

        def score(answers: Answers) -> AnswerScores:
            return answers_per_row(answers, self.reward.score(answers).get().values, rollout.group)

        return _Then(self.reference.answers(rollout, count), score)

    def reward_reference(self) -> ReferenceScores:
        """Scores of the responses that the reward model was calibrated on, asked for once."""
        return self._reward_reference

    @cached_property
    def _reward_reference(self) -> ReferenceScores:
        return self.reward.reference().get()

    @property
    def all(self) -> dict[str, Role]:
        return {"policy": self.policy, "reference": self.reference, "reward": self.reward, "gold": self.gold}

    def timings(self, step: int, step_seconds: float, log_seconds: float) -> dict[str, Any]:
        """Where a step's time went: seconds in each stage, and seconds when no role was computing."""
        stages = dict.fromkeys(STAGES, 0.0)
        spans: list[Span] = []
        for role in self.all.values():
            for stage, pending in role.take_calls():
                stages[stage] += pending.busy_seconds
                spans.extend(pending.spans)
        driver = max(0.0, step_seconds - covered_seconds(spans) - log_seconds)
        record = {"seconds": step_seconds, "stage_seconds": stages | {"driver": driver, "log": log_seconds}}
        if step % MEMORY_EVERY == 0:
            pending_memory = {name: role.group.call_all("peak_rss_mb") for name, role in self.all.items()}
            record["peak_rss_mb"] = {name: max(pending.get()) for name, pending in pending_memory.items()}
        return record


WORKERS: dict[str, type] = {
    "policy": PolicyWorker,
    "reference": ReferenceWorker,
    "reward": RewardWorker,
    "gold": GoldWorker,
}


def worker_arguments(cfg: Config, policy: Path, reward: Path) -> dict[str, dict[str, Any]]:
    """Constructor arguments of each role's worker."""
    return {
        "policy": {
            "folder": str(policy),
            "seed": cfg.seed,
            "max_new_tokens": cfg.max_new_tokens,
            "temperature": cfg.temperature,
            "instruction": cfg.instruction,
            "update": cfg.update,
            "objective": cfg.objective,
            "shaping": cfg.shaping,
            "needs_critic": cfg.advantage.needs_critic,
            "total_rollouts": cfg.steps,
            "precision": cfg.native,
        },
        "reference": {
            "folder": str(policy),
            "rows": cfg.scorer_rows,
            "temperature": cfg.temperature,
            "precision": cfg.native,
            "seed": cfg.seed,
            "max_new_tokens": cfg.max_new_tokens,
            "instruction": cfg.instruction,
        },
        "reward": {
            "folder": str(reward),
            "rows": cfg.scorer_rows,
            "max_cut_share": cfg.fit_reward.max_cut_share,
            "precision": cfg.native,
            "divide": load_spec(cfg.cluster).roles.reward.divide,
        },
        "gold": {"gold": cfg.gold},
    }


@contextlib.contextmanager
def open_roles(
    cfg: Config, name: str, policy: Path, reward: Path, address: str | None, seated: bool = False
) -> Iterator[Roles]:
    """The roles of a run for the length of a `with` block, as `cfg.backend` and `cfg.cluster` say.

    Args:
        name: of the run; its namespace and placement group are called so in Ray's dashboard.
        address: of a Ray cluster; "local" starts one here.
        seated: whether this process was started in a placement group that holds the layout.

    Raises:
        PlacementError: the layout does not fit the cluster.
    """
    arguments = worker_arguments(cfg, policy, reward)
    spec = load_spec(cfg.cluster)
    workers = {role: partial(WORKERS[role], **arguments[role]) for role in ROLE_NAMES}
    if cfg.backend == "inline":
        shares = spec.roles.named()
        yield _clients(
            lambda role: InlineGroup(
                role, workers[role], replicas=shares[role].replicas, threads=shares[role].threads
            ),
            cfg,
        )
        return
    with (
        connect(address, spec, namespace=name) as session,
        _placed(spec, name, seated) as placement,
    ):
        opened: list[Group] = []

        def open_group(role: str) -> Group:
            # Scorers answer the same question the same way, so a dead one may be rebuilt and asked again.
            restarts = 0 if role == "policy" else 2
            group = RayGroup(
                role,
                workers[role],
                (),
                placement.seats(role),
                namespace=session.namespace,
                restarts=restarts,
                call_timeout_seconds=spec.call_timeout_seconds,
            )
            opened.append(group)
            return group

        try:
            roles = _clients(open_group, cfg)
            for group in opened:
                group.ready().get()
            yield roles
        finally:
            for group in opened:
                group.close()


def _placed(spec: ClusterSpec, name: str, seated: bool) -> contextlib.AbstractContextManager[Placement]:
    """The bundles of a layout: those that this process sits in, or a new group of them."""
    layout = bundles(spec)
    if seated:
        return contextlib.nullcontext(inherited(layout, name))
    return place(layout, name, spec.strategy, spec.placement_timeout_seconds)


def _clients(open_group: Callable[[str], Group], cfg: Config) -> Roles:
    """Typed clients on the groups that `open_group` opens; all begin to build before any is waited for."""
    rows, divide = cfg.scorer_rows, load_spec(cfg.cluster).roles.reward.divide
    return Roles(
        policy=PolicyRole(open_group("policy")),
        reference=ReferenceRole(open_group("reference"), rows),
        reward=RewardRole(open_group("reward"), rows, divide),
        gold=GoldRole(open_group("gold"), rows),
        exact_kl_rows=cfg.exact_kl_rows,
    )
