"""Which model a policy starts as. Light: a configuration is read without torch and transformers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from framework.component import Component
from framework.seeding import derive

if TYPE_CHECKING:
    from framework.models.huggingface import HfModel
    from framework.worlds import World


class TinyLlama(Component):
    """A Llama-style model made from scratch, for a world small enough to fit in seconds."""

    kind: Literal["tiny_llama"] = "tiny_llama"
    hidden: int = Field(default=128, gt=0, le=2**16)
    """Width of the residual stream."""
    layers: int = Field(default=2, gt=0, le=1000)
    """Decoder layers."""
    heads: int = Field(default=4, gt=0)
    """Attention heads; must divide `hidden`."""
    intermediate: int = Field(default=256, gt=0, le=2**18)
    """Width of the feed-forward layer."""
    context: int = Field(default=64, gt=0, le=2**20)
    """Tokens: the longest prompt and response together."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden % (2 * self.heads):  # rotary positions turn a head's numbers two by two
            raise ValueError(
                f"policy.hidden={self.hidden} does not divide into policy.heads={self.heads} of an even size"
            )
        return self

    def misfit(self, world: "World", new_tokens: int) -> str | None:
        """Why the policy of a world cannot start as this, or not answer in so many tokens, in a line; None where it can."""
        if not hasattr(world, "tokenizer"):
            return (
                f"policy.kind={self.kind} learns the words of a world that has its own, and world.kind={world.kind} has "
                "none: set policy.kind=pretrained"
            )
        prompt = max(world.prompts("train"), key=lambda text: len(text.split()))
        if len(prompt.split()) + new_tokens <= self.context:
            return None
        return (
            f"prompt {prompt!r} has {len(prompt.split())} tokens; with max_new_tokens={new_tokens} that is over the "
            f"model's context of {self.context}: lower it, or raise policy.context"
        )

    def write(self, folder: Path, world: "World", seed: int) -> None:
        """A freshly initialised model with the world's tokenizer, in plain Hugging Face layout."""
        import torch

        tokenizer = getattr(world, "tokenizer")()  # noqa: B009  # Config asks `misfit`
        torch.manual_seed(derive(seed, "policy") % 2**32)
        self.build(len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    def build(self, vocab_size: int, pad_id: int, eos_id: int) -> "HfModel":
        """A freshly initialised model; draws from torch's global generator."""
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

    def misfit(self, world: "World", new_tokens: int) -> str | None:
        """As that of `TinyLlama`: it brings its own words, and starts in any world."""
        return None

    def write(self, folder: Path, world: "World", seed: int) -> None:
        """The model and its tokenizer, in plain Hugging Face layout."""
        from framework.models.convert import to_plain

        to_plain(self.path, folder, self.gguf_file, self.dtype)


PolicyModel = Annotated[TinyLlama | Pretrained, Field(discriminator="kind")]
