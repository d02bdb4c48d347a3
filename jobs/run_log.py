"""What a run writes as it goes: metrics, timings, rollouts and TensorBoard.

`metrics.jsonl` holds nothing that depends on the clock, so that two runs of one configuration write
the same bytes; seconds and memory go to `timings.jsonl`.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int
from tensorboardX import SummaryWriter
from torch import Tensor

from actors.group import Pending
from framework.analysis.alarms import SIGNALS, warnings_of
from framework.analysis.reward_quality import head_correlation
from framework.artifacts import write_text
from framework.batch_mean import batch_mean, rows_across_prompts
from framework.errors import RunError
from framework.training.policy_update import UpdateReport
from framework.types import Scores, Shaped
from jobs.roles import Roles
from jobs.run_state import RunState

ROLLOUT_SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("row", pa.int32()),
        ("group", pa.int32()),
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("tokens", pa.int32()),
        ("ended", pa.bool_()),
        ("reward", pa.float32()),
        ("gold", pa.float32()),
        ("kl_nats", pa.float32()),
        ("scores", pa.list_(pa.float32())),
    ]
)


class RunLog:
    """Appends one step at a time to the files of a run folder."""

    def __init__(
        self,
        run: Path,
        roles: Roles,
        start_step: int = 0,
        show: Callable[[int, dict[str, Any]], None] | None = None,
    ) -> None:
        self.run, self.roles, self.show = run, roles, show
        (run / "rollouts").mkdir(parents=True, exist_ok=True)
        for name in ("metrics.jsonl", "timings.jsonl"):
            _truncate(run / name, start_step)
        self.history = _read_signals(run / "metrics.jsonl")
        """The signals that may warn, of every step so far."""
        self.board = SummaryWriter(logdir=str(run / "tensorboard"), purge_step=start_step)
        self.began = time.perf_counter()

    def step(
        self,
        state: RunState,
        shaped: Shaped,
        proxy: Float[Tensor, "B"],
        scores: Scores,
        report: UpdateReport,
        gold: Float[Tensor, "B"] | None,
        exact_kl: Pending[Float[Tensor, "n"] | None],
    ) -> None:
        """Write one step down."""
        measured = exact_kl.get()
        metrics = step_metrics(state, shaped, proxy, scores, report, gold, measured)
        self.history.append(_signals(metrics))
        metrics["warnings"] = warnings_of(self.history)
        started = time.perf_counter()
        self._append("metrics.jsonl", metrics)
        self._write_rollout(state.step, shaped, proxy, scores.values, gold)
        for name, value in metrics.items():
            if isinstance(value, float):
                self.board.add_scalar(name, value, state.step)
        now = time.perf_counter()
        timings = self.roles.timings(state.step, step_seconds=now - self.began, log_seconds=now - started)
        self._append(
            "timings.jsonl", {"step": state.step, "tokens": int(shaped.rollout.mask.sum())} | timings
        )
        self.began = now
        if self.show:
            self.show(state.step, metrics)

    def close(self) -> None:
        self.board.close()

    def _append(self, name: str, record: dict[str, Any]) -> None:
        try:
            with (self.run / name).open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise RunError(
                f"could not write {self.run / name}: {error.strerror}; free some space and resume"
            ) from error

    def _write_rollout(
        self,
        step: int,
        shaped: Shaped,
        proxy: Float[Tensor, "B"],
        scores: Float[Tensor, "K B"],
        gold: Float[Tensor, "B"] | None,
    ) -> None:
        rollout, rows = shaped.rollout, len(shaped)
        lengths = rollout.mask.sum(dim=1).tolist()
        columns = {
            "step": [step] * rows,
            "row": list(range(rows)),
            "group": rollout.group.tolist(),
            "prompt": list(rollout.prompts),
            "response": list(rollout.responses),
            "tokens": lengths,
            "ended": rollout.ended.tolist(),
            "reward": proxy.tolist(),
            "gold": [None] * rows if gold is None else gold.tolist(),
            "kl_nats": shaped.kl_nats.tolist(),
            "scores": scores.T.tolist(),
        }
        path = self.run / "rollouts" / f"step_{step:06d}.parquet"
        try:
            pq.write_table(pa.table(columns, schema=ROLLOUT_SCHEMA), path)
        except OSError as error:
            raise RunError(
                f"could not write {path}: {error.strerror or error}; free some space and resume"
            ) from error


def step_metrics(
    state: RunState,
    shaped: Shaped,
    proxy: Float[Tensor, "B"],
    scores: Scores,
    report: UpdateReport,
    gold: Float[Tensor, "B"] | None,
    exact_kl: Float[Tensor, "n"] | None,
) -> dict[str, Any]:
    """One line of metrics.jsonl, without its warnings; keys and units are in docs/artifacts.md."""
    rollout, heads, distance = shaped.rollout, scores.values, scores.distance
    lengths = rollout.mask.sum(dim=1)
    tokens = rollout.mask.sum()
    return {
        "step": state.step,
        "proxy": float(proxy.mean()),
        "reward": float(shaped.reward.mean()),
        "heads": heads.mean(dim=1).tolist(),
        "disagreement": float(heads.std(dim=0, correction=0).mean()),
        "head_correlation": head_correlation(heads.numpy()),
        # The mean correlation over pairs of rows is, of two rows, their correlation.
        "length_correlation": head_correlation(torch.stack([proxy, lengths.to(proxy)]).numpy()),
        "feature_distance": None if distance is None else float(distance.mean()),
        "gold": None if gold is None else float(gold.mean()),
        "gold_se": None if gold is None else _standard_error(gold, rollout.group),
        "kl_nats": float(shaped.kl_nats.mean()),
        "kl_nats_se": _standard_error(shaped.kl_nats, rollout.group),
        "kl_per_token": float(shaped.kl_nats.sum() / tokens),
        "kl_exact_nats": None if exact_kl is None else float(exact_kl.mean()),
        "kl_exact_nats_se": None if exact_kl is None else _exact_kl_error(exact_kl, rollout.group),
        "kl_coef": shaped.kl_coef,
        "response_tokens": float(tokens / len(rollout)),
        "ended": float(rollout.ended.float().mean()),
        # The mean surprise of sampled tokens is an unbiased estimate of the entropy per token.
        "entropy": float(-rollout.logprobs.sum() / tokens),
        **report.metrics,
    }


def _standard_error(values: Float[Tensor, "B"], group: Int[Tensor, "B"]) -> float | None:
    """None where all rows are of one prompt: it is not known."""
    error = batch_mean(values, group).standard_error
    return error if math.isfinite(error) else None


def _exact_kl_error(exact_kl: Float[Tensor, "n"], group: Int[Tensor, "B"]) -> float | None:
    """Of the n rows that it was measured on."""
    return _standard_error(exact_kl, group[rows_across_prompts(group, len(exact_kl))])


def _signals(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record.get(name) for name in ("step", *(signal.name for signal in SIGNALS))}


def _read_signals(path: Path) -> list[dict[str, Any]]:
    """Of the steps that were logged before a resume; JSON kept them exactly."""
    return [_signals(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def _truncate(path: Path, start_step: int) -> None:
    """Drop the lines of steps that will be run again, and a last line cut in half."""
    if not path.exists():
        return
    kept, before = [], path.read_text()
    for line in before.splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        if record["step"] >= start_step:
            break
        kept.append(line + "\n")
    text = "".join(kept)
    if text != before:
        write_text(path, text)
