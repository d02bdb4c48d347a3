"""Proof that what a model reads out of a text does not depend on the longer texts beside it."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from framework.errors import UserError
from framework.models.huggingface import HfModel

LENGTHS = (9, 4, 6)
LARGEST_PART = {torch.float32: 0.01}
"""Of the spread between texts that padding may move one by. Lower precisions round by more, and get `LOOSE`."""
LOOSE = 0.05

Read = Callable[[Int[Tensor, "B S"], Bool[Tensor, "B S"]], Float[Tensor, "B D"]]


def prove_padding(model: HfModel, read: Read, where: str) -> float:
    """How far right padding moves what `read` makes of a text, as a share of the spread between texts.

    Raises:
        UserError: further than rounding does, or the model cannot be asked at all.
    """
    kind, before = model.config.model_type, model.training
    model.eval()
    try:
        with torch.no_grad():
            ids, mask = (each.to(model.device) for each in _texts(model))
            alone = [read(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(LENGTHS)]
            together, apart = read(ids, mask).float(), torch.cat(alone).float()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # any kind: this is code of two hundred families
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"{where}: a model of type {kind!r} cannot be read from ({type(error).__name__}: {reason}); name another"
        ) from error
    finally:
        model.train(before)
    moved = float((together - apart).abs().max() / apart.std().clamp(min=1e-6))
    if not moved <= LARGEST_PART.get(model.dtype, LOOSE):
        raise UserError(
            f"{where}: what a model of type {kind!r} makes of a text depends on the longer texts beside it (by "
            f"{moved:.2g} of the spread between texts): name another"
        )
    return moved


def _texts(model: HfModel) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"]]:
    """Right-padded ids from all over the vocabulary, the end id last in each text where the model has one."""
    config = model.config.get_text_config()
    end, pad = getattr(config, "eos_token_id", None), getattr(config, "pad_token_id", None)
    end = end[0] if isinstance(end, list) else end
    size = model.get_input_embeddings().num_embeddings
    usable = torch.tensor([i for i in range(min(size, 1000)) if i not in (end, pad)])
    width = max(LENGTHS)
    ids = usable[(torch.arange(len(LENGTHS) * width) * 7919 + 5) % len(usable)].view(-1, width)
    mask = torch.arange(width) < torch.tensor(LENGTHS).unsqueeze(1)
    if end is not None:
        ids[torch.arange(len(LENGTHS)), torch.tensor(LENGTHS) - 1] = end
    return ids.masked_fill(~mask, 0 if pad is None else pad), mask
