"""Proof that what is sampled and learnt from is the distribution of the model's own forward."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from framework.divergence import exact_kl
from framework.errors import UserError
from framework.generation.decoder import decoder_for
from framework.models.causal import CausalPolicy
from framework.models.huggingface import HfModel
from framework.types import Rollout

LARGEST_KL = 1e-5
"""Nats per token from the model's own distribution."""
LARGEST_PART = 0.01
"""Of the spread of a model's log-probabilities that one of them may be off by: models that are all but flat differ little."""
PROMPTS, COPIES, TOKENS = (7, 2, 4), 2, 4


def prove(model: HfModel, where: str) -> float:
    """The largest KL (nats per token) between what is sampled or learnt from and the model's own forward.

    On a ragged batch, left-padded: all at once, as an update reads, and token by token on a cache, as a sampler does,
    against each text alone and whole. Costs a few passes of a dozen tokens; the model should be float32.

    Raises:
        UserError: they differ, or the model cannot be asked at all.
    """
    kind, before = model.config.model_type, model.training
    try:
        policy = CausalPolicy(model.eval())
        with torch.no_grad():
            rollout = _texts(policy)
            own = torch.cat(list(_own(model, rollout)))
            found = {
                "with left padding": policy.full_logprobs(rollout),
                "token by token with its cache": _decoded(policy, rollout),
            }
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # any kind: this is code of two hundred families
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"{where}: a model of type {kind!r} cannot be sampled from ({type(error).__name__}: {reason}); name another"
        ) from error
    finally:
        model.train(before)
    worst = 0.0
    for how, ours in found.items():
        kl, off = float(exact_kl(own, ours).max()), float((own - ours).abs().max())
        worst = max(worst, kl)
        if not (kl <= LARGEST_KL and off <= LARGEST_PART * float(own.std()) + LARGEST_KL):
            raise UserError(
                f"{where}: a model of type {kind!r}, read {how}, does not say what its own forward says (KL {kl:.1e} "
                "nats per token): name another"
            )
    return worst


def _texts(policy: CausalPolicy) -> Rollout:
    """Prompts of several lengths, each with several responses, of ids from all over the vocabulary."""
    rows, width = len(PROMPTS) * COPIES, max(PROMPTS)
    ids = (torch.arange(rows * (width + TOKENS)) * 7919 + 3) % policy.head.size
    ids = ids.view(rows, -1)
    lengths = torch.tensor(PROMPTS).repeat_interleave(COPIES).unsqueeze(1)
    mask = torch.arange(width) >= width - lengths
    prompts = ids[::COPIES, :width].repeat_interleave(COPIES, dim=0)
    real = torch.ones(rows, TOKENS, dtype=torch.bool)
    return Rollout(
        prompt_ids=prompts.masked_fill(~mask, getattr(policy.model.config, "pad_token_id", None) or 0), prompt_mask=mask,
        response_ids=ids[:, width:], mask=real, logprobs=torch.zeros(rows, TOKENS), values=None, ended=real[:, 0],
        group=torch.arange(len(PROMPTS)).repeat_interleave(COPIES), prompts=("",) * rows, responses=("",) * rows,
        step=0, policy_version=0,
    ).to(policy.device)  # fmt: skip


def _own(model: HfModel, texts: Rollout) -> Iterator[Float[Tensor, "1 T V"]]:
    """What the model itself says of each text, without padding and without a cache."""
    for prompt, mask, response in zip(texts.prompt_ids, texts.prompt_mask, texts.response_ids, strict=True):
        ids = torch.cat([prompt[mask], response]).unsqueeze(0)
        yield model(input_ids=ids).logits.float().log_softmax(dim=-1)[:, -TOKENS - 1 : -1]


def _decoded(policy: CausalPolicy, texts: Rollout) -> Float[Tensor, "B T V"]:
    decoder = decoder_for(policy.model, TOKENS)
    state = decoder.prefill(texts.prompt_ids[::COPIES], texts.prompt_mask[::COPIES], COPIES)
    said = [policy.head.of_step(state)]
    for t in range(TOKENS - 1):
        said.append(policy.head.of_step(decoder.step(texts.response_ids[:, t])))
    return torch.stack(said, dim=1).log_softmax(dim=-1)
