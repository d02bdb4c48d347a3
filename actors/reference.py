"""The reference role: the frozen policy that KL is measured from and answers are compared with."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from actors.group import Pending
from actors.roles import WeightsRole
from framework.errors import RunError
from framework.generation.sampler import SampleRequest, TorchSampler
from framework.models.causal import CausalPolicy
from framework.models.tokenizer import load_tokenizer
from framework.precision import Precision
from framework.seeding import derive
from framework.types import Answers, Rollout


class ReferenceWorker:
    """Log-probabilities under a frozen policy and answers from it, a fixed number of rows per forward pass."""

    def __init__(
        self,
        folder: str,
        rows: int,
        temperature: float,
        precision: Precision,
        seed: int,
        max_new_tokens: int,
        instruction: str | None,
    ) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.rows, self.temperature, self.precision = rows, temperature, precision
        self.seed, self.max_new_tokens, self.instruction = seed, max_new_tokens, instruction
        self.load(folder)

    def load(self, folder: str) -> None:
        """Be the policy in `folder` from now on."""
        policy = CausalPolicy.load(folder, precision=self.precision)
        self.policy, self.folder = policy.to(self.device).eval().requires_grad_(False), folder
        self.sampler: TorchSampler | None = None

    @torch.inference_mode()
    def logprobs(self, rollout: Rollout) -> Float[Tensor, "B T"]:
        """Log-probability of each response token, in nats; 0 at padding."""
        out = self.policy.logprobs_in_passes(rollout, self.rows, self.temperature)
        if not bool(torch.isfinite(out).all()):
            raise RunError(f"reference: a log-probability is not finite at step {rollout.step}")
        return out

    @torch.inference_mode()
    def full_logprobs(self, rollout: Rollout) -> Float[Tensor, "B T V"]:
        """Log-probability of every token at every position: for a few rows only."""
        return self.policy.full_logprobs(rollout.to(self.device), self.temperature).cpu()

    def answers(self, prompts: Rollout, count: int) -> Answers:
        """`count` answers to the prompt of each row, one row per group; step and group name the random numbers."""
        if self.sampler is None:
            # Its random numbers are not those that rollouts are sampled with.
            seed, tokenizer = derive(self.seed, "reference-answers"), load_tokenizer(self.folder)
            words = self.max_new_tokens, self.temperature, self.instruction
            self.sampler = TorchSampler(self.policy, tokenizer, seed, *words)
        responses: list[str] = []
        ended: list[Tensor] = []
        unit = prompts_per_pass(self.rows, count)
        for start in range(0, len(prompts), unit):
            part = prompts.rows(start, start + unit)
            places = tuple(part.group.tolist())
            request = SampleRequest(
                prompts=part.prompts, positions=places, samples_per_prompt=count, step=part.step, policy_version=0
            )
            sampled = self.sampler.sample(request)
            responses += sampled.responses
            ended.append(sampled.ended)
        asked = prompts.select([row for row in range(len(prompts)) for _ in range(count)])
        return Answers(asked.prompts, tuple(responses), torch.cat(ended), asked.group, asked.step)


def prompts_per_pass(rows: int, count: int) -> int:
    """How many prompts are answered `count` times in one pass of about `rows` rows."""
    return max(1, rows // count)


def _join_answers(parts: Sequence[Answers]) -> Answers:
    return Answers(
        prompts=tuple(prompt for part in parts for prompt in part.prompts),
        responses=tuple(response for part in parts for response in part.responses),
        ended=torch.cat([part.ended for part in parts]),
        group=torch.cat([part.group for part in parts]),
        step=parts[0].step,
    )


class ReferenceRole(WeightsRole):
    """What the driver knows of the reference."""

    def logprobs(self, rollout: Rollout) -> Pending[Float[Tensor, "B T"]]:
        return self.track("reference", self.group.scatter("logprobs", rollout, unit=self.rows, join=torch.cat))

    def full_logprobs(self, rollout: Rollout) -> Pending[Float[Tensor, "B T V"]]:
        return self.track("exact_kl", self.group.call("full_logprobs", rollout))

    def answers(self, rollout: Rollout, count: int) -> Pending[Answers]:
        """`count` answers to each distinct prompt of the rollout."""
        first = {group: row for row, group in reversed(list(enumerate(rollout.group.tolist())))}
        prompts = rollout.select(sorted(first.values()))
        unit = prompts_per_pass(self.rows, count)
        return self.track("answers", self.group.scatter("answers", prompts, count, unit=unit, join=_join_answers))
