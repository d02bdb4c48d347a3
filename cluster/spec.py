"""What each role asks of the machines, as data. The same experiment runs on any layout that fits."""

import difflib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from framework.component import Component
from framework.config_errors import explain
from framework.data.paths import expand
from framework.errors import UserError
from framework.overrides import read_mapping

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
    divide: Literal["rows", "members"] = "rows"
    """What replicas of the reward role divide among them: the rows of a batch, each holding the whole ensemble, or the
    ensemble's members, each seeing all rows: for one too large for a single worker. The numbers are the same."""

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
    roles: dict[str, RoleSpec] = Field(default={})
    """What each role asks for, by its name: policy, reference, reward, gold. One that is not named asks for the defaults."""
    fit: RoleSpec = RoleSpec()
    """The workers of a fit (`replicas` of them, data-parallel), of the policy or of the reward; they live while it lasts."""
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
    """The layout of a shipped name or of a YAML file. Which roles there are, it does not know.

    A UserError for an unknown name (the shipped ones are listed, nearest first), no such file, no YAML, an unknown key
    or a bad value.
    """
    text = str(name_or_path)
    path = SHIPPED / f"{text}.yaml" if text in shipped_specs() else Path(expand(text))
    if not path.exists():
        near = difflib.get_close_matches(text, shipped_specs(), n=1, cutoff=0.4)
        ordered = dict.fromkeys(near + shipped_specs())
        raise UserError(f"cluster {text!r} is neither a file nor a shipped layout: {', '.join(ordered)}")
    try:
        return ClusterSpec.model_validate({"name": path.stem} | read_mapping(path))
    except ValidationError as error:
        raise UserError(explain(error.errors(), ClusterSpec, str(path))) from None
