"""Proof that what is sampled, learnt from and scored is what the model's own forward says of each text alone."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from framework.errors import UserError, first_line
from framework.generation.decoder import decoder_for
from framework.models.causal import CausalPolicy
from framework.models.huggingface import HfModel
from framework.types import Rollout

LARGEST_KL = 1e-5
"""Nats per token from the model's own distribution."""
LARGEST_PART = 0.01
"""Of the spread of what a model says that padding or a cache may move it by, in float32: a flat model's KL says little."""
PROMPTS, COPIES, TOKENS = (7, 2, 4), 2, 4
LENGTHS = (9, 4, 6)

Read = Callable[[Int[Tensor, "B S"], Bool[Tensor, "B S"]], Float[Tensor, "B D"]]


def prove(model: HfModel, where: str) -> float:
    """The largest KL (nats per token) between what is sampled or learnt from and the model's own forward.

    On a ragged batch, left-padded: all at once, as an update reads, and token by token on a cache, as a sampler does.
    Costs a few passes of a dozen tokens; the model should be float32. A `UserError` where they differ, or the model cannot
    be asked at all.
    """
    worst = 0.0
    with _asking(model, where, "sampled from"):
        policy = CausalPolicy(model)
        rollout = _texts(policy)
        own = torch.cat(list(_own(model, rollout)))
        found = {
            "with left padding": policy.full_logprobs(rollout),
            "token by token with its cache": _decoded(policy, rollout),
        }
    for how, ours in found.items():
        kl, off = float(_kl(own.double(), ours.double()).max()), float((own - ours).abs().max())
        worst = max(worst, kl)
        if not (kl <= LARGEST_KL and off <= LARGEST_PART * float(own.std()) + LARGEST_KL):
            raise UserError(
                f"{where}: a model of type {model.config.model_type!r}, read {how}, does not say what its own forward "
                f"says (KL {kl:.1e} nats per token): name another"
            )
    return worst


def prove_padding(model: HfModel, read: Read, where: str) -> None:
    """Shows that what `read` makes of a text does not depend on the longer texts beside it.

    A `UserError` where it does, or is not finite, or the model cannot be asked at all.
    """
    with _asking(model, where, "read from"):
        ids, mask = _right_padded(model)
        alone = torch.cat([read(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(LENGTHS)]).float()
        moved = float((read(ids, mask).float() - alone).abs().max() / alone.std().clamp(min=1e-6))
    if not alone.isfinite().all():
        what = "the model makes numbers of a text that are not finite"
        raise UserError(f"{where}: {what}: its weights are damaged; name another")
    if not moved <= LARGEST_PART * (1 if model.dtype == torch.float32 else 5):
        raise UserError(
            f"{where}: what a model of type {model.config.model_type!r} makes of a text depends on the longer texts "
            f"beside it (by {moved:.2g} of the spread between texts): name another"
        )


@contextlib.contextmanager
def _asking(model: HfModel, where: str, verb: str) -> Iterator[None]:
    before = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # any kind: this is code of two hundred families
        kind, why = model.config.model_type, f"{type(error).__name__}: {first_line(error, '')}"
        raise UserError(f"{where}: a model of type {kind!r} cannot be {verb} ({why}); name another") from error
    finally:
        model.train(before)


def _kl(p: Float[Tensor, "B T V"], q: Float[Tensor, "B T V"]) -> Float[Tensor, "B T"]:
    """With the terms that cancel where both sum to one: rounded sums move it in second order only."""
    return (p.exp() * (p - q) - p.exp() + q.exp()).sum(dim=-1)


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


def _right_padded(model: HfModel) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"]]:
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
    return ids.masked_fill(~mask, pad or 0).to(model.device), mask.to(model.device)
