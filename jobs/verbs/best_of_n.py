"""`goldilocks best-of-n`: proxy and gold of the best of n, for every n and every aggregation, from one pool."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from framework.analysis.experiment import analyse
from framework.analysis.table import best_of_n_table
from framework.artifacts import write_text
from framework.config import Config
from framework.report import write_report
from jobs.best_of_n import aggregations, curves_of, load_scores, settings_of
from jobs.chain import Chain
from jobs.fit_on_ray import fitting_beside
from jobs.stages import check_prompts
from jobs.stop import StopSignal
from jobs.verbs.show import bars, closing, console, table_of
from jobs.workspace import working_in


def best_of_n(
    cfg: Config, out: Path, words: Sequence[str], stop: StopSignal | None = None, address: str | None = None
) -> int:
    """Make what is missing, print the table, write figures and page; `words` are the command line, for the next."""
    check_prompts(cfg)
    with working_in(out):
        with bars(stop) as shown:
            chain = Chain(cfg, out, shown.stage, fitting_beside(cfg, address))
            record = measured(cfg, chain)
        write_text(out / "best_of_n.json", json.dumps(record, indent=2) + "\n")
        table = best_of_n_table({name: curve["points"] for name, curve in record["curves"].items()}, cfg.seed)
        page = write_report(analyse(out.resolve().name, table, []), out)
    console.print(_table(record))
    console.print(f"figures: {out / 'best_of_n.json'}")
    closing(page, shlex.join(["goldilocks", "train", *words, "--out", str(out)]))
    return 0


def measured(cfg: Config, chain: Chain) -> dict[str, Any]:
    """Every figure of the pool: what it is, and one curve per aggregation by its kind."""
    loaded = load_scores(chain.scores.path)
    chosen = aggregations(cfg, len(loaded.heads))
    pool, reward = chain.pool, chain.reward
    return {
        "seed": cfg.seed,
        "fingerprint": cfg.fingerprint(),
        "kl": "log n - (n-1)/n, nats per sequence to the start policy; an upper bound where responses tie",
        "pool": {"path": str(pool.path), "sha256": pool.sha256} | pool.figures,
        "reward": {"path": str(reward.path), "sha256": reward.sha256, "heads": len(loaded.heads)},
        "cut": chain.scores.figures["cut"],
        "curves": curves_of(loaded, chosen, settings_of(cfg).counts),
    }


def _table(record: dict[str, Any]) -> Table:
    """One block per aggregation, one row per n; ± is the standard error over prompts."""
    pool, several = record["pool"], record["reward"]["heads"] > 1
    title = (
        f"best of n from one pool: {pool['prompts']:.0f} prompts x {pool['samples']:.0f} samples; proxy in "
        "reference standard deviations, gold in its own unit, gap in standard deviations of the pool"
    )
    names = ("aggregation", "n", "KL (nats)", "proxy", "gold", "gap", *(["wins over one head"] if several else []))
    table = table_of(title, names)
    for name, curve in record["curves"].items():
        for row, point in enumerate(curve["points"]):
            gap = "-" if point["gap"] is None else f"{point['gap']:.2f}"
            cells = [name if row == 0 else "", str(point["n"]), f"{point['kl_nats']:.2f}"]
            cells += [_figure(point, "proxy"), _figure(point, "gold"), gap]
            cells += [_figure(point, "win_rate")] if several else []
            table.add_row(*cells, end_section=row + 1 == len(curve["points"]))
    return table


def _figure(point: dict[str, Any], key: str) -> str:
    error = point[f"{key}_se"]
    return f"{point[key]:.3f}" + ("" if error is None else f" ± {error:.3f}")
