"""What the figures of `ensemble_cost.py` add up to: formulas, ratios, limits, a table and the last line."""

import json
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

SCORE_LIMIT, TRAIN_LIMIT, MEMORY_LIMIT = 1.15, 1.2, 0.25
"""What five shared heads may cost: of the time of one head, twice, and of the memory of five models."""


def formula(kind: str, k: int, sizes: dict[str, int]) -> int:
    """Parameters of an ensemble of k (Zhang et al. 2024, arXiv 2401.16635)."""
    m, head, adapter = sizes["M"], sizes["L"], sizes["Ad"]
    return {"full": k * (m + head), "shared": m + k * head, "lora": m + k * head + k * adapter}[kind]


def state_mb(parameters: int, trained: int) -> float:
    """Float32 weights, and gradients and two moments of those that are trained, in MB (10^6 bytes)."""
    return 4 * (parameters + 3 * trained) / 1e6


def paired_ratio(over: list[float], under: list[float]) -> float:
    """Median over rounds of the ratio within a round."""
    return median(a / b for a, b in zip(over, under, strict=True))


def summarise_case(case: str, memory: dict[str, Any], seconds: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """All figures of one case; times also as multiples of those of one shared head, where that was timed."""
    name, kind, k = case.split("_")
    one = seconds.get(f"{name}_shared_1")
    figures: dict[str, Any] = {key: value for key, value in memory.items() if key != "sizes"}
    figures["formula"] = formula(kind, int(k), memory["sizes"])
    figures["weights_mb"] = 4 * memory["parameters"] / 1e6
    figures["state_mb"] = state_mb(memory["parameters"], memory["trained"])
    for what in ("train", "score"):
        figures[f"{what}_seconds"] = median(seconds[case][what])
        if one:
            figures[f"{what}_to_one"] = paired_ratio(seconds[case][what], one[what])
    return figures


@dataclass(frozen=True)
class Check:
    """A figure and what it may be at most."""

    name: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.value <= self.limit


MEMORIES = {
    "weights, counted": ("weights_mb", "weights_mb"),
    "serving, peak": ("serve_peak_mb", "serve_peak_mb"),
    "weights, gradients and moments, counted": ("state_mb", "state_mb"),
    "training, peak, five at once": ("train_peak_mb", "train_at_once_peak_mb"),
    "training, peak, five in turn": ("train_peak_mb", "train_peak_mb"),
}
"""What is compared: a figure of five shared heads, and one of a full ensemble of five."""


def checks_of(cases: dict[str, dict[str, Any]]) -> list[Check]:
    """The yardsticks that the measured cases can be held to."""
    wrong = sum(case["parameters"] != case["formula"] for case in cases.values())
    found = [Check("cases whose counted parameters differ from the formula", wrong, 0)]
    for name in dict.fromkeys(case.split("_")[0] for case in cases):
        shared, full = cases.get(f"{name}_shared_5"), cases.get(f"{name}_full_5")
        if shared:
            to_one = {"score": SCORE_LIMIT, "train": TRAIN_LIMIT}
            found += [
                Check(f"{name}: five shared heads {what}, of the time of one", shared[f"{what}_to_one"], limit)
                for what, limit in to_one.items()
            ]
        if shared and full:
            label = f"{name}: five shared heads, of five models"
            found += [
                Check(f"{label}: {what}", shared[ours] / full[theirs], MEMORY_LIMIT)
                for what, (ours, theirs) in MEMORIES.items()
            ]
    return found


COLUMNS = {
    "parameters": "{:,}",
    "trained": "{:,}",
    "train_seconds": "{:.4f}",
    "train_to_one": "{:.3f}",
    "score_seconds": "{:.3f}",
    "score_to_one": "{:.3f}",
    "weights_mb": "{:.1f}",
    "serve_peak_mb": "{:.0f}",
    "state_mb": "{:.1f}",
    "train_peak_mb": "{:.0f}",
    "train_at_once_peak_mb": "{:.0f}",
}


def table(cases: dict[str, dict[str, Any]]) -> str:
    """One line per case, in Markdown; what was not measured is a dash."""
    lines = [f"| case | {' | '.join(COLUMNS)} |", "| --- " * (1 + len(COLUMNS)) + "|"]
    for case, figures in cases.items():
        shown = [style.format(figures[key]) if key in figures else "-" for key, style in COLUMNS.items()]
        lines.append(f"| {case.replace('_', ' ')} | {' | '.join(shown)} |")
    return "\n".join(lines)


def result_line(surroundings: dict[str, Any], cases: dict[str, dict[str, Any]], checks: list[Check]) -> str:
    """The last line: every figure, every ratio and whether it is within its limit."""
    record = {"benchmark": "ensemble_cost", **surroundings, "cases": cases}
    record["checks"] = [asdict(check) | {"passed": check.passed} for check in checks]
    return "RESULT " + json.dumps(record)
