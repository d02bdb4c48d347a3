"""A run folder as `train` leaves it, made up: proxy climbs, gold turns over, an ensemble holds out longer."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

WORDS = [
    "warm",
    "dull",
    "crisp",
    "quiet",
    "splendid",
    "stale",
    "bright",
    "tender",
    "bland",
    "gracious",
    "rude",
    "lively",
    "salty",
    "smooth",
    "peaceful",
    "shabby",
    "fragrant",
    "tepid",
]
STAGES = {"rollout": 0.2, "reference": 0.03, "reward": 0.05, "gold": 0.01, "update": 0.15, "driver": 0.004, "log": 0.01}


def write_fake_run(
    folder: Path,
    *,
    steps: int = 60,
    rows: int = 8,
    seed: int = 0,
    gold_every: int | None = 1,
    peak: float = 0.4,
    noise: float = 0.1,
    timings: bool = True,
    rollouts: bool = True,
    text: str | None = None,
) -> Path:
    """The folder, written. `peak` is the share of the run at which gold turns; None never measures gold."""
    rng = np.random.default_rng(seed)
    (folder / "rollouts").mkdir(parents=True)
    train = {"kind": "online", "kl": {"kind": "fixed", "coef": 0.05}}
    config = {"name": folder.parent.name, "seed": seed, "train": train, "aggregation": {"kind": "mean"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "fingerprint.txt").write_text(f"{seed:02d}ab34cd56\n")
    parents = {role: {"path": f"stages/{role}", "sha256": f"{role[0]}" * 64} for role in ("policy", "reward", "gold")}
    manifest = {"kind": "online", "axis": "step", "budget": None, "name": "fake"}
    manifest |= {"fingerprint": f"{seed:02d}ab34cd56", "parents": parents}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "code_version": "0.1.0"}))

    metric_lines, timing_lines = [], []
    for step in range(steps):
        share = step / max(1, steps - 1)
        proxy = 3.2 * (1 - np.exp(-3 * share)) + rng.normal(0, noise)
        gold = 0.3 + 1.5 * (1 - ((share - peak) / peak) ** 2 if share < peak else 1 - (share - peak) ** 2 * 2)
        gold += rng.normal(0, noise)
        due = gold_every is not None and step % gold_every == 0
        kl = 34 * share**1.4 + rng.normal(0, 0.3)
        row_proxy = proxy + rng.normal(0, 1, rows)
        row_gold = gold + rng.normal(0, 0.5, rows)
        record = {
            "step": step,
            "proxy": float(row_proxy.mean()) if noise else float(proxy),
            "heads": [float(proxy)] * 3,
            "disagreement": 0.2 + 0.5 * share,
            "head_correlation": 0.9 - 0.3 * share,
            "gold": (float(gold) if due else None),
            "gold_se": noise if due else None,
            "kl_nats": float(kl) if noise else 34 * share**1.4,
            "kl_nats_se": 0.3,
            "kl_per_token": float(kl) / 16,
            "kl_exact_nats": float(kl) if step % 5 == 0 else None,
            "kl_coef": 0.05,
            "response_tokens": 14 + 6 * share,
            "ended": 0.9 - 0.3 * share,
            "entropy": 3 - share,
            "loss": 0.1,
            "clip_fraction": 0.05,
            "value_loss": None,
            "grad_norm": 1.0,
            "sampler_gap": 0.0,
        }
        metric_lines.append(json.dumps(record))
        stage_seconds = {name: value * (1 + 0.1 * float(rng.random())) for name, value in STAGES.items()}
        stage_seconds["checkpoint"] = 0.05 if step % 20 == 0 else 0.0
        timing = {"step": step, "seconds": sum(stage_seconds.values()), "stage_seconds": stage_seconds}
        timing_lines.append(
            json.dumps({**timing, "tokens": rows * 16, "peak_rss_mb": {"policy": 500 + step, "reward": 410.0}})
        )
        if rollouts:
            table = _rollout_table(rng, step, row_proxy, row_gold if due else None, kl=kl, text=text)
            pq.write_table(table, folder / "rollouts" / f"step_{step:06d}.parquet")
    (folder / "metrics.jsonl").write_text("\n".join(metric_lines) + "\n")
    if timings:
        (folder / "timings.jsonl").write_text("\n".join(timing_lines) + "\n")
    return folder


def _rollout_table(rng, step, proxy, gold, *, kl, text):
    rows = len(proxy)
    responses = [text or f"the pasta felt {' '.join(rng.choice(WORDS, 12))}, and stayed so." for _ in range(rows)]
    return pa.table(
        {
            "step": pa.array([step] * rows, pa.int64()),
            "row": pa.array(range(rows), pa.int64()),
            "group": pa.array([row // 2 for row in range(rows)], pa.int64()),
            "prompt": [text or f"review of a restaurant, topic {row // 2}:" for row in range(rows)],
            "response": responses,
            "tokens": pa.array([16] * rows, pa.int64()),
            "ended": [True] * rows,
            "proxy": pa.array(proxy, pa.float32()),
            "reward": pa.array(proxy, pa.float32()),
            "gold": pa.array([None] * rows if gold is None else gold, pa.float32()),
            "kl_nats": pa.array(kl + rng.normal(0, 1, rows), pa.float32()),
            "scores": pa.array([[float(value)] * 3 for value in proxy], pa.list_(pa.float32())),
        }
    )


def write_fake_study(folder: Path, variants=("single", "worst_case", "mean"), seeds=5, **options) -> dict:
    """The study's run folders by variant and seed; later variants turn over later."""
    runs: dict[str, dict[int, Path]] = {}
    for position, variant in enumerate(variants):
        for seed in range(seeds):
            target = folder / f"seed_{seed}" / variant / "train"
            number = seed + 100 * position
            run = write_fake_run(target, seed=number, peak=0.35 + 0.2 * position + 0.02 * seed, **options)
            runs.setdefault(variant, {})[seed] = run
    return runs
