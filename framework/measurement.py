"""What is known of a batch of responses, whoever sampled them and whether or not anything is then learned from them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from framework.analysis.reward_quality import head_correlation
from framework.batch_mean import batch_mean, rows_across_prompts
from framework.data.conversations import to_cell
from framework.divergence import sequence_log_ratio
from framework.types import Rollout, Scores

ROLLOUT_SCHEMA = pa.schema({
    "step": pa.int32(), "row": pa.int32(), "group": pa.int32(), "prompt": pa.string(), "response": pa.string(),
    "tokens": pa.int32(), "ended": pa.bool_(), "proxy": pa.float32(), "reward": pa.float32(), "gold": pa.float32(),
    "kl_nats": pa.float32(), "scores": pa.list_(pa.float32()),
})  # fmt: skip
"""Of a rollouts file; units are in docs/artifacts.md."""


@dataclass(frozen=True)
class Measurement:
    """A batch of responses with what the reference, the reward model and gold say of it."""

    rollout: Rollout
    reference: Float[Tensor, "B T"]  # log-probability of each sampled token under the reference policy; 0 at padding
    scores: Scores  # of every head
    proxy: Float[Tensor, "B"]  # the heads' scores, aggregated, before any transform: reference standard deviations
    gold: Float[Tensor, "B"] | None  # the gold scorer's units; None where it was not asked
    exact_kl: Float[Tensor, "n"] | None = None
    """KL over the whole vocabulary in nats, of the rows that `rows_across_prompts` picks; None where not taken."""
    golds: Mapping[str, Float[Tensor, "B"] | None] = field(default_factory=dict)  # of the signals beside gold, by name

    def beside(self, golds: Mapping[str, Any]) -> "Measurement":
        """The same with what the other gold signals say, each waited for."""
        return replace(self, golds={name: pending.get() for name, pending in golds.items()})

    @property
    def kl_nats(self) -> Float[Tensor, "B"]:
        """k1 estimate of KL(policy || reference) per sequence, in nats."""
        return sequence_log_ratio(self.rollout.logprobs, self.reference, self.rollout.mask)

    def figures(self, reward: Float[Tensor, "B"] | None = None, kl_coef: float | None = None) -> dict[str, Any]:
        """The metrics of the batch, in the order of metrics.jsonl; keys and units are in docs/artifacts.md. Without
        `reward` nothing is paid; without `kl_coef`, in reward units per nat, no coefficient is in force."""
        rollout, heads, distance = self.rollout, self.scores.values, self.scores.distance
        lengths, tokens = rollout.mask.sum(dim=1), rollout.mask.sum()
        kl_nats, gold, exact, group = self.kl_nats, self.gold, self.exact_kl, rollout.group
        exact_group = group[rows_across_prompts(group, len(exact))] if exact is not None else group
        return {
            "proxy": float(self.proxy.mean()),
            **({} if reward is None else {"reward": float(reward.mean())}),
            "heads": heads.mean(dim=1).tolist(),
            "disagreement": float(heads.std(dim=0, correction=0).mean()),
            "head_correlation": head_correlation(heads.numpy()),
            # The mean correlation over pairs of rows is, of two rows, their correlation.
            "length_correlation": head_correlation(torch.stack([self.proxy, lengths.to(self.proxy)]).numpy()),
            "feature_distance": None if distance is None else float(distance.mean()),
            "gold": None if gold is None else float(gold.mean()),
            "gold_se": _standard_error(gold, group),
            **{f"gold_{name}": own if own is None else float(own.mean()) for name, own in self.golds.items()},
            **{f"gold_{name}_se": _standard_error(own, group) for name, own in self.golds.items()},
            "kl_nats": float(kl_nats.mean()),
            "kl_nats_se": _standard_error(kl_nats, group),
            "kl_per_token": float(kl_nats.sum() / tokens),
            "kl_exact_nats": None if exact is None else float(exact.mean()),
            "kl_exact_nats_se": _standard_error(exact, exact_group),
            **({} if kl_coef is None else {"kl_coef": kl_coef}),
            "response_tokens": float(tokens / len(rollout)),
            "ended": float(rollout.ended.float().mean()),
            # The mean surprise of sampled tokens is an unbiased estimate of the entropy per token.
            "entropy": float(-rollout.logprobs.sum() / tokens),
        }

    def rows(self, reward: Float[Tensor, "B"] | None = None) -> pa.Table:
        """The batch as a rollouts file keeps it; `reward` is what each response was paid, after transforms."""
        rollout, count = self.rollout, len(self.rollout)
        nothing = [None] * count
        columns = {
            "step": [rollout.step] * count,
            "row": list(range(count)),
            "group": rollout.group.tolist(),
            "prompt": [to_cell(prompt) for prompt in rollout.prompts],
            "response": list(rollout.responses),
            "tokens": rollout.mask.sum(dim=1).tolist(),
            "ended": rollout.ended.tolist(),
            "proxy": self.proxy.tolist(),
            "reward": nothing if reward is None else reward.tolist(),
            "gold": nothing if self.gold is None else self.gold.tolist(),
            "kl_nats": self.kl_nats.tolist(),
            "scores": self.scores.values.T.tolist(),
        }
        table = pa.table(columns, schema=ROLLOUT_SCHEMA)
        for name, own in self.golds.items():
            listed = nothing if own is None else own.tolist()
            table = table.append_column(f"gold_{name}", pa.array(listed, pa.float32()))
        return table


def _standard_error(values: Float[Tensor, "B"] | None, group: Int[Tensor, "B"]) -> float | None:
    """None where nothing was measured, or all rows are of one prompt: it is not known."""
    error = math.inf if values is None else batch_mean(values, group).standard_error
    return error if math.isfinite(error) else None
