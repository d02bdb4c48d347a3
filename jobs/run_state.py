"""What the driver remembers between steps: enough, with the policy's folder, to go on as if never stopped."""

from dataclasses import asdict, dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from framework.data.prompts import PromptStream
from framework.generation.sampler import SampleRequest
from framework.gold_turn import GoldState
from framework.kl import KlState
from framework.methods import Online
from framework.methods.online import is_due
from framework.training.policy_update import UpdateReport
from framework.types import Shaped


@dataclass(frozen=True)
class RunState:
    """Immutable; `after` gives the next one. Random numbers need no place here: they derive from `step`."""

    step: int
    """Steps completed."""
    policy_version: int
    """Updates the policy has seen."""
    kl: KlState
    """Memory of the KL controller."""
    gold: GoldState = field(default_factory=GoldState)
    """Memory of the test whether gold has turned; it decides when a run ends, and nothing else."""

    @classmethod
    def start(cls, train: Online) -> "RunState":
        return cls(step=0, policy_version=0, kl=train.kl.start())

    def request(self, train: Online, prompts: PromptStream) -> SampleRequest:
        """What to sample in this step."""
        positions, texts = prompts.take(train.prompts_per_step, at=self.step)
        each, version = train.samples_per_prompt, self.policy_version
        return SampleRequest(
            prompts=texts, positions=positions, samples_per_prompt=each, step=self.step, policy_version=version
        )

    def ended(self, train: Online) -> str | None:
        """Why the run is over, in a few words; None while it is not."""
        if self.kl.spent:
            return "KL budget spent"
        if self.gold.turned:
            return "gold turned"
        return "all steps" if self.step >= train.steps else None

    def due(self, every: int, steps: int) -> bool:
        """`is_due` at this step."""
        return is_due(self.step, every, steps)

    def after(self, train: Online, shaped: Shaped, report: UpdateReport, gold: Float[Tensor, "B"] | None) -> "RunState":
        """The state once a step is done: one step on, and the KL controller moved by what was measured."""
        kl = train.kl.next(self.kl, float(shaped.kl_nats.mean()), len(shaped))
        looks = self.gold
        if train.stop_at_gold_turn is not None and gold is not None:
            looks = train.stop_at_gold_turn.next(looks, gold, shaped.rollout.group)
        return RunState(self.step + 1, report.policy_version, kl, looks)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "RunState":
        gold: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record["gold"].items()}
        return cls(record["step"], record["policy_version"], KlState(**record["kl"]), GoldState(**gold))
