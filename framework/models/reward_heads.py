"""One encoder with K linear reward heads. One head is an ordinary reward model.

Source: Ahmed et al. 2024 (arXiv 2406.01013): r_k(x, y) = H_k(F(x, y)).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from framework.errors import UserError
from framework.models.encoders import load_encoder, pooled, reads_last_token
from framework.models.huggingface import HfModel

HEADS_FILE = "heads.safetensors"


class Member(nn.Module):
    """A part of an ensemble: a module that gives one or more heads' scores of encoded texts."""

    causal: bool
    """Read at its last token, so that a text must be closed by an end token."""
    shows_features = False
    """Whether `read` can tell which features the scores stand on."""

    @property
    def num_heads(self) -> int:
        """How many scores it gives."""
        raise NotImplementedError

    def forward(self, input_ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "K B"]:
        """What each head says before calibration, of right-padded texts: what the Bradley-Terry loss sees."""
        return self.read(input_ids, mask)[0]

    def read(
        self, input_ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "K B"], Float[Tensor, "E B H"]]:
        """What `forward` gives, and the features that they stand on, one vector per encoding of a text; in one pass."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Write everything but the tokenizer."""
        raise NotImplementedError


class RewardHeads(Member):
    """K linear heads on one encoding of a text."""

    shows_features = True

    def __init__(
        self, encoder: HfModel, num_heads: int, init_scales: Sequence[float] = (1.0,), dropout: float = 0.0
    ) -> None:
        """Heads are drawn from torch's global generator: N(0, init_scale^2 / (H + 1)), bias 0.

        Args:
            init_scales: one for all heads, or one per head.
            dropout: share of features that each head, apart from the others, does not see in training.
        """
        super().__init__()
        assert len(init_scales) in (1, num_heads)
        self.encoder: HfModel = encoder
        width = encoder.config.hidden_size
        self.heads = nn.Linear(width, num_heads)
        nn.init.normal_(self.heads.weight, std=1 / (width + 1) ** 0.5)
        with torch.no_grad():
            self.heads.weight.mul_(torch.tensor(init_scales).unsqueeze(1))
        nn.init.zeros_(self.heads.bias)
        self.dropout, self.frozen_encoder = dropout, False
        self.causal = reads_last_token(encoder.config.model_type)

    @property
    def num_heads(self) -> int:
        return self.heads.out_features

    def freeze_encoder(self, frozen: bool) -> None:
        """Fit the heads alone, or everything. A frozen encoder stays in evaluation mode: no dropout, no gradient."""
        self.frozen_encoder = frozen
        self.encoder.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> "RewardHeads":
        super().train(mode)
        if self.frozen_encoder:
            self.encoder.eval()
        return self

    def features(self, input_ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B H"]:
        """One vector per right-padded text, as of `pooled`."""
        return pooled(self.encoder, input_ids, mask, self.causal)

    def read(
        self, input_ids: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "K B"], Float[Tensor, "one B H"]]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen_encoder):
            features = self.features(input_ids, mask)
        # Outside of autocast: scores rounded to bfloat16 would tie, and disagree by their rounding.
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.heads.weight.dtype)
            if self.dropout and self.training:
                each = F.dropout(features.expand(self.num_heads, *features.shape), self.dropout)
                scores = torch.einsum("kbh,kh->kb", each, self.heads.weight) + self.heads.bias[:, None]
            else:
                scores = self.heads(features).T
        return scores.float(), features.unsqueeze(0)

    @torch.no_grad()
    def keep_heads(self, count: int) -> None:
        """Drop all heads but the first `count`."""
        kept = nn.Linear(self.heads.in_features, count).to(self.heads.weight)
        kept.weight.copy_(self.heads.weight[:count])
        kept.bias.copy_(self.heads.bias[:count])
        self.heads = kept

    def save(self, folder: Path) -> None:
        """Write the encoder in Hugging Face layout, and the heads beside it."""
        self.encoder.save_pretrained(folder)
        save_heads(self.heads.weight, self.heads.bias, folder)

    @classmethod
    def load(cls, folder: Path, num_heads: int) -> "RewardHeads":
        """Read what `save` wrote; a `UserError` where heads are missing."""
        module = cls(load_encoder(folder), num_heads)
        module.heads.load_state_dict(load_heads(folder, module.heads.weight.shape))
        return module


def save_heads(weight: Float[Tensor, "K H"], bias: Float[Tensor, "K"], folder: Path) -> None:
    """Write them as float32."""
    tensors = {"weight": weight, "bias": bias}
    save_file({k: v.detach().float().contiguous() for k, v in tensors.items()}, folder / HEADS_FILE)


def load_heads(folder: Path, shape: Sequence[int]) -> dict[str, Tensor]:
    """What `save_heads` wrote; a `UserError` where it is not there, damaged, or of another shape than the model."""
    if not (folder / HEADS_FILE).exists():
        raise UserError(f"{folder} holds no {HEADS_FILE}: not a reward model; make one with fit-reward")
    tensors = read_tensors(folder / HEADS_FILE, ("weight", "bias"))
    if tensors["weight"].shape != shape:
        raise UserError(
            f"{folder / HEADS_FILE} holds heads of shape {list(tensors['weight'].shape)}, and {list(shape)} were saved "
            "with this model: heads are missing; fit the model again"
        )
    return {name: tensors[name] for name in ("weight", "bias")}


def read_tensors(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    """What a safetensors file of a reward model holds; a `UserError` where it is damaged or lacks one of `names`."""
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); fit the model again") from error
    if absent := [name for name in names if name not in tensors]:
        raise UserError(f"{path} lacks {', '.join(absent)}: it is damaged; fit the model again")
    return tensors
