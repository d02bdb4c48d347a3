"""Sampling responses with one stream of random numbers per row.

A row's draws depend on (run seed, step, prompt position, sample number) alone, so a response does not
change with the number of workers or the order in which they finish.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import InstanceOf
from torch import Tensor

from framework.component import Component
from framework.data.conversations import Conversation
from framework.errors import UserError
from framework.generation.decoder import decoder_for
from framework.models.causal import CausalPolicy
from framework.models.encoding import open_ids, opening, padded
from framework.models.huggingface import HfTokenizer
from framework.seeding import numpy_generator
from framework.types import Rollout


class SampleRequest(Component):
    """Which responses to sample: every prompt `samples_per_prompt` times."""

    prompts: tuple[InstanceOf[str], ...]
    """As they are: a conversation must not be made text."""
    positions: tuple[int, ...]
    """Place of each prompt in the run's endless prompt stream: names its random numbers."""
    samples_per_prompt: int
    step: int
    policy_version: int


class TorchSampler:
    """Samples with the policy's own weights, in process."""

    def __init__(
        self,
        policy: CausalPolicy,
        tokenizer: HfTokenizer,
        seed: int,
        max_new_tokens: int,
        temperature: float = 1.0,
        instruction: str | None = None,
    ) -> None:
        self.policy, self.tokenizer, self.seed = policy, tokenizer, seed
        policy.head.restrict(tokenizer)
        self.max_new_tokens, self.temperature, self.instruction = max_new_tokens, temperature, instruction
        if instruction is not None:
            opening(tokenizer, "prompt", instruction)  # refuses a tokenizer without a chat template
        ends = policy.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self.end_ids = sorted({tokenizer.eos_token_id, *(e for e in ends if e is not None)})

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Rollout:
        """A rollout of `len(prompts) * samples_per_prompt` rows, those of one prompt adjacent; errors as of `left_padded`."""
        settings = self.instruction, self.max_new_tokens, self.policy.context
        encoded = left_padded(self.tokenizer, request.prompts, *settings)
        ids, mask = (rows.to(self.policy.device) for rows in encoded)
        uniforms = self._uniforms(request).to(ids.device)
        with self.policy.autocast():
            tokens, real, logprobs, values = self._decode(ids, mask, uniforms)
        ids = ids.repeat_interleave(request.samples_per_prompt, dim=0)
        mask = mask.repeat_interleave(request.samples_per_prompt, dim=0)
        return Rollout(
            prompt_ids=ids,
            prompt_mask=mask,
            response_ids=tokens,
            mask=real,
            logprobs=logprobs,
            values=values,
            ended=torch.isin(tokens, torch.tensor(self.end_ids, device=tokens.device)).logical_and(real).any(1),
            group=torch.arange(len(request.prompts)).repeat_interleave(request.samples_per_prompt),
            prompts=tuple(p for p in request.prompts for _ in range(request.samples_per_prompt)),
            responses=tuple(self._texts(request, ids, tokens, real)),
            step=request.step,
            policy_version=request.policy_version,
        ).to("cpu")

    def _uniforms(self, request: SampleRequest) -> Float[Tensor, "B T"]:
        """One row of uniforms in [0, 1) per response, from a generator of its own."""
        rows = [
            numpy_generator(self.seed, "sample", request.step, position, sample).random(self.max_new_tokens)
            for position in request.positions
            for sample in range(request.samples_per_prompt)
        ]
        return torch.from_numpy(np.stack(rows)).float().clamp(max=1 - 2**-24)

    def _decode(
        self, ids: Int[Tensor, "N P"], mask: Bool[Tensor, "N P"], uniforms: Float[Tensor, "B T"]
    ) -> tuple[Int[Tensor, "B W"], Bool[Tensor, "B W"], Float[Tensor, "B W"], Float[Tensor, "B W"] | None]:
        """Tokens, mask, log-probs and values of the W tokens it takes until every row has ended."""
        decoder = decoder_for(self.policy.model, self.max_new_tokens)
        critic = self.policy.value_head
        ends = torch.tensor(self.end_ids, device=ids.device)
        alive = torch.ones(len(uniforms), dtype=torch.bool, device=ids.device)
        tokens, real, logprobs, values = [], [], [], []
        state = decoder.prefill(ids, mask, copies=len(uniforms) // len(ids))
        for t in range(self.max_new_tokens):
            token, logprob = draw(self.policy.head.of_step(state) / self.temperature, uniforms[:, t])
            tokens.append(token)
            logprobs.append(logprob)
            if critic is not None:
                values.append(critic(state).squeeze(-1).float())
            real.append(alive)
            alive = alive & (token.unsqueeze(1) != ends).all(dim=1)
            if t + 1 == self.max_new_tokens or not bool(alive.any()):
                break
            state = decoder.step(token)
        mask = torch.stack(real, dim=1)
        stacked = torch.stack(values, dim=1).where(mask, 0.0) if critic is not None else None
        kept = torch.stack(tokens, dim=1).where(mask, self.tokenizer.pad_token_id)
        return kept, mask, torch.stack(logprobs, dim=1).where(mask, 0.0), stacked

    def _texts(
        self, request: SampleRequest, ids: Int[Tensor, "B P"], tokens: Int[Tensor, "B T"], real: Bool[Tensor, "B T"]
    ) -> list[str]:
        """Responses as text, decoded in the context of their prompt so that leading spaces survive."""
        prompt_rows = ids.tolist()
        whole = [p + row[:n] for p, row, n in zip(prompt_rows, tokens.tolist(), real.sum(dim=1).tolist(), strict=True)]
        before = self.tokenizer.batch_decode(prompt_rows, skip_special_tokens=True)
        after = self.tokenizer.batch_decode(whole, skip_special_tokens=True)
        texts = [a[len(b) :] for a, b in zip(after, before, strict=True)]
        if self.instruction is None:
            return texts
        # A chat reply does not continue the prompt's last word, and scorers read prompt + response. To a conversation
        # they join it themselves.
        asked = [prompt for prompt in request.prompts for _ in range(request.samples_per_prompt)]
        joins = [isinstance(p, Conversation) or not t or t[0].isspace() for p, t in zip(asked, texts, strict=True)]
        return [text if join else f" {text}" for text, join in zip(texts, joins, strict=True)]


def left_padded(
    tokenizer: HfTokenizer, prompts: Sequence[str], instruction: str | None, max_new_tokens: int, context: int | None
) -> tuple[Int[Tensor, "B P"], Bool[Tensor, "B P"]]:
    """Left-padded ids of prompts, as of `opening`.

    A `UserError` where one has no tokens, or cannot fit the model's context of tokens together with its response.
    """
    rows = open_ids(tokenizer, [opening(tokenizer, p, instruction) for p in prompts])
    width = max(len(row) for row in rows)
    if context is not None and width + max_new_tokens > context:
        worst = max(range(len(rows)), key=lambda i: len(rows[i]))
        raise UserError(
            f"prompt {prompts[worst][:40]!r} has {width} tokens; with max_new_tokens={max_new_tokens} "
            f"that is over the model's context of {context}: shorten prompts or max_new_tokens"
        )
    if not min(len(row) for row in rows):
        raise UserError("a prompt has no tokens: give every prompt some text")
    return padded(rows, tokenizer.pad_token_id, left=True)


def draw(logits: Float[Tensor, "B V"], uniform: Float[Tensor, "B"]) -> tuple[Int[Tensor, "B"], Float[Tensor, "B"]]:
    """One token per row by inverting the cumulative distribution, and its log-probability (nats).

    Written this way, and not with `torch.multinomial`, because a row's token then depends on its own
    uniform alone. A token of probability zero is never drawn: its step of the distribution is empty.
    """
    logprobs = torch.log_softmax(logits, dim=-1)
    cumulative = logprobs.exp().cumsum(dim=-1)
    threshold = uniform.unsqueeze(1) * cumulative[:, -1:]
    # A uniform below 1 leaves the product below the total, rounded too. The clamp is for logits that are not
    # numbers: their loss tells.
    token = torch.searchsorted(cumulative, threshold, right=True).clamp(max=logits.shape[1] - 1)
    return token.squeeze(1), logprobs.gather(1, token).squeeze(1)
