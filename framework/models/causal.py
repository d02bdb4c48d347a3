"""The policy as a model: a Hugging Face causal language model, read as per-token log-probabilities.

transformers' model classes take seconds to import, so they are imported where a model is made: a
configuration is checked without them.
"""

from pathlib import Path
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from framework.component import Component
from framework.errors import UserError
from framework.logprobs import all_logprobs, token_logprobs
from framework.models.huggingface import HfModel
from framework.types import Rollout

VALUE_HEAD_FILE = "value_head.safetensors"


class TinyLlama(Component):
    """A Llama-style model made from scratch, for a world small enough to fit in seconds."""

    kind: Literal["tiny_llama"] = "tiny_llama"
    hidden: int = Field(default=128, gt=0)
    """Width of the residual stream."""
    layers: int = Field(default=2, gt=0)
    """Decoder layers."""
    heads: int = Field(default=4, gt=0)
    """Attention heads; must divide `hidden`."""
    intermediate: int = Field(default=256, gt=0)
    """Width of the feed-forward layer."""
    context: int = Field(default=64, gt=0)
    """Tokens: the longest prompt and response together."""

    def build(self, vocab_size: int, pad_id: int, eos_id: int) -> HfModel:
        """A freshly initialised model; draws from torch's global generator."""
        if self.hidden % self.heads:
            raise UserError(f"policy.hidden={self.hidden} is not a multiple of policy.heads={self.heads}")
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=self.context,
            tie_word_embeddings=True,
            initializer_range=0.05,  # the usual 0.02 is meant for wider models
            pad_token_id=pad_id,
            bos_token_id=None,
            eos_token_id=eos_id,
        )
        return LlamaForCausalLM(config)


class Pretrained(Component):
    """Any Hugging Face causal language model, by hub id or folder."""

    kind: Literal["pretrained"] = "pretrained"
    path: str
    """Hub id or folder; ${GOLDILOCKS_SHARED} is expanded."""
    gguf_file: str | None = None
    """Name of a GGUF file in that folder; converted once to plain layout."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """How the converted copy is stored."""


PolicyModel = Annotated[TinyLlama | Pretrained, Field(discriminator="kind")]


class CausalPolicy(nn.Module):
    """A causal language model with an optional scalar value head on the same trunk."""

    def __init__(self, model: HfModel, with_value_head: bool = False) -> None:
        super().__init__()
        self.model: HfModel = model
        self.value_head = nn.Linear(model.config.hidden_size, 1) if with_value_head else None
        if self.value_head is not None:
            # A critic that starts at zero makes the first advantages the returns themselves.
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)

    @property
    def output_weight(self) -> Float[Tensor, "V H"]:
        return self.model.get_output_embeddings().weight

    @property
    def context(self) -> int:
        """Tokens that fit, prompt and response together."""
        return int(self.model.config.max_position_embeddings)

    def hidden_states(
        self, input_ids: Int[Tensor, "B S"], prompt_mask: Bool[Tensor, "B P"]
    ) -> Float[Tensor, "B S H"]:
        """Last-layer states of left-padded prompts followed by right-padded responses.

        Right padding needs no mask under causal attention: nothing real can see it. Without left
        padding the mask is dropped altogether, which is the faster path.
        """
        padded = not bool(prompt_mask.all())
        mask, positions = None, None
        if padded:
            extra = input_ids.shape[1] - prompt_mask.shape[1]
            mask = torch.cat([prompt_mask, prompt_mask.new_ones(len(prompt_mask), extra)], dim=1)
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
            mask = mask.long()
        out = self.model.base_model(
            input_ids=input_ids, attention_mask=mask, position_ids=positions, use_cache=False
        )
        return out.last_hidden_state

    def response_states(self, rollout: Rollout) -> Float[Tensor, "B T H"]:
        """The state that each response token was predicted from."""
        # The last token predicts nothing that was sampled, so it is not read.
        input_ids = torch.cat([rollout.prompt_ids, rollout.response_ids[:, :-1]], dim=1)
        states = self.hidden_states(input_ids, rollout.prompt_mask)
        return states[:, rollout.prompt_ids.shape[1] - 1 :]

    def logprobs_and_values(
        self, rollout: Rollout, temperature: float = 1.0
    ) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"] | None]:
        """Log-probability of each response token (nats; 0 at padding), and the critic's values."""
        states = self.response_states(rollout)
        logprobs = token_logprobs(states, self.output_weight, rollout.response_ids, temperature)
        logprobs = logprobs.masked_fill(~rollout.mask, 0.0)
        values = None
        if self.value_head is not None:
            values = self.value_head(states).squeeze(-1).float().masked_fill(~rollout.mask, 0.0)
        return logprobs, values

    def full_logprobs(self, rollout: Rollout, temperature: float = 1.0) -> Float[Tensor, "B T V"]:
        """Log-probability of every token at every response position, for exact KL on a sample."""
        return all_logprobs(self.response_states(rollout), self.output_weight, temperature)

    def save(self, folder: Path) -> None:
        """Write plain Hugging Face layout, and the value head beside it."""
        self.model.save_pretrained(folder)
        if self.value_head is not None:
            save_file(
                {k: v.contiguous() for k, v in self.value_head.state_dict().items()}, folder / VALUE_HEAD_FILE
            )

    @classmethod
    def load(
        cls, folder: str | Path, with_value_head: bool = False, dtype: torch.dtype = torch.float32
    ) -> "CausalPolicy":
        """Read a folder that `save` or `save_pretrained` wrote. Parameters in `dtype`."""
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, attn_implementation="sdpa")
        policy = cls(model, with_value_head=with_value_head)
        head = Path(folder) / VALUE_HEAD_FILE
        if policy.value_head is not None and head.exists():
            policy.value_head.load_state_dict(load_file(head))
        return policy
