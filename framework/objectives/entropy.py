"""How undecided the policy is."""

import torch
from jaxtyping import Float
from torch import Tensor


def token_entropy(logits: Float[Tensor, "*rows V"]) -> Float[Tensor, "*rows"]:
    """Entropy of each next-token distribution, in nats; a bonus is subtracted from the loss.

    `logsumexp(z) - sum softmax(z) z`. Works on any chunk of rows; masking is the caller's.
    """
    return torch.logsumexp(logits, dim=-1) - (torch.softmax(logits, dim=-1) * logits).sum(dim=-1)
