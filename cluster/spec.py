"""What each role asks of the machines, as data. The same experiment runs on any layout that fits."""

import difflib
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from framework.component import Component
from framework.errors import UserError, one_line

SHIPPED = Path(__file__).parent / "specs"


class RoleSpec(Component):
    """What one role asks for; every replica asks for the same."""

    replicas: int = Field(default=1, ge=1)
    """Workers that share the role's rows."""
    cpus: float = Field(default=1.0, ge=0)
    """CPUs that one worker claims; a fraction where roles take turns."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs that one worker claims: a fraction of one device, or whole devices."""
    threads: int = Field(default=1, ge=1)
    """Threads of one worker's tensor operations. Threads beyond free cores spin against each other."""

    @field_validator("gpus")
    @classmethod
    def _fraction_or_whole(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("a share above one GPU must be a whole number of GPUs")
        return gpus

    @model_validator(mode="after")
    def _asks_for_something(self) -> "RoleSpec":
        if self.cpus == 0 and self.gpus == 0:
            raise ValueError("cpus and gpus are both 0: a worker must claim a share of something")
        return self


class RewardSpec(RoleSpec):
    """What the reward role asks for."""

    divide: Literal["rows", "members"] = "rows"
    """What replicas divide among them: the rows of a batch, each holding the whole ensemble, or the
    ensemble's members, each seeing all rows: for one too large for a single worker. The numbers are the same."""


class Roles(Component):
    """The four roles of the online loop."""

    policy: RoleSpec = RoleSpec()
    """Samples and is trained."""
    reference: RoleSpec = RoleSpec()
    """The frozen policy that KL is measured against."""
    reward: RewardSpec = RewardSpec()
    """The proxy: the reward ensemble."""
    gold: RoleSpec = RoleSpec()
    """The withheld scorer."""

    @field_validator("policy")
    @classmethod
    def _one_policy(cls, policy: RoleSpec) -> RoleSpec:
        if policy.replicas != 1:
            raise ValueError(
                f"replicas={policy.replicas}: the policy trains in one worker for now, set it to 1 "
                "(reference, reward and gold may have more)"
            )
        return policy

    def named(self) -> dict[str, RoleSpec]:
        """The roles by name, in the order of their bundles."""
        return {"policy": self.policy, "reference": self.reference, "reward": self.reward, "gold": self.gold}


class LocalResources(Component):
    """What a session that is started on this machine offers; None is what the machine has."""

    num_cpus: int | None = Field(default=None, ge=1)
    """Logical CPUs; may exceed the real ones, since the count is only a claim."""
    num_gpus: int | None = Field(default=None, ge=0)
    """Logical GPUs; on a machine without any, a layout of several can be rehearsed."""


class ClusterSpec(Component):
    """A layout: every role's share, and how long to wait for it."""

    name: str
    """Shown in messages."""
    roles: Roles = Roles()
    fit: RoleSpec = RoleSpec()
    """The workers of a reward fit (`replicas` of them, data-parallel); they live while it lasts."""
    strategy: Literal["PACK", "SPREAD"] = "PACK"
    """PACK fills few nodes; SPREAD prefers one node per worker. Both are preferences."""
    local: LocalResources = LocalResources()
    """Used where no cluster is attached to."""
    placement_timeout_seconds: float = Field(default=30.0, gt=0)
    """Seconds to wait for a busy cluster. A layout that can never fit is refused at once."""
    call_timeout_seconds: float = Field(default=1800.0, gt=0)
    """Seconds that one call to a role may take before the run stops."""


def shipped_specs() -> list[str]:
    """Names of the layouts that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_spec(name_or_path: str | Path) -> ClusterSpec:
    """The layout of a shipped name or of a YAML file.

    Raises:
        UserError: an unknown name (the shipped ones are listed, nearest first), no such file, not
            YAML, an unknown key or a bad value.
    """
    text = str(name_or_path)
    path = SHIPPED / f"{text}.yaml" if text in shipped_specs() else Path(text)
    if not path.is_file():
        names = shipped_specs()
        near = difflib.get_close_matches(text, names, n=1, cutoff=0.4)
        ordered = near + [name for name in names if name not in near]
        raise UserError(f"cluster {text!r} is neither a file nor a shipped layout: {', '.join(ordered)}")
    try:
        tree = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path} must hold a mapping of keys, such as roles:")
    try:
        return ClusterSpec.model_validate({"name": path.stem} | tree)
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error.errors()[0])}") from None


def _explain(error: ErrorDetails) -> str:
    """One pydantic error as one line."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        models = (ClusterSpec, Roles, RewardSpec, LocalResources)
        known = sorted({name for model in models for name in model.model_fields})
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.5)
        return f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    if error["type"] == "value_error":
        return f"{key}: {error['msg'].removeprefix('Value error, ')}"
    return f"{key}={error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"
