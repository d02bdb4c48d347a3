"""The stages of best-of-n: one pool sampled from the start policy and scored by gold, then by every head of a proxy.

The pool depends on no reward model, so proxies that are compared share it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from safetensors.numpy import load_file, save_file

from framework.aggregation import Aggregation
from framework.analysis.best_of_n import best_of_n_points
from framework.artifacts import Artifact, fingerprint
from framework.best_of_n import BestOfN
from framework.config import Config
from framework.data.conversations import from_cell, to_cell
from framework.data.prompts import PromptStream
from framework.errors import RunError, UserError
from framework.models.reward_model import RewardModel
from framework.seeding import derive
from framework.training import Progress
from framework.types import Rollout
from jobs.artifact_stage import device, make_artifact, sampled, score_gold, start_sampler

POOL_FILE, SCORES_FILE = "pool.parquet", "scores.safetensors"
POOL_SCHEMA = pa.schema(
    {
        "prompt_index": pa.int32(), "sample": pa.int32(), "prompt": pa.string(), "response": pa.string(),
        "tokens": pa.int32(), "ended": pa.bool_(), "gold": pa.float64(),
    }
)  # fmt: skip
TOGETHER = 16
"""Responses to one prompt that are sampled in one go. Fixed: it takes part in naming their random numbers."""


class PoolScores(NamedTuple):
    """A scored pool; P prompts, N responses to each, in the pool's order."""

    heads: Float[np.ndarray, "K P N"]
    gold: Float[np.ndarray, "P N"]


def settings_of(cfg: Config) -> BestOfN:
    """The section, or its defaults."""
    return cfg.best_of_n or BestOfN()


def pool_stage(cfg: Config, workspace: Path, policy: Artifact, progress: Progress | None = None) -> Artifact:
    """`samples` responses of the start policy to each prompt, each scored by gold once."""
    settings = cfg.chosen("seed", "world", "gold", "max_new_tokens", "temperature", "instruction", "precision")
    settings["best_of_n"] = settings_of(cfg).model_dump(mode="json", include={"prompts", "samples", "batch"})
    parents = {"policy": policy}

    def write(scratch: Path) -> dict[str, float]:
        table, figures = sample_pool(cfg, policy.path, progress)
        pq.write_table(table, scratch / POOL_FILE)
        return figures

    return make_artifact(workspace, "pool", fingerprint(settings, parents), parents, write)


def sample_pool(
    cfg: Config, policy_folder: Path, progress: Progress | None = None
) -> tuple[pa.Table, dict[str, float]]:
    """The pool as a table, and what was measured on the way.

    A response depends on the seed, its prompt's position and its own number: a pool of more samples, or of more
    prompts, begins with the responses of the smaller one.
    """
    settings = settings_of(cfg)
    seed = derive(cfg.seed, "best-of-n")
    sampler, scorer = start_sampler(cfg, policy_folder, seed, cfg.max_new_tokens), cfg.gold.build(device())
    available = cfg.world.prompts("train")
    positions, prompts = PromptStream(available, seed).take(min(settings.prompts, len(available)), at=0)
    parts: list[pa.Table] = []
    num_cut = done = 0
    for first in range(0, len(prompts), settings.batch // TOGETHER):
        few = slice(first, first + settings.batch // TOGETHER)
        for start in range(0, settings.samples, TOGETHER):
            each = min(TOGETHER, settings.samples - start)
            rollout = sampled(sampler, prompts[few], positions[few], each, start // TOGETHER)
            gold = score_gold(scorer, rollout, "best-of-n")
            parts.append(_pool_rows(rollout, gold.values.tolist(), first, start))
            num_cut, done = num_cut + gold.num_cut, done + len(rollout)
            if progress:
                progress(done, len(prompts) * settings.samples, {})
    table = pa.concat_tables(parts).sort_by([("prompt_index", "ascending"), ("sample", "ascending")])
    return table, _pool_figures(table, len(prompts), num_cut)


def _pool_rows(rollout: Rollout, gold: Sequence[float], first_prompt: int, first_sample: int) -> pa.Table:
    """Rows of the pool, in the order of the rollout: samples of one prompt adjacent."""
    group = rollout.group.numpy()
    columns = {
        "prompt_index": first_prompt + group,
        "sample": first_sample + np.arange(len(group)) % (len(group) // (group[-1] + 1)),
        "prompt": [to_cell(prompt) for prompt in rollout.prompts],
        "response": rollout.responses,
        "tokens": rollout.mask.sum(dim=1).numpy(),
        "ended": rollout.ended.numpy(),
        "gold": gold,
    }
    return pa.table(columns, schema=POOL_SCHEMA)


def _pool_figures(table: pa.Table, num_prompts: int, num_cut: int) -> dict[str, float]:
    gold = table["gold"].to_numpy()
    distinct = table.group_by(["prompt_index", "response"]).aggregate([]).num_rows
    return {
        "prompts": float(num_prompts),
        "samples": float(table.num_rows // num_prompts),
        "ended_share": float(table["ended"].to_numpy().mean()),
        "distinct_share": distinct / table.num_rows,
        "gold_mean": float(gold.mean()),
        "gold_std": float(gold.std()),
        "gold_cut": float(num_cut),
    }


def scores_stage(
    cfg: Config, workspace: Path, pool: Artifact, reward: Artifact, progress: Progress | None = None
) -> Artifact:
    """Every head's calibrated score of every response, and its gold; a RunError for one not finite, or too many cut."""
    parents = {"pool": pool, "reward": reward}
    stage = fingerprint(cfg.chosen("precision", "scorer_rows"), parents)

    def write(scratch: Path) -> dict[str, float]:
        table = pq.read_table(pool.path / POOL_FILE)
        prompts, responses, ended = (table[name].to_pylist() for name in ("prompt", "response", "ended"))
        prompts = [from_cell(prompt) for prompt in prompts]
        num_prompts = table["prompt_index"][-1].as_py() + 1
        model = RewardModel.load(reward.path, device(), rows=cfg.scorer_rows, precision=cfg.native, scorer=cfg.reward)
        size = len(prompts) // num_prompts
        parts, num_cut = [], 0
        for start in range(0, len(prompts), size):
            of_prompt = slice(start, start + size)
            scored = model.score(prompts[of_prompt], responses[of_prompt], ended[of_prompt])
            parts.append(scored.values.numpy())
            num_cut += scored.num_cut
            if progress:
                progress(start + size, len(prompts), {})
        if num_cut > cfg.fit_reward.max_cut_share * len(prompts):
            raise RunError(
                f"best-of-n: {num_cut} of {len(prompts)} texts are longer than fit_reward.max_tokens: raise it, or "
                "fit_reward.max_cut_share to accept the cut"
            )
        gold = table["gold"].to_numpy().reshape(num_prompts, size).astype(np.float32)
        save_file({"heads": np.stack(parts, axis=1).astype(np.float32), "gold": gold}, scratch / SCORES_FILE)
        return {"heads": len(parts[0]), "cut": num_cut}

    return make_artifact(workspace, "scores", stage, parents, write)


def load_scores(folder: Path) -> PoolScores:
    """The scores in a stage folder; a UserError where there are none."""
    path = folder / SCORES_FILE
    if not path.is_file():
        raise UserError(f"{path} does not exist: make it with `goldilocks best-of-n`")
    return PoolScores(**load_file(path))


def curves_of(scores: PoolScores, members: Sequence[Aggregation], ns: Sequence[int]) -> dict[str, dict[str, Any]]:
    """The curve of each aggregation, by its kind, ready for JSON; a UserError for an `n` beyond the pool."""
    num_heads, num_prompts, size = scores.heads.shape
    if max(ns) > size:
        raise UserError(f"best_of_n.ns holds {max(ns)}, and the pool has {size} responses to a prompt")
    flat = torch.from_numpy(scores.heads).reshape(num_heads, -1)
    proxies: dict[str, np.ndarray] = {each.kind: each(flat).reshape(num_prompts, size).numpy() for each in members}
    points = best_of_n_points(scores.heads, proxies, scores.gold, ns)
    told = {each.kind: {"aggregation": each.model_dump(mode="json"), "convention": each.convention} for each in members}
    return {kind: about | {"points": points[kind]} for kind, about in told.items()}


def aggregations(cfg: Config, num_heads: int) -> list[Aggregation]:
    """The configured aggregation, then every other kind at its defaults; with one head they are all the same."""
    members = get_args(get_args(Aggregation)[0])
    others = [member() for member in members if not isinstance(cfg.aggregation, member)]
    return [cfg.aggregation, *(others if num_heads > 1 else [])]
