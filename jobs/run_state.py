"""What the driver remembers between steps: enough, with the policy's folder, to go on as if never stopped."""

from dataclasses import asdict, dataclass
from typing import Any

from framework.config import Config
from framework.data.prompts import PromptStream
from framework.generation.sampler import SampleRequest
from framework.kl import KlState
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

    @classmethod
    def start(cls, cfg: Config) -> "RunState":
        return cls(step=0, policy_version=0, kl=cfg.kl.start())

    def request(self, cfg: Config, prompts: PromptStream) -> SampleRequest:
        """What to sample in this step."""
        positions, texts = prompts.take(cfg.prompts_per_step, at=self.step)
        return SampleRequest(
            prompts=texts,
            positions=positions,
            samples_per_prompt=cfg.samples_per_prompt,
            step=self.step,
            policy_version=self.policy_version,
        )

    def due(self, every: int, steps: int) -> bool:
        """Whether something done `every` steps is due now; always at the last of `steps`. 0 is never."""
        return every > 0 and (self.step % every == 0 or self.step == steps - 1)

    def after(self, cfg: Config, shaped: Shaped, report: UpdateReport) -> "RunState":
        """The state once a step is done: one step on, and the KL controller moved by what was measured."""
        kl = cfg.kl.next(self.kl, float(shaped.kl_nats.mean()), len(shaped))
        return RunState(self.step + 1, report.policy_version, kl)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "RunState":
        return cls(record["step"], record["policy_version"], KlState(**record["kl"]))
