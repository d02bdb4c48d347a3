"""The policy as a model: a Hugging Face causal language model, read as per-token log-probabilities.

It is loaded with every weight there, no foreign code, and nothing unpickled. transformers' model classes take seconds to
import, so they are imported where a model is made.
"""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from framework.data.paths import expand
from framework.errors import UserError, first_line
from framework.logprobs import token_logprobs
from framework.models.huggingface import HfModel
from framework.models.language_head import LanguageHead, trunk_of, understood
from framework.models.tokenizer import load_tokenizer
from framework.precision import Precision
from framework.types import Rollout

VALUE_HEAD_FILE = "value_head.safetensors"


@dataclass(frozen=True)
class PolicyOutput:
    """What a policy says of the responses of a rollout."""

    logprobs: Float[Tensor, "B T"]
    """Of each response token, in nats; 0 at padding."""
    values: Float[Tensor, "B T"] | None
    """The critic's, without a critic None; 0 at padding."""
    logits: Float[Tensor, "B T V"] | None = None
    """Where they are asked for, divided by the temperature."""
    features: Float[Tensor, "B T H"] | None = None
    """Where they are asked for: the states that the tokens are predicted from."""


class CausalPolicy(nn.Module):
    """A causal language model with an optional scalar value head on the same trunk."""

    def __init__(self, model: HfModel, with_value_head: bool = False, precision: Precision = "float32") -> None:
        super().__init__()
        self.precision = precision
        """Of every pass: one policy, and a reference with its weights, say the same wherever they are asked."""
        self.model: HfModel = model
        self.head = LanguageHead(model)
        # Narrower than the trunk where a projection ends it (opt-350m).
        width = model.get_output_embeddings().in_features if self.head.plain else model.config.hidden_size
        self.value_head = nn.Linear(width, 1) if with_value_head else None
        if self.value_head is not None:
            # A critic that starts at zero makes the first advantages the returns themselves.
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def context(self) -> int | None:
        return context_of(self.model.config)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """What its passes run in. Weights stay float32."""
        reduced = self.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if reduced else contextlib.nullcontext()

    def hidden_states(self, input_ids: Int[Tensor, "B S"], prompt_mask: Bool[Tensor, "B P"]) -> Float[Tensor, "B S H"]:
        """Last-layer states of left-padded prompts followed by right-padded responses.

        Right padding needs no mask under causal attention: nothing real can see it. Without left padding the mask is
        dropped altogether, which is the faster path.
        """
        mask, positions = None, None
        if not bool(prompt_mask.all()):
            extra = input_ids.shape[1] - prompt_mask.shape[1]
            mask = torch.cat([prompt_mask, prompt_mask.new_ones(len(prompt_mask), extra)], dim=1)
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
            mask = mask.long()
        trunk = trunk_of(self.model)
        said = understood(trunk, attention_mask=mask, position_ids=positions, use_cache=False)
        return trunk(input_ids=input_ids, **said).last_hidden_state

    def response_states(self, rollout: Rollout) -> Float[Tensor, "B T H"]:
        """The state that each response token was predicted from."""
        # The last token predicts nothing that was sampled, so it is not read.
        input_ids = torch.cat([rollout.prompt_ids, rollout.response_ids[:, :-1]], dim=1)
        states = self.hidden_states(input_ids, rollout.prompt_mask)
        return states[:, rollout.prompt_ids.shape[1] - 1 :]

    def forward(
        self, rollout: Rollout, temperature: float = 1.0, needs_logits: bool = False, needs_features: bool = False
    ) -> PolicyOutput:
        """What this policy, at a temperature, says of responses that another may have sampled."""
        with self.autocast():
            states = self.response_states(rollout)
            logprobs = token_logprobs(states, self.head, self.head.size, rollout.response_ids, temperature)
            logprobs = logprobs.masked_fill(~rollout.mask, 0.0)
            values = None
            if self.value_head is not None:
                values = self.value_head(states).squeeze(-1).float().masked_fill(~rollout.mask, 0.0)
            logits = self.head(states) / temperature if needs_logits else None
        return PolicyOutput(logprobs, values, logits, states if needs_features else None)

    @torch.no_grad()
    def logprobs_in_passes(self, rollout: Rollout, rows: int, temperature: float) -> Float[Tensor, "B T"]:
        """Log-probability of each response token on the CPU, in nats; 0 at padding. The same passes give the same bits."""
        passes = (rollout.rows(start, start + rows) for start in range(0, len(rollout), rows))
        return torch.cat([self(each.to(self.device), temperature).logprobs for each in passes]).cpu()

    def full_logprobs(self, rollout: Rollout, temperature: float = 1.0) -> Float[Tensor, "B T V"]:
        """Log-probability of every token at every response position, for exact KL on a sample."""
        with self.autocast():
            return (self.head(self.response_states(rollout)) / temperature).log_softmax(dim=-1)

    def save(self, folder: Path) -> None:
        """Write plain Hugging Face layout, and the value head beside it."""
        self.model.save_pretrained(folder)
        if self.value_head is not None:
            save_file({k: v.contiguous() for k, v in self.value_head.state_dict().items()}, folder / VALUE_HEAD_FILE)

    @classmethod
    def load(
        cls, folder: str | Path, with_value_head: bool = False, precision: Precision = "float32"
    ) -> "CausalPolicy":
        """Read a folder that `save` or `save_pretrained` wrote, passes in `precision`; errors as of `load_causal`."""
        policy = cls(load_causal(folder, str(folder)), with_value_head, precision)
        if Path(folder, "tokenizer_config.json").is_file():
            policy.head.restrict(load_tokenizer(folder))
        head = Path(folder) / VALUE_HEAD_FILE
        if policy.value_head is not None and head.exists():
            policy.value_head.load_state_dict(load_file(head))
        return policy


def load_causal(folder: str | Path, where: str, **options: Any) -> HfModel:
    """A causal language model in float32; `options` go to `from_pretrained`, and `where` is what errors name.

    A `UserError` where there is none, one of another kind, or one with weights missing, which would be random numbers.
    """
    from transformers import AutoModelForCausalLM

    if not options.get("gguf_file"):
        refuse_type(folder, where)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=torch.float32, output_loading_info=True, use_safetensors=True, trust_remote_code=False,
            **options,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{where}: no causal language model can be loaded ({first_line(error)})") from error
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"{where}: {len(missing)} weights of the model are missing, {missing[0]} for one, and would be random "
            "numbers: take the whole model"
        )
    make_savable(model)
    return model


def refuse_type(folder: str | Path, where: str) -> None:
    """Refuses what its config.json says is no causal language model, or of an unknown type; reads nothing else."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    file = Path(expand(str(folder)), "config.json")
    if not file.is_file():
        return
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        kind = settings.get("model_type")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file}: not JSON of a model's settings ({error})") from error
    why = None
    if kind not in CONFIG_MAPPING_NAMES:
        why = "is not known to transformers, and code that comes with a model is never run"
    elif kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        why = "is not a causal language model"
    elif settings.get("is_encoder_decoder"):
        why = "with an encoder is not a causal language model"
    if why:
        raise UserError(f"{where}: a model of type {kind!r} {why}; name another")


def make_savable(model: HfModel) -> None:
    """Keep the special ids alone of settings for generation that transformers loads and refuses to save."""
    from transformers import GenerationConfig

    settings = model.generation_config
    try:
        settings.validate(strict=True)
    except ValueError:
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        model.generation_config = GenerationConfig(**{name: getattr(settings, name) for name in names})


def context_of(config: Any) -> int | None:
    """Tokens that fit a model of these settings, prompt and response together; None for one without a limit."""
    config = config.get_text_config(decoder=True)
    return getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None)


class ResponseLoss(nn.Module):
    """A policy as supervised fitting sees it: texts in, one number to be made smaller out."""

    def __init__(self, policy: CausalPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, ids: Int[Tensor, "B S"], learn: Bool[Tensor, "B S"]) -> Float[Tensor, ""]:
        """Negative log-likelihood of the tokens that are to be learnt, in nats, summed; ids are right-padded."""
        states = self.policy.hidden_states(ids, torch.ones_like(learn[:, :1]))[:, :-1]
        wanted = learn[:, 1:]
        logits = self.policy.head(states[wanted])
        return F.cross_entropy(logits, ids[:, 1:][wanted], reduction="sum")
