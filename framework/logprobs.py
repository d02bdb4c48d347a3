"""Log-probabilities of given tokens, without keeping full-vocabulary logits alive."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Head: TypeAlias = Callable[[Float[Tensor, "N H"]], Float[Tensor, "N V"]]
"""States to logits in float32."""

CHUNK_ELEMENTS = 1 << 23
"""Logits held at once, in elements: 32 MB in float32."""


def token_logprobs(
    hidden: Float[Tensor, "*N H"],
    head: Head,
    vocabulary: int,
    targets: Int[Tensor, "*N"],
    temperature: float = 1.0,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Float[Tensor, "*N"]:
    """Log-probability of each target token, in nats, under softmax(head(hidden) / temperature).

    Positions are handled in chunks of about `chunk_elements / vocabulary`; with more than one chunk each is
    recomputed in the backward pass, so that memory grows with one chunk and not with N x V.
    """
    flat, wanted = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    rows = max(1, chunk_elements // vocabulary)
    if len(flat) <= rows:
        return _chunk_logprobs(flat, head, wanted, temperature).view(targets.shape)
    again = partial(checkpoint, _chunk_logprobs, use_reentrant=False) if torch.is_grad_enabled() else _chunk_logprobs
    starts = range(0, len(flat), rows)
    parts = [again(flat[i : i + rows], head, wanted[i : i + rows], temperature) for i in starts]
    return torch.cat(parts).view(targets.shape)


def _chunk_logprobs(
    hidden: Float[Tensor, "N H"], head: Head, targets: Int[Tensor, "N"], temperature: float
) -> Float[Tensor, "N"]:
    logits = head(hidden)
    if temperature != 1.0:
        logits = logits / temperature
    return -F.cross_entropy(logits, targets, reduction="none")
