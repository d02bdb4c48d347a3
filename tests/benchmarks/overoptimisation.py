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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from framework.analysis.curves import load_run
from framework.analysis.summary import gold_arc, paired_difference, summarise
from jobs.study import StudyView, run_study
from jobs.verbs import CONFIGS, configured

PROXY_GAIN, SHARE_LOST = 1.5, 0.3


def judge_run(run: Path) -> dict[str, float | int | bool | None]:
    """What one run shows."""
    loaded = load_run(run)
    summary, arc = summarise(loaded), gold_arc(loaded)
    assert arc is not None
    gain = arc.peak - arc.start
    return {
        "proxy_gain": summary["proxy_final"] - summary["proxy_start"],
        "gold_start": arc.start,
        "gold_peak": arc.peak,
        "gold_peak_step": arc.peak_step,
        "kl_nats_at_gold_peak": arc.kl_nats_at_peak,
        "gold_final": arc.final,
        "kl_nats_final": summary["kl_nats_final"],
        "share_lost": (arc.peak - arc.final) / gain if gain > 0 else None,
        "gain_is_clear": arc.gained,
        "seconds": summary["seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("runs/overoptimisation"))
    options = parser.parse_args()
    cfg, _ = configured("study", [str(CONFIGS / "demo.yaml"), f"seeds={options.seeds}"], None)
    result = run_study(cfg, options.out, lambda: False, StudyView())
    verdicts = {
        name: {seed: judge_run(run) for seed, run in runs.items()} for name, runs in result.runs.items()
    }
    for name, seeds in verdicts.items():
        for seed, figures in seeds.items():
            text = "  ".join(
                f"{key} {value:.2f}" for key, value in figures.items() if isinstance(value, float)
            )
            print(f"{name} seed {seed}: {text}  peak at step {figures['gold_peak_step']}")
    single = list(verdicts["single"].values())
    last = cfg.steps - 1
    turned = sum(run["gold_peak_step"] < last and (run["share_lost"] or 0) >= SHARE_LOST for run in single)
    clear = sum(
        bool(run["gain_is_clear"]) and run["gold_peak_step"] < last and (run["share_lost"] or 0) >= SHARE_LOST
        for run in single
    )
    climbed = sum(run["proxy_gain"] >= PROXY_GAIN for run in single)
    loaded = {name: {seed: load_run(run) for seed, run in runs.items()} for name, runs in result.runs.items()}
    differences = {}
    for key in ("gold_peak", "gold_final", "kl_nats_at_gold_peak", "gold_peak_step"):
        found = paired_difference(loaded["ensemble"], loaded["single"], key)
        differences[key] = found and {
            "mean": found.mean,
            "interval": found.interval,
            "pairs": found.num_pairs,
        }
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
