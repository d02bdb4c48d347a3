"""What a sweep says, in sentences: computed from its analysis, with no adjective the data did not earn."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from framework.analysis.advice import BudgetGold
from framework.analysis.frontier import Fit
from framework.analysis.reached import TOLERANCE
from framework.analysis.sweep_analysis import MethodAnalysis, SweepAnalysis
from framework.report.reading import Paragraph, number

MOST_PAIRS = 6
"""Pairs of methods that the headline names."""
STATUSES = {
    "finished": "finished",
    "stopped": "stopped early with good data",
    "failed": "failed",
    "unfinished": "unfinished",
}


def read_sweep(analysis: SweepAnalysis, statuses: Mapping[str, int]) -> list[Paragraph]:
    """Where gold peaks under each method and whether that differs, then a paragraph a method, then the trials.

    Args:
        statuses: trials by status.
    """
    headline = _headline(analysis)
    methods = [Paragraph(name, _one_method(method)) for name, method in analysis.methods.items()]
    return [Paragraph("", headline), *methods, Paragraph("Trials", _trials(analysis, statuses))]


def main_fit(method: MethodAnalysis, optimiser: str = "rl") -> Fit | None:
    """The fit that is read off for this method and optimiser."""
    frontier = method.frontiers.get(optimiser)
    return frontier.main if frontier else None


def interval(bounds: tuple[float, float] | None) -> str:
    """`95% interval low to high`; empty without one."""
    return f"95% interval {number(bounds[0])} to {number(bounds[1])}" if bounds else ""


def _headline(analysis: SweepAnalysis) -> str:
    fits = {name: fit for name, method in analysis.methods.items() if (fit := main_fit(method)) is not None}
    if not fits:
        others = [main_fit(method, "best_of_n") for method in analysis.methods.values()]
        whose = " of RL" if any(others) else ""
        return f"Gold{whose} could not be fitted for any method, so this sweep cannot say what a budget is worth."
    peaks = {name: fit for name, fit in fits.items() if fit.peak.supported}
    if not peaks:
        return "No method has a peak of gold that the data support in the range of KL that was seen."
    parts = [
        f"at {number(fit.peak.kl_nats)} nats under {name} ({interval(fit.peak.kl_interval)})"
        for name, fit in peaks.items()
    ]
    without = [name for name in analysis.methods if name not in peaks]
    text = f"Gold peaks {_listed(parts)}."
    text += f" The data support no peak in this range for {_listed(without)}." if without else ""
    return text + _apart(peaks)


def _apart(peaks: Mapping[str, Fit]) -> str:
    """Which peaks have intervals that do not meet."""
    known = {name: fit.peak.d_interval for name, fit in peaks.items() if fit.peak.d_interval is not None}
    pairs = [
        (one, other, known[one][0] > known[other][1] or known[other][0] > known[one][1])
        for one, other in combinations(known, 2)
    ]
    if not pairs:
        return ""
    clear = [f"{one} and {other}" for one, other, is_apart in pairs if is_apart]
    if len(pairs) == 1:
        return " The two intervals do not overlap." if clear else " The two intervals overlap."
    if not clear:
        return " All these intervals overlap in pairs."
    if len(clear) == len(pairs):
        return " No two of these intervals overlap."
    named = f": {', '.join(clear)}" if len(clear) <= MOST_PAIRS else ""
    return f" Of {len(pairs)} pairs of intervals, {len(clear)} do not overlap{named}."


def _one_method(method: MethodAnalysis) -> str:
    sentences = [_advice(method)]
    frontier = method.frontiers.get("rl")
    if frontier is not None:
        sentences += [_peak(frontier.main), frontier.verdict]
    if (chosen := method.frontiers.get("best_of_n")) is not None:
        sentences.append(f"By best-of-n: {_peak(chosen.main, is_inner=True) or chosen.verdict}")
    return " ".join(filter(None, sentences))


def _advice(method: MethodAnalysis) -> str:
    advice = method.advice
    if advice is None:
        return "No budget is recommended: that takes gold at the end of trials with two budgets or more."
    beyond = [row for row in advice.rows if row.budget > advice.budget and row.below_best.mean is not None]
    costs = [_cost(row) for row in dict.fromkeys((*beyond[:1], *beyond[-1:]))]
    return advice.sentence + (
        f" Beyond it, gold is below that of the best budget by {_listed(costs)}." if costs else ""
    )


def _cost(row: BudgetGold) -> str:
    bounds = interval(row.below_best.interval)
    return f"{number(row.below_best.mean)} at {row.budget:g} nats" + (f" ({bounds})" if bounds else "")


def _peak(fit: Fit | None, is_inner: bool = False) -> str:
    if fit is None:
        return ""
    peak = fit.peak
    if not peak.supported:
        return f"{peak.reason if is_inner else peak.reason[:1].upper() + peak.reason[1:]}."
    bounds = interval(peak.kl_interval)
    start = "the fitted gold" if is_inner else "The fitted gold"
    return f"{start} peaks at {number(peak.kl_nats)} nats ({bounds}), where it is {number(peak.gold)}."


def _trials(analysis: SweepAnalysis, statuses: Mapping[str, int]) -> str:
    counts = [f"{statuses[status]} {words}" for status, words in STATUSES.items() if statuses.get(status)]
    text = f"Of {sum(statuses.values())}: {', '.join(counts)}." if counts else "There are none."
    judged = [end for method in analysis.methods.values() for end in method.trials if end.within is not None]
    if judged:
        held = sum(bool(end.within) for end in judged)
        text += f" {held} of {len(judged)} held the mean KL of their last fifth within {TOLERANCE:.0%} of the budget."
    if analysis.num_dropped:
        text += f" {analysis.num_dropped:,} of {analysis.num_rows:,} rows have no gold or no KL and were dropped from the fits."
    return text


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
