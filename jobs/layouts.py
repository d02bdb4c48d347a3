"""Layouts as a run asks for them: every role that is declared, and none that is not."""

import difflib
from pathlib import Path

from actors.roles import ROLES
from cluster.plan import Bundle, run_bundles
from cluster.spec import ClusterSpec, RoleSpec, load_spec
from framework.config import Config
from framework.errors import UserError


def layout_of(cfg: Config) -> tuple[ClusterSpec, list[Bundle]]:
    """The layout that a run names, and what the run asks of a cluster by it."""
    spec = load_layout(cfg.cluster)
    return spec, run_bundles(spec, cfg.backend == "inline")


def load_layout(name_or_path: str | Path) -> ClusterSpec:
    """The layout of a shipped name or of a YAML file, with every role of a run in it, in the order of their declarations.

    A UserError as of `load_spec`, and for a role that is not known, or that asks for what it cannot have.
    """
    spec = load_spec(name_or_path)
    for name, share in spec.roles.items():
        where, role = f"cluster {name_or_path}:", ROLES.get(name)
        if role is None:
            near = difflib.get_close_matches(name, ROLES, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"the roles are {', '.join(ROLES)}"
            raise UserError(f"{where} unknown key 'roles.{name}'; {hint}")
        where = f"{where} roles.{name}:"
        if role.most_replicas is not None and share.replicas > role.most_replicas:
            asked = f"replicas={share.replicas}"
            raise UserError(f"{where} {asked} is more than it can have: set it to {role.most_replicas}")
        if share.divide == "members" and not role.divides_members:
            able = ", ".join(other.name for other in ROLES.values() if other.divides_members)
            raise UserError(f"{where} divide=members is for {able}, which has members to divide: set it to rows")
    return spec.model_copy(update={"roles": {name: spec.roles.get(name, RoleSpec()) for name in ROLES}})
