"""`goldilocks score-pairs`: accuracy of any reward model on a file of pairs, by subset."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.table import Table
from torch import Tensor

from framework.analysis.pair_sets import (
    Accuracy,
    ScorePairs,
    accuracy_by_subset,
    accuracy_of,
    rewardbench_sections,
)
from framework.artifacts import write_text
from framework.config import Config
from framework.data.pair_tables import Fault, Trio, read_trios
from framework.data.tables import column_names
from framework.errors import UserError
from framework.models.reward_folder import is_reward_model
from framework.models.reward_model import RewardModel
from framework.training.policy_fit import Progress
from jobs.artifact_stage import device
from jobs.reward_trainer import fitting_beside
from jobs.stages import reward_chain
from jobs.verbs.show import Bars, bars, closing, console
from jobs.workspace import Workspace

FIGURES_FILE, SCORES_FILE = "score_pairs.json", "score_pairs.parquet"
TOGETHER = 64
"""Pairs scored between two moves of the bar."""
NOTES = {
    "cut": "texts were longer than the model reads and lost their start",
    "identical": "pairs have the same response twice: a tie",
    "empty": "pairs have an empty response",
    "parted": "rows were left out: their conversations part before the last reply",
}
"""What is said of a count that is not zero."""


@dataclass(frozen=True)
class PairScores:
    """Every head's score of both responses, in the order of the file."""

    chosen: Tensor
    """[K, N]; calibrated, or in a published model's own unit."""
    rejected: Tensor
    num_cut: int
    """Texts, of 2 N, that were longer than the model reads."""


def score_pairs(cfg: Config, out: Path, address: str | None = None) -> int:
    """Score the pairs, print the table, write figures and scores into `out`.

    Raises:
        UserError: the section is missing, the table is not one of pairs, or there is no such model.
    """
    section = cfg.score_pairs
    if section is None:
        raise UserError(
            "score_pairs is not set: name pairs, for example score_pairs.source.path=pairs.parquet"
        )
    trios, dropped = _read(section)
    with bars() as shown:
        model = _model(cfg, out, shown, address)
        scores = scored(model, trios, shown.stage("score pairs"))
    rewards = cfg.aggregation(scores.chosen).numpy(), cfg.aggregation(scores.rejected).numpy()
    record = measured(scores, rewards, [str(trio.others["subset"]) for trio in trios])
    about = {
        "model": section.model or "fitted by this configuration",
        "source": section.source.model_dump(mode="json"),
        "aggregation": cfg.aggregation.model_dump(mode="json"),
        "heads": len(scores.chosen),
        "cut": scores.num_cut,
        **{fault: dropped[fault] for fault in ("identical", "empty", "parted")},
    }
    out.mkdir(parents=True, exist_ok=True)
    _write_scores(out / SCORES_FILE, trios, scores, rewards)
    write_text(out / FIGURES_FILE, json.dumps(about | record, indent=2) + "\n")
    _print(cfg.aggregation.kind, about, record)
    closing(out / FIGURES_FILE)
    return 0


def scored(model: RewardModel, trios: Sequence[Trio], progress: Progress | None = None) -> PairScores:
    """Both responses of every row scored by every head, in order."""
    chosen: list[Tensor] = []
    rejected: list[Tensor] = []
    num_cut = 0
    for start in range(0, len(trios), TOGETHER):
        few = trios[start : start + TOGETHER]
        prompts = [trio.prompt for trio in few]
        for side, texts in ((chosen, [t.chosen for t in few]), (rejected, [t.rejected for t in few])):
            result = model.score(prompts, texts)
            side.append(result.values)
            num_cut += result.num_cut
        if progress:
            progress(start + len(few), len(trios), {})
    return PairScores(torch.cat(chosen, dim=1), torch.cat(rejected, dim=1), num_cut)


def measured(
    scores: PairScores, rewards: tuple[np.ndarray, np.ndarray], subsets: Sequence[str]
) -> dict[str, Any]:
    """Accuracies in total and by subset: of the aggregated reward, of the mean over heads, and of each head."""
    views = {
        "reward": rewards,
        "mean": (scores.chosen.mean(dim=0).numpy(), scores.rejected.mean(dim=0).numpy()),
    }
    heads = list(zip(scores.chosen.numpy(), scores.rejected.numpy(), strict=True))
    named = {name: accuracy_by_subset(*view, subsets) for name, view in views.items()}
    each = [accuracy_by_subset(*head, subsets) for head in heads]
    bench = rewardbench_sections(named["reward"])
    return {
        "total": _row({n: accuracy_of(*view) for n, view in views.items()}, [accuracy_of(*h) for h in heads]),
        "subsets": {
            subset: _row({n: found[subset] for n, found in named.items()}, [found[subset] for found in each])
            for subset in named["reward"]
        },
        "rewardbench": None if bench is None else asdict(bench),
    }


def _row(views: Mapping[str, Accuracy], heads: Sequence[Accuracy]) -> dict[str, Any]:
    return {name: asdict(view) for name, view in views.items()} | {
        "heads": [head.accuracy for head in heads],
        "head_mean": float(np.mean([head.accuracy for head in heads])),
    }


def _read(section: ScorePairs) -> tuple[list[Trio], Counter[Fault | None]]:
    """The rows that can be scored, each with its subset, and how many rows have which fault.

    A published set is scored whole: identical and empty responses are counted and stay.
    """
    source, column = section.source, section.subset_column
    if "subset" not in source.columns and (column != "subset" or column in column_names(source)):
        source = source.model_copy(update={"columns": {**source.columns, "subset": column}})
    trios = read_trios(source, ["subset"])
    faults = Counter(trio.fault for trio in trios)
    kept = [
        trio if "subset" in trio.others else replace(trio, others={"subset": "all"})
        for trio in trios
        if trio.fault != "parted"
    ]
    unnamed = next((trio for trio in kept if trio.others["subset"] in (None, "")), None)
    if unnamed:
        raise UserError(
            f"{source.path} row {unnamed.row}: column {source.columns['subset']!r} is empty; name a subset"
        )
    if not kept:
        raise UserError(
            f"{source.path}: in all {len(trios)} rows the conversations part before the last reply"
        )
    return kept, faults


def _model(cfg: Config, out: Path, shown: Bars, address: str | None) -> RewardModel:
    assert cfg.score_pairs is not None
    place = cfg.score_pairs.model
    if place is None:
        place = str(reward_chain(cfg, Workspace(out), shown.stage, fitting_beside(cfg, address)).path)
    if is_reward_model(place):
        return RewardModel.load(place, device(), rows=cfg.scorer_rows)
    return RewardModel.published(place, device(), field="score_pairs.model", rows=cfg.scorer_rows)


def _write_scores(
    path: Path, trios: Sequence[Trio], scores: PairScores, rewards: tuple[np.ndarray, np.ndarray]
) -> None:
    """One row per pair: its row in the table, its subset, and what heads and aggregation say of both responses."""
    sides = {"chosen": (rewards[0], scores.chosen), "rejected": (rewards[1], scores.rejected)}
    columns: dict[str, pa.Array] = {
        "row": pa.array([trio.row for trio in trios], pa.int64()),
        "subset": pa.array([str(trio.others["subset"]) for trio in trios]),
    }
    for side, (reward, heads) in sides.items():
        columns[f"reward_{side}"] = pa.array(reward, pa.float32())
        columns[f"scores_{side}"] = pa.array(heads.T.tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table(columns), path)


def _print(aggregation: str, about: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    several = about["heads"] > 1
    table = Table(title=f"agreement with the labels of {about['source']['path']}; a tie counts one half")
    table.add_column("subset")
    columns = ["pairs", aggregation, "95%", "ties"]
    columns += ["mean of heads", "one head"] if several else []
    for name in columns:
        table.add_column(name, justify="right")
    for subset, row in record["subsets"].items():
        table.add_row(subset, *_cells(row, several))
    table.add_section()
    table.add_row("total", *_cells(record["total"], several))
    console.print(table)
    bench = record["rewardbench"]
    if bench:
        parts = [f"{name} {value:.3f}" for name, value in bench["sections"].items()]
        whole = "not all sections are there" if bench["score"] is None else f"score {bench['score']:.3f}"
        console.print(f"RewardBench: {', '.join(parts)}; {whole} (without prior sets)")
    for name, what in NOTES.items():
        if about[name]:
            console.print(f"{name}: {about[name]} {what}")


def _cells(row: Mapping[str, Any], several: bool) -> list[str]:
    own = row["reward"]
    cells = [
        str(own["pairs"]),
        f"{own['accuracy']:.3f}",
        f"{own['low']:.3f} - {own['high']:.3f}",
        str(own["ties"]),
    ]
    return cells + ([f"{row['mean']['accuracy']:.3f}", f"{row['head_mean']:.3f}"] if several else [])
