"""What the numbers say, in sentences: computed from the data, with no adjective the data did not earn."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import get_args

from framework.analysis.advice import PointGold
from framework.analysis.columns import BEST_OF_N, Status
from framework.analysis.comparison import RUNS, Cell, Comparison
from framework.analysis.experiment import CurveAnalysis, Experiment
from framework.analysis.frontier import Fit
from framework.analysis.over_seeds import Estimate
from framework.analysis.table import Curve
from framework.measure import HELD, Outcome, outcome_of
from framework.report.text import interval, listed, number, percent, plural

MOST_NAMED = 6  # names that one sentence lists


def headline(experiment: Experiment) -> str:
    """The finding, in one sentence: where gold peaks, who ends highest, or what became of the only run."""
    runs = experiment.table.records
    if any(own.advice for own in experiment.curves.values()):
        return _peaks(experiment)
    if experiment.comparison is not None and (text := _against_baseline(experiment.comparison)):
        return text
    curves = _by_curve(runs) or _by_curve(experiment.table.curves)
    ends = {name: Estimate.of([each.gold_end for each in own]).mean for name, own in curves.items()}
    known = {name: end for name, end in ends.items() if end is not None}
    if len(known) > 1:
        return _ends({name: curves[name] for name in known}, known)
    (own, *_) = curves.values()
    return _gold(own, "these runs" if len(own) > 1 else "this run", "step" if runs else "n")


def _ends(curves: Mapping[str, Sequence[Outcome]], ends: Mapping[str, float]) -> str:
    """Under which curves the proxy rose while gold fell below its start, and who ends highest."""

    def rose(name: str, what: str) -> float:
        pairs = [(getattr(own, f"{what}_start"), getattr(own, f"{what}_end")) for own in curves[name]]
        return sum(end - start for start, end in pairs if start is not None and end is not None)

    lost = [name for name in ends if rose(name, "proxy") > 0 > rose(name, "gold")]
    text = "At the end gold is"
    if lost:
        whom = f"all {len(ends)} curves" if len(lost) == len(ends) > 2 else listed(lost)
        text = f"The proxy rose and gold ended below its start under {whom}; at the end gold is"
    (worst, low), *_, (best, high) = sorted(ends.items(), key=lambda item: item[1])
    if number(low) == number(high):
        return f"{text} {number(high)} under each."
    proxies = {name: Estimate.of([own.proxy_end for own in curves[name]]).mean or 0.0 for name in ends}
    is_fooled = max(proxies, key=lambda name: proxies[name]) == worst
    fooled = f", where the proxy is highest ({number(proxies[worst])})" if is_fooled else ""
    return f"{text} highest under {best} ({number(high)}) and lowest under {worst} ({number(low)}){fooled}."


def paragraphs(experiment: Experiment) -> list[tuple[str, str]]:
    """The name of each curve with what is said of it beside the headline, then how many runs there are."""
    found = headline(experiment)
    texts = [(name, _one_curve(experiment, name).replace(found, "").strip()) for name in experiment.curves]
    if len(experiment.records) > 1:
        texts.append(("Runs", _runs(experiment)))
    return [(about, text) for about, text in texts if text]


def _by_curve(curves: Sequence[Curve]) -> dict[str, list[Outcome]]:
    """Outcomes by curve name: of the complete runs, where there is one."""
    found: dict[str, list[Curve]] = {}
    for curve in curves:
        found.setdefault(curve.curve, []).append(curve)
    complete = {name: [c for c in own if c.is_complete] or own for name, own in found.items()}
    return {name: [outcome_of(curve) for curve in own] for name, own in complete.items()}


def _peaks(experiment: Experiment) -> str:
    """Where the fitted gold of the runs peaks."""
    fits = {name: fit for name, own in experiment.curves.items() if (fit := _main_fit(own)) is not None}
    if not fits:
        return "Gold could not be fitted for any curve, so these runs cannot say what a budget is worth."
    peaks = {name: fit for name, fit in fits.items() if fit.peak.supported}
    if not peaks:
        return "No curve has a peak of gold that the data support in the range of KL that was seen."
    where = ((name, fit.peak) for name, fit in peaks.items())
    parts = [f"at {number(peak.kl_nats)} nats under {name} ({interval(peak.kl_interval)})" for name, peak in where]
    text = f"Gold peaks {listed(parts)}"
    without = [name for name in experiment.curves if name not in peaks]
    return f"{text}; the data support no peak in this range for {listed(without)}." if without else f"{text}."


def _main_fit(own: CurveAnalysis) -> Fit | None:
    """The fit of the runs that is read off."""
    return next((each.main for method, each in own.frontiers.items() if method != BEST_OF_N), None)


def _against_baseline(comparison: Comparison) -> str:
    """Who is clearly better or worse than the baseline, condition by condition."""
    cells = comparison.figures.get(RUNS, {}).items()
    judged = [cell for cell, own in cells if own["gold_end_difference"].p_value is not None]
    parts = []
    for condition in comparison.conditions:
        if members := [cell for cell in judged if cell.condition == condition]:
            parts.append(": ".join(filter(None, (condition, _clearly(comparison, members)))))
    return f"Gold at the end, against {comparison.baseline}: {'; '.join(parts)}." if parts else ""


def _clearly(comparison: Comparison, cells: Sequence[Cell]) -> str:
    marks = {cell: comparison.marks[RUNS][cell]["gold_end_difference"] for cell in cells}
    parts = []
    for how, sign in (("higher", 1), ("lower", -1)):
        if names := [cell.name for cell in cells if marks[cell] == sign]:
            who = listed(names) if len(names) <= MOST_NAMED else plural(len(names), "variant")
            parts.append(f"clearly {how} under {who}")
    if rest := sum(mark == 0 for mark in marks.values()):
        others = "the others" if parts else f"any of {plural(rest, 'other variant')}"
        parts.append(f"not clearly different under {others}")
    return listed(parts)


def _one_curve(experiment: Experiment, name: str) -> str:
    """The proxy, gold, the advice, and where the fits peak."""
    own, members = experiment.curves[name], experiment.table.curves_of(name)
    runs = [curve for curve in members if curve.method != BEST_OF_N]
    sentences = []
    if own.advice is not None:
        beyond = [row for row in own.advice.rows if row.below_best.mean is not None]
        after = beyond[[row.choice for row in beyond].index(own.advice.choice) + 1 :]
        costs = [_cost(row) for row in dict.fromkeys((*after[:1], *after[-1:]))]
        sentences.append(own.advice.sentence)
        if costs:
            sentences.append(f"Beyond it, gold is below that of the best by {listed(costs)}.")
    elif runs:
        outcomes = _by_curve(runs)[name]
        sentences += [_proxy(outcomes, runs[0].axis)]
        sentences += [_gold(outcomes, "this run" if len(outcomes) == 1 else "these runs", runs[0].axis)]
    for method, each in own.frontiers.items():
        if method == BEST_OF_N:
            chosen = _by_curve([curve for curve in members if curve.method == BEST_OF_N])[name]
            said = _gold(chosen, "the pool", "n")
            sentences.append(f"By best-of-n, {said[0].lower()}{said[1:]}")
        elif own.advice is not None:
            sentences += [_peak(each.main), each.verdict]
    return " ".join(filter(None, sentences))


def _proxy(outcomes: Sequence[Outcome], axis: str) -> str:
    moved = Estimate.of([_less(each.proxy_end, each.proxy_start) for each in outcomes]).mean
    if moved is None:
        return ""
    kl = Estimate.of([each.kl_nats_end for each in outcomes]).mean
    at = "" if kl is None else f", at {number(kl)} nats from the initial policy at the end"
    over = f" (means over {len(outcomes)} runs)" if len(outcomes) > 1 else ""
    how = f"{'rose' if moved >= 0 else 'fell'} by {number(abs(moved))} reference standard deviations"
    return f"The proxy {how} over {plural(outcomes[0].steps, axis)}{at}{over}."


def _gold(outcomes: Sequence[Outcome], these: str, axis: str) -> str:
    """How gold rose and fell, in a sentence."""
    known = [each for each in outcomes if each.gold_peak is not None and each.gold_end is not None]
    if not known:
        return f"Gold was never measured, so {these} cannot say what the proxy was worth."
    if len(known) == 1:
        return _one_arc(known[0], axis)
    figures = (
        [getattr(each, name) for each in known] for name in ("gold_start", "gold_peak", "gold_end", "share_lost")
    )
    start, peak, end, lost = (Estimate.of(values) for values in figures)
    text = f"Gold went from {number(start.mean)} to a peak of {number(peak.mean)} and ended at {number(end.mean)}; "
    text += f"it turned over in {sum(each.turned_over for each in known)} of {len(known)} runs"
    if lost.mean is not None:
        those = f", the {lost.num_seeds} runs with a gain" if lost.num_seeds < len(known) else ""
        bounds = interval(lost.interval, percent)
        text += f" and ended {percent(lost.mean)} of its gain lower" + (f" ({bounds}{those})" if bounds else "")
    return f"{text}."


def _one_arc(own: Outcome, axis: str) -> str:
    if not own.gained:
        low = _less(own.gold_start, own.gold_end)
        errors = (own.gold_start_se, own.gold_end_se)
        start, end = number(own.gold_start), number(own.gold_end)
        if low is None or None in errors:
            return f"Gold went from {start} to {end}; its noise is not known."
        noise = 2 * sum((error or 0.0) ** 2 for error in errors) ** 0.5
        moved = "fell below it" if low > noise else "stayed within noise of it"
        return f"Gold never rose clearly above its start of {start} and {moved}."
    at = f"{axis} {own.gold_peak_at:.0f}" if own.gold_peak_at is not None else "its peak"
    at += f" and {number(own.kl_nats_at_gold_peak)} nats" if own.kl_nats_at_gold_peak is not None else ""
    rise = f"Gold rose from {number(own.gold_start)} to a peak of {number(own.gold_peak)} at {at}"
    lost = f": {percent(own.share_lost)} of its gain was lost again"
    then = lost if own.turned_over else "; it did not clearly turn over"
    return f"{rise} and ended at {number(own.gold_end)}{then}."


def _less(high: float | None, low: float | None) -> float | None:
    return None if high is None or low is None else high - low


def _cost(row: PointGold) -> str:
    bounds = interval(row.below_best.interval)
    return f"{number(row.below_best.mean)} at {row.choice}" + (f" ({bounds})" if bounds else "")


def _peak(fit: Fit | None) -> str:
    if fit is None:
        return ""
    peak = fit.peak
    if not peak.supported:
        return f"{peak.reason[:1].upper()}{peak.reason[1:]}."
    return f"The fitted gold peaks at {number(peak.kl_nats)} nats ({interval(peak.kl_interval)}), where it is {number(peak.gold)}."


def _runs(experiment: Experiment) -> str:
    statuses = Counter(record.status for record in experiment.records)
    names = {status: status for status in get_args(Status)} | {"stopped": "stopped early with good data"}
    counts = [f"{statuses[status]} {name}" for status, name in names.items() if statuses[status]]
    text = f"Of {len(experiment.records)}: {', '.join(counts)}."
    points = [point for own in experiment.curves.values() for point in own.points]
    if judged := sum(point.held.num_seeds for point in points):
        held = sum(point.num_held for point in points)
        text += f" {held} of {judged} held the mean KL of their last fifth within {HELD:.0%} of the budget."
    if experiment.num_dropped:
        rows = experiment.table.data.num_rows
        text += f" {experiment.num_dropped:,} of {rows:,} rows have no gold or no KL and were left out of the fits."
    return text
