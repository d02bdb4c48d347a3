"""The policy role: samples responses and learns from them."""

import dataclasses
import json
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from actors.group import Pending
from actors.roles import WeightsRole
from framework.divergence import exact_kl
from framework.errors import RunError
from framework.generation.sampler import SampleRequest, TorchSampler
from framework.models.causal import CausalPolicy
from framework.models.proof import prove
from framework.models.tokenizer import load_tokenizer
from framework.objectives import Objective
from framework.precision import Precision
from framework.seeding import derive
from framework.shaping import Shaping
from framework.training.policy_update import PolicyUpdate, Update, UpdateReport
from framework.training.torch_engine import TorchEngine
from framework.types import Credited, Rollout

VERSION_FILE = "policy_version.json"


class PolicyWorker:
    """One process that holds the trained weights, their optimiser and the sampler."""

    def __init__(
        self,
        folder: str,
        seed: int,
        max_new_tokens: int,
        temperature: float,
        instruction: str | None,
        update: Update,
        objective: Objective,
        shaping: Shaping,
        needs_critic: bool,
        total_rollouts: int,
        precision: Precision,
        rows: int = 8,
    ) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(derive(seed, "policy-init") % 2**32)
        self.tokenizer = load_tokenizer(folder)
        self.policy = CausalPolicy.load(folder, needs_critic, precision).to(self.device).eval()
        prove(self.policy.model, folder)
        self.version = 0
        steps = total_rollouts * update.epochs * update.minibatches
        self.engine = TorchEngine(self.policy, update.optimizer, steps, precision)
        self.sampler = TorchSampler(self.policy, self.tokenizer, seed, max_new_tokens, temperature, instruction)
        self.learn = PolicyUpdate(self.engine, update, objective, shaping, seed, temperature)
        self.temperature, self.rows = temperature, rows

    def rollout(self, request: SampleRequest) -> Rollout:
        """Sample the responses of one step, stamped with the weights' version.

        In bfloat16, decoding rounds otherwise than a pass over the whole text: tenths of a nat per sequence. KL is
        measured between equal passes, so the policy reads its responses as the reference will.
        """
        if request.policy_version != self.version:
            wants = f"step {request.step} wants weights of version {request.policy_version}"
            raise RunError(f"policy: {wants}, these are {self.version}")
        with self.engine.whole_weights():
            rollout = self.sampler.sample(request)
            if self.policy.precision == "float32":
                return rollout
            logprobs = self.policy.logprobs_in_passes(rollout, self.rows, self.temperature)
        return dataclasses.replace(rollout, logprobs=logprobs, drawn_logprobs=rollout.logprobs)

    def update(self, credited: Credited) -> UpdateReport:
        """Learn from one step's rollout; the weights' version goes up by one."""
        metrics = self.learn(credited)
        self.version += 1
        return UpdateReport(metrics, self.version)

    @torch.no_grad()
    def exact_kl(self, rollout: Rollout, reference: Float[Tensor, "B T V"]) -> Float[Tensor, "B"]:
        """KL(policy || reference) per sequence in nats, summed over the whole vocabulary at each position."""
        with self.engine.whole_weights():
            full = self.policy.full_logprobs(rollout.to(self.device), self.temperature).cpu()
        return (exact_kl(full, reference) * rollout.mask).sum(dim=1)

    def save(self, folder: str) -> None:
        """Weights in Hugging Face layout with the tokenizer, optimiser state and version beside them."""
        path, mend = Path(folder), "begin another run with a lower train.update.optimizer.lr"
        with self.engine.whole_weights():
            self.engine.assert_finite(f"policy, after {self.version} updates", mend)
            self.policy.save(path)
        self.tokenizer.save_pretrained(path)
        self.engine.save(path)
        (path / VERSION_FILE).write_text(json.dumps({"policy_version": self.version}) + "\n", encoding="utf-8")

    def load(self, folder: str) -> None:
        """Continue from what `save` wrote."""
        path = Path(folder)
        saved = CausalPolicy.load(path, with_value_head=self.policy.value_head is not None)
        with self.engine.whole_weights():
            self.policy.load_state_dict(saved.state_dict())
        self.engine.load(path)
        self.version = json.loads((path / VERSION_FILE).read_text(encoding="utf-8"))["policy_version"]


class PolicyRole(WeightsRole):
    """What the driver knows of the policy."""

    def rollout(self, request: SampleRequest) -> Pending[Rollout]:
        return self.track("rollout", self.group.call("rollout", request))

    def update(self, credited: Credited) -> Pending[UpdateReport]:
        return self.track("update", self.group.call("update", credited))

    def exact_kl(self, rollout: Rollout, reference: Float[Tensor, "B T V"]) -> Pending[Float[Tensor, "B"]]:
        return self.track("exact_kl", self.group.call("exact_kl", rollout, reference))

    def save(self, folder: Path) -> Pending[None]:
        return self.track("checkpoint", self.group.call("save", str(folder)))
