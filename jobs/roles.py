"""The roles of a run, opened inline or as Ray actors: the driver cannot tell which."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from actors.group import Chained, Done, Group, InlineGroup, Pending, RayGroup, Span, covered_seconds
from actors.roles import ROLES, Role, RoleDeclaration
from cluster.placement import inherited, place
from cluster.plan import bundles
from cluster.session import connect
from cluster.spec import ClusterSpec
from framework.batch_mean import rows_across_prompts
from framework.config import Config
from framework.transforms.apply import answers_per_row
from framework.types import Answers, ReferenceScores, Rollout
from jobs.layouts import load_layout

if TYPE_CHECKING:
    from actors.gold import GoldRole
    from actors.policy import PolicyRole
    from actors.reference import ReferenceRole
    from actors.reward import RewardRole

STAGES = tuple(dict.fromkeys(stage for role in ROLES.values() for stage in role.stages))
"""What a step's time is told by, in the order of the roles."""
MEMORY_EVERY = 10
"""Steps between looks at the workers' memory: each costs a call per role."""


@dataclass(frozen=True)
class Roles:
    """Typed clients, one per role."""

    policy: "PolicyRole"
    reference: "ReferenceRole"
    reward: "RewardRole"
    gold: "GoldRole"
    exact_kl_rows: int

    def exact_kl(self, rollout: Rollout, when: bool) -> Pending[Float[Tensor, "n"] | None]:
        """Exact KL in nats of a few rows (see `rows_across_prompts`) under the policy that sampled them, where it is due.

        Asked for before the update is, and a worker handles its calls in order: the weights are the sampling ones.
        """
        if not when:
            return Done(None)
        few = rollout.select(rows_across_prompts(rollout.group, self.exact_kl_rows))
        return self.policy.exact_kl(few, self.reference.full_logprobs(few).get())

    def answers(self, rollout: Rollout, count: int) -> Pending[ReferenceScores | None]:
        """Scores of `count` answers of the reference policy to each row's prompt; None at once for none.

        The reference samples while the others work; the reward role is given the answers once it is waited for.
        """
        if not count:
            return Done(None)

        def score(answers: Answers) -> ReferenceScores:
            return answers_per_row(answers, self.reward.score(answers).get().values, rollout.group)

        return Chained(self.reference.answers(rollout, count), score)

    def reward_reference(self) -> ReferenceScores:
        """Scores of the responses that the reward model was calibrated on."""
        return self.reward.reference().get()

    @property
    def all(self) -> dict[str, Role]:
        return {name: getattr(self, name) for name in ROLES}

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


@contextlib.contextmanager
def open_roles(
    cfg: Config, name: str, parents: Mapping[str, Path], address: str | None, in_placement: bool = False
) -> Iterator[Roles]:
    """The roles of a run for the length of a `with` block, as `cfg.backend` and `cfg.cluster` say.

    A PlacementError where the layout does not fit the cluster.

    Args:
        name: of the run; its namespace and placement group are called so in Ray's dashboard.
        parents: folders that the run starts from: policy, reference, reward.
        address: of a Ray cluster; "local" starts one here.
        in_placement: whether this process was started in a placement group that holds the layout.
    """
    spec = load_layout(cfg.cluster)
    workers = {role.name: _worker(role, cfg, parents, spec) for role in ROLES.values()}

    def open_inline(role: str) -> Group:
        share = spec.roles[role]
        return InlineGroup(role, workers[role], replicas=share.replicas, threads=share.threads)

    if cfg.backend == "inline":
        yield _clients(open_inline, cfg, spec)
        return
    with contextlib.ExitStack() as opened:
        opened.enter_context(connect(address, spec, namespace=name))
        layout, seconds = bundles(spec), spec.placement_timeout_seconds
        held = inherited(layout, name) if in_placement else None
        slots = held or opened.enter_context(place(layout, name, spec.strategy, seconds))
        options: dict[str, Any] = {"namespace": name, "call_timeout_seconds": spec.call_timeout_seconds}

        def open_on_ray(role: str) -> Group:
            group = RayGroup(role, workers[role], (), slots[role], restarts=ROLES[role].restarts, **options)
            opened.callback(group.close)
            return group

        roles = _clients(open_on_ray, cfg, spec)
        for client in roles.all.values():
            client.group.ready().get()
        yield roles


def _worker(role: RoleDeclaration, cfg: Config, parents: Mapping[str, Path], spec: ClusterSpec) -> Callable[[], Any]:
    """What builds a worker of the role."""
    arguments = role.arguments(cfg, parents)
    if role.divides_members:
        arguments["divide"] = spec.roles[role.name].divide
    return partial(resolve_name(role.worker), **arguments)


def _clients(open_group: Callable[[str], Group], cfg: Config, spec: ClusterSpec) -> Roles:
    """Typed clients on the groups that `open_group` opens; all begin to build before any is waited for."""
    kinds = {name: resolve_name(role.client) for name, role in ROLES.items()}
    clients = {name: kind(open_group(name), cfg.scorer_rows, spec.roles[name].divide) for name, kind in kinds.items()}
    return Roles(**clients, exact_kl_rows=cfg.train.exact_kl_rows)
