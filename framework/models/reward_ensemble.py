"""A shared encoder with K linear reward heads, each calibrated on reference responses.

Source: Ahmed et al. 2024 (arXiv 2406.01013): r_i(x, y) = H_i(F(x, y)). One head is the single
reward model. Bradley-Terry scores are free up to a constant per head, so each head carries a centre
and a scale measured on reference responses; a minimum or a variance over heads means nothing without.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from framework.data.paths import expand
from framework.errors import UserError
from framework.models.huggingface import HfModel, HfTokenizer

HEADS_FILE, SETTINGS_FILE = "heads.safetensors", "reward.json"


class RewardEnsemble(nn.Module):
    """Scores of K heads on one encoding of a text. K = 1 is an ordinary reward model."""

    def __init__(self, encoder: HfModel, num_heads: int, init_scale: float = 1.0) -> None:
        super().__init__()
        self.encoder: HfModel = encoder
        width = encoder.config.hidden_size
        self.heads = nn.Linear(width, num_heads)
        nn.init.normal_(self.heads.weight, std=init_scale / (width + 1) ** 0.5)
        nn.init.zeros_(self.heads.bias)
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", torch.zeros(num_heads))
        self.register_buffer("scale", torch.ones(num_heads))
        self.causal = not _is_bidirectional(encoder)

    @property
    def num_heads(self) -> int:
        return self.heads.out_features

    def features(self, input_ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B H"]:
        """One vector per right-padded text: the last real token's state if causal, else the mean."""
        if self.causal:
            # Right padding cannot be seen by real tokens under causal attention.
            states = self.encoder(input_ids=input_ids, use_cache=False).last_hidden_state
            last = mask.sum(dim=1).clamp(min=1) - 1
            return states[torch.arange(len(states), device=states.device), last]
        states = self.encoder(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)

    def raw_scores(self, input_ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "K B"]:
        """What each head says before calibration: what the Bradley-Terry loss sees."""
        return self.heads(self.features(input_ids, mask).to(self.heads.weight.dtype)).float().T

    def forward(self, input_ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "K B"]:
        """Calibrated scores, in standard deviations of each head on reference responses."""
        raw = self.raw_scores(input_ids, mask)
        return (raw - self.centre.unsqueeze(1)) / self.scale.unsqueeze(1)

    def calibrate(self, raw: Float[Tensor, "K N"]) -> None:
        """Set centre and scale from raw scores of reference responses.

        Raises:
            UserError: a head scores every reference response alike, so it has no scale.
        """
        scale = raw.std(dim=1, correction=0)
        flat = [i for i, s in enumerate(scale.tolist()) if not s > 1e-8]
        if flat:
            raise UserError(
                f"reward heads {flat} give every reference response the same score: nothing was learnt; "
                "fit longer (fit_reward.epochs) or on more pairs (label.pairs)"
            )
        self.centre.copy_(raw.mean(dim=1))
        self.scale.copy_(scale)

    def save(self, folder: Path) -> None:
        """Write the encoder in Hugging Face layout, heads and calibration beside it."""
        self.encoder.save_pretrained(folder)
        tensors = {
            "weight": self.heads.weight,
            "bias": self.heads.bias,
            "centre": self.centre,
            "scale": self.scale,
        }
        save_file({k: v.detach().float().contiguous() for k, v in tensors.items()}, folder / HEADS_FILE)
        (folder / SETTINGS_FILE).write_text(json.dumps({"heads": self.num_heads}) + "\n")

    @classmethod
    def load(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "RewardEnsemble":
        """Read a folder that `save` wrote; refuses one whose heads are missing."""
        folder = Path(folder)
        if not (folder / HEADS_FILE).exists():
            raise UserError(f"{folder} holds no {HEADS_FILE}: not a reward model; make one with fit-reward")
        tensors = load_file(folder / HEADS_FILE)
        encoder = load_encoder(folder, dtype)
        ensemble = cls(encoder, num_heads=len(tensors["bias"]))
        with torch.no_grad():
            ensemble.heads.weight.copy_(tensors["weight"])
            ensemble.heads.bias.copy_(tensors["bias"])
            ensemble.centre.copy_(tensors["centre"])
            ensemble.scale.copy_(tensors["scale"])
        return ensemble


def load_encoder(path: str | Path, dtype: torch.dtype = torch.float32) -> HfModel:
    """The backbone of a Hugging Face model, without language-model head or pooler."""
    from transformers import AutoModel  # slow to import: see causal.py

    folder = expand(str(path))
    return AutoModel.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, **_encoder_options(Path(folder))
    )


def encode_texts(
    tokenizer: HfTokenizer,
    prompts: Sequence[str],
    responses: Sequence[str],
    max_tokens: int,
    end_id: int | None,
) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"], int]:
    """Right-padded ids and mask of prompt + response, and how many rows had to be cut.

    A causal encoder is read at its last token, so `end_id` is appended there. A chat tokenizer's
    own template is used; cutting removes the *start* of a text, so the response is always seen.
    """
    if tokenizer.chat_template:
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": p}, {"role": "assistant", "content": r}], tokenize=False
            )
            for p, r in zip(prompts, responses, strict=True)
        ]
    else:
        texts = [p + r for p, r in zip(prompts, responses, strict=True)]
    rows: list[list[int]] = tokenizer(texts, add_special_tokens=end_id is None)["input_ids"]
    if end_id is not None:
        rows = [[*row, end_id] for row in rows]
    num_cut = sum(len(row) > max_tokens for row in rows)
    rows = [row[-max_tokens:] for row in rows]
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    return ids, mask, num_cut


def _is_bidirectional(encoder: HfModel) -> bool:
    return encoder.config.model_type in BIDIRECTIONAL


def _encoder_options(folder: Path) -> dict[str, bool]:
    """BERT-like models carry a pooler we do not use; asking for none keeps its weights out."""
    config = folder / "config.json"
    kind = json.loads(config.read_text()).get("model_type") if config.exists() else None
    return {"add_pooling_layer": False} if kind in BIDIRECTIONAL - {"modernbert", "distilbert"} else {}


BIDIRECTIONAL = {"bert", "roberta", "xlm-roberta", "distilbert", "electra", "mpnet", "modernbert"}
"""Model types whose attention sees both ways; all others are read at their last token."""
