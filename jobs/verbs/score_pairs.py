"""`goldilocks score-pairs`: accuracy of any reward model on a file of pairs, by subset."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from framework.analysis.reward_quality import Accuracy, ScorePairs, accuracy_of, rewardbench_sections
from framework.artifacts import write_text
from framework.config import Config
from framework.data.pair_tables import FAULTS, Fault, PairRow, read_pair_rows
from framework.data.tables import column_names
from framework.errors import UserError
from framework.models.reward_folder import is_reward_model
from framework.models.reward_model import RewardModel
from framework.training import Progress
from framework.types import Scores
from jobs.artifact_stage import device
from jobs.chain import Chain
from jobs.fit_on_ray import fitting_beside
from jobs.stop import StopSignal
from jobs.verbs.show import Bars, bars, closing, console, table_of
from jobs.workspace import working_in

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


def score_pairs(cfg: Config, out: Path, stop: StopSignal | None = None, address: str | None = None) -> int:
    """Score the pairs, print the table, write figures and scores; a UserError for no section, pairs or model."""
    section = cfg.score_pairs
    if section is None:
        raise UserError("score_pairs is not set: name pairs, for example score_pairs.source.path=pairs.parquet")
    rows, dropped = _read(section)
    with working_in(out):
        with bars(stop) as shown:
            model = _model(cfg, out, shown, address)
            chosen, rejected = scored(model, rows, shown.stage("score pairs"))
        scores = chosen.values, rejected.values
        rewards = cfg.aggregation(chosen.values).numpy(), cfg.aggregation(rejected.values).numpy()
        record = measured(scores, rewards, [str(row.others["subset"]) for row in rows])
        about: dict[str, Any] = {
            "model": section.model or "fitted by this configuration",
            "source": section.source.model_dump(mode="json"),
            "aggregation": cfg.aggregation.model_dump(mode="json"),
            "heads": len(chosen.values),
            "cut": chosen.num_cut + rejected.num_cut,
            **{fault: dropped[fault] for fault in FAULTS},
        }
        _write_scores(out / SCORES_FILE, rows, scores, rewards)
        write_text(out / FIGURES_FILE, json.dumps(about | record, indent=2) + "\n")
        _print(cfg.aggregation.kind, about, record)
        closing(out / FIGURES_FILE)
        return 0


def scored(model: RewardModel, rows: Sequence[PairRow], progress: Progress) -> tuple[Scores, Scores]:
    """Every head's scores of the chosen and of the rejected responses, calibrated or in a published model's own unit."""
    parts: list[tuple[Scores, Scores]] = []
    for start in range(0, len(rows), TOGETHER):
        few = rows[start : start + TOGETHER]
        prompts = [row.prompt for row in few]
        chosen = model.score(prompts, [row.chosen for row in few])
        parts.append((chosen, model.score(prompts, [row.rejected for row in few])))
        progress(start + len(few), len(rows), {})
    return Scores.of_rows([part[0] for part in parts]), Scores.of_rows([part[1] for part in parts])


def measured(
    scores: tuple[Tensor, Tensor], rewards: tuple[np.ndarray, np.ndarray], subsets: Sequence[str]
) -> dict[str, Any]:
    """Accuracies in total and by subset: of the aggregated reward, of the mean over heads, and of each head.

    `scores` are every head's [K, N], of chosen and of rejected responses; `rewards` are those aggregated [N].
    """
    chosen, rejected = scores[0].numpy(), scores[1].numpy()
    views = {"reward": rewards, "mean": (scores[0].mean(dim=0).numpy(), scores[1].mean(dim=0).numpy())}

    def row(which: np.ndarray) -> dict[str, Any]:
        heads = [accuracy_of(high[which], low[which]).accuracy for high, low in zip(chosen, rejected, strict=True)]
        named = {name: asdict(accuracy_of(high[which], low[which])) for name, (high, low) in views.items()}
        return named | {"heads": heads, "head_mean": float(np.mean(heads))}

    names = np.asarray(subsets)
    rows = {subset: row(names == subset) for subset in dict.fromkeys(subsets)}
    return {
        "total": row(np.full(len(names), True)),
        "subsets": rows,
        "rewardbench": rewardbench_sections({subset: Accuracy(**found["reward"]) for subset, found in rows.items()}),
    }


def _read(section: ScorePairs) -> tuple[list[PairRow], Counter[Fault | None]]:
    """The rows that can be scored, identical and empty responses too, and how many rows have which fault."""
    source, column = section.source, section.subset_column
    if "subset" not in source.columns and (column != "subset" or column in column_names(source)):
        source = source.model_copy(update={"columns": {**source.columns, "subset": column}})
    rows = read_pair_rows(source, ["subset"])
    faults = Counter(row.fault for row in rows)
    scorable = [row for row in rows if row.fault != "parted"]
    kept = [row if "subset" in row.others else replace(row, others={"subset": "all"}) for row in scorable]
    if unnamed := next((row for row in kept if row.others["subset"] is None), None):
        raise source.wrong(unnamed.number, "subset", "is empty; name a subset")
    if not kept:
        raise UserError(f"{source.path}: in all {len(rows)} rows the conversations part before the last reply")
    return kept, faults


def _model(cfg: Config, out: Path, shown: Bars, address: str | None) -> RewardModel:
    assert cfg.score_pairs is not None
    place = cfg.score_pairs.model
    if place is None:
        place = str(Chain(cfg, out, shown.stage, fitting_beside(cfg, address)).reward.path)
    if is_reward_model(place):
        scorer = None if cfg.score_pairs.model else cfg.reward
        return RewardModel.load(place, device(), rows=cfg.scorer_rows, scorer=scorer)
    return RewardModel.published(place, device(), field="score_pairs.model", rows=cfg.scorer_rows)


def _write_scores(
    path: Path, rows: Sequence[PairRow], scores: tuple[Tensor, Tensor], rewards: tuple[np.ndarray, np.ndarray]
) -> None:
    """One row per pair: its row in the table, its subset, and what heads and aggregation say of both responses."""
    sides = {"chosen": (rewards[0], scores[0]), "rejected": (rewards[1], scores[1])}
    numbers, subsets = [row.number for row in rows], [str(row.others["subset"]) for row in rows]
    columns: dict[str, pa.Array] = {"row": pa.array(numbers, pa.int64()), "subset": pa.array(subsets)}
    for side, (reward, heads) in sides.items():
        columns[f"reward_{side}"] = pa.array(reward, pa.float32())
        columns[f"scores_{side}"] = pa.array(heads.T.tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table(columns), path)


def _print(aggregation: str, about: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    total = _cells(aggregation, record["total"])
    title = f"agreement with the labels of {about['source']['path']}; a tie counts one half"
    table = table_of(title, ["subset", *total])
    if len(record["subsets"]) > 1:
        for subset, row in record["subsets"].items():
            table.add_row(subset, *_cells(aggregation, row).values())
        table.add_section()
    table.add_row("total", *total.values())
    console.print(table)
    bench = record["rewardbench"]
    if bench:
        parts = [f"{name} {value:.3f}" for name, value in bench["sections"].items()]
        whole = "not all sections are there" if bench["score"] is None else f"score {bench['score']:.3f}"
        console.print(f"RewardBench: {', '.join(parts)}; {whole} (without prior sets)")
    for name, what in NOTES.items():
        if about[name]:
            console.print(f"{name}: {about[name]} {what}")


def _cells(aggregation: str, row: Mapping[str, Any]) -> dict[str, str]:
    """A row of the table, by the names of its columns."""
    own = row["reward"]
    cells = {"pairs": str(own["pairs"]), aggregation: f"{own['accuracy']:.3f}"}
    cells |= {"95%": f"{own['low']:.3f} - {own['high']:.3f}", "ties": str(own["ties"])}
    if len(row["heads"]) > 1:
        cells |= {"mean of heads": f"{row['mean']['accuracy']:.3f}", "one head": f"{row['head_mean']:.3f}"}
    return cells
