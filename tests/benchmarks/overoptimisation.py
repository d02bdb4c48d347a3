"""The demo over several seeds: does the proxy climb while gold turns over, and what does the ensemble do?

    python tests/benchmarks/overoptimisation.py --seeds 0 1 2 3 4 --out runs/overoptimisation

Runs the committed demo configuration (what is finished in the folder is kept), then judges each run by the issue's
yardstick: a single-head proxy ends at least 1.5 reference standard deviations up, and gold peaks inside the run and
loses at least 30% of its gain; whether that gain was clear of noise is told beside it. The last line is `RESULT {json}`.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from framework.analysis.over_seeds import paired_difference
from framework.analysis.run_folder import load_run
from framework.analysis.table import summarise_run
from jobs.experiment.run import ExperimentView, run_experiment
from jobs.verbs import CONFIGS, configured

PROXY_GAIN, SHARE_LOST = 1.5, 0.3


def judge_run(run: Path) -> dict[str, float | int | bool | None]:
    """What one run shows."""
    summary = summarise_run(run)
    gain = summary["gold_peak"] - summary["gold_start"]
    kept = (
        "gold_start",
        "gold_peak",
        "gold_peak_at",
        "gold_peak_is_inside",
        "kl_nats_at_gold_peak",
        "gold_end",
        "kl_nats_end",
    )
    return {
        "proxy_gain": summary["proxy_end"] - summary["proxy_start"],
        **{name: summary[name] for name in kept},
        "share_lost": (summary["gold_peak"] - summary["gold_end"]) / gain if gain > 0 else None,
        "gain_is_clear": summary["gained"],
        "seconds": sum(timing["seconds"] for timing in load_run(run).timings),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("runs/overoptimisation"))
    options = parser.parse_args()
    cfg, _ = configured("study", [str(CONFIGS / "demo.yaml"), f"seeds={options.seeds}"], None)
    result = run_experiment(cfg, options.out, lambda: False, ExperimentView())
    verdicts: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in cfg.variants}
    for record in result.records:
        if record.folder is not None and record.is_complete:
            verdicts[record.variant][record.seed] = judge_run(record.folder)
    for name, seeds in verdicts.items():
        for seed, figures in seeds.items():
            text = "  ".join(f"{key} {value:.2f}" for key, value in figures.items() if isinstance(value, float))
            print(f"{name} seed {seed}: {text}  peak at step {figures['gold_peak_at']}")
    single = list(verdicts["single"].values())
    lost = [run for run in single if run["gold_peak_is_inside"] and (run["share_lost"] or 0) >= SHARE_LOST]
    turned, clear = len(lost), sum(run["gain_is_clear"] for run in lost)
    climbed = sum(run["proxy_gain"] >= PROXY_GAIN for run in single)
    differences = {}
    for key in ("gold_peak", "gold_end", "kl_nats_at_gold_peak", "gold_peak_at"):
        own, base = (
            {seed: figures[key] for seed, figures in verdicts[name].items()} for name in ("ensemble", "single")
        )
        differences[key] = asdict(paired_difference(own, base))
    print(
        f"single, of {len(single)} seeds: proxy up by {PROXY_GAIN} in {climbed}, gold turned over in {turned}, "
        f"in {clear} of them after a gain of more than two standard errors"
    )
    print(
        "RESULT "
        + json.dumps(
            {
                "seeds": options.seeds,
                "single_proxy_climbed": climbed,
                "single_gold_turned_over": turned,
                "single_gold_turned_over_after_a_clear_gain": clear,
                "runs": verdicts,
                "ensemble_minus_single": differences,
            }
        )
    )


if __name__ == "__main__":
    main()
