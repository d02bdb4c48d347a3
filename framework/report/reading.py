"""What the numbers say, in sentences: computed from the data, with no adjective the data did not earn."""

from collections.abc import Mapping
from dataclasses import dataclass

from framework.analysis.curves import Run, t_interval
from framework.analysis.summary import Difference, GoldArc, gold_arc, paired_difference, summarise_runs

Runs = Mapping[str, Mapping[int, Run]]


@dataclass(frozen=True)
class Paragraph:
    """A few sentences, and what they are about."""

    about: str
    """A variant, a comparison, or empty for the whole."""
    text: str


def read_run(run: Run) -> list[Paragraph]:
    """One paragraph about a single run."""
    return [Paragraph("", _one_variant({0: run}, "this run"))]


def read_study(runs: Runs) -> list[Paragraph]:
    """A headline, a paragraph for each variant, then how the others differ from the first."""
    names = list(runs)
    headline = [Paragraph("", text) for text in _headline(runs)]
    variants = [Paragraph(variant, _one_variant(seeds, "these runs")) for variant, seeds in runs.items()]
    others = [
        Paragraph(f"{other} against {names[0]}", _compared(runs, names[0], other)) for other in names[1:]
    ]
    return headline + variants + others


def number(value: float | None, signed: bool = False) -> str:
    """The value with about three significant figures and a true minus sign; a dash for None."""
    if value is None:
        return "–"
    magnitude = abs(value)
    digits = 0 if magnitude >= 100 else 1 if magnitude >= 10 else 2
    text = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    if not float(text.replace(",", "")):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def share_lost(seeds: Mapping[int, Run]) -> tuple[float | None, tuple[float, float] | None, int]:
    """Mean share of gold's gain lost by the end, its 95% t interval, and how many seeds had a gain."""
    arcs = [gold_arc(run) for run in seeds.values()]
    shares = [arc.share_lost for arc in arcs if arc is not None]
    known = [share for share in shares if share is not None]
    return (sum(known) / len(known) if known else None), t_interval(known), len(known)


def _headline(runs: Runs) -> list[str]:
    """Which variant ends with the most gold; empty where there is nothing to compare."""
    ends = {name: entry["gold_final"] for name, entry in summarise_runs(runs)["variants"].items()}
    known = {name: end for name, end in ends.items() if end is not None}
    if len(known) < 2:
        return []
    best, worst = max(known, key=lambda name: known[name]), min(known, key=lambda name: known[name])
    text = f"At the end of training gold is highest under {best} ({number(known[best])})"
    return [f"{text} and lowest under {worst} ({number(known[worst])})."]


def _one_variant(seeds: Mapping[int, Run], these: str) -> str:
    summary = summarise_runs({"variant": seeds})["variants"]["variant"]
    over = f" (means over {len(seeds)} seeds)" if len(seeds) > 1 else ""
    sentence = ""
    if summary["proxy_start"] is not None:
        moved = summary["proxy_final"] - summary["proxy_start"]
        verb = "rose" if moved >= 0 else "fell"
        sentence = f"The proxy {verb} by {number(abs(moved))} reference standard deviations"
        sentence += f" over {number_of_steps(summary['steps'])}"
        if summary["kl_nats_final"] is not None:
            sentence += f", at {number(summary['kl_nats_final'])} nats from the initial policy at the end"
        sentence += f"{over}. "
    arcs = [arc for arc in (gold_arc(run) for run in seeds.values()) if arc is not None]
    if not arcs:
        return sentence + f"Gold was never measured, so {these} cannot say what the proxy was worth."
    return sentence + (_one_arc(arcs[0]) if len(arcs) == 1 else _many_arcs(arcs, summary, seeds))


def _one_arc(arc: GoldArc) -> str:
    if not arc.gained:
        moved = "fell below it" if arc.start - arc.final > 2 * _noise(arc) else "stayed within noise of it"
        return f"Gold never rose clearly above its start of {number(arc.start)} and {moved}."
    at = f"step {arc.peak_step}" + (
        f" and {number(arc.kl_nats_at_peak)} nats" if arc.kl_nats_at_peak is not None else ""
    )
    rise = f"Gold rose from {number(arc.start)} to a peak of {number(arc.peak)} at {at}"
    share = arc.share_lost
    assert share is not None
    if arc.turned_over:
        return f"{rise} and ended at {number(arc.final)}: {share:.0%} of its gain was lost again."
    return f"{rise} and ended at {number(arc.final)}; it did not turn over within this run."


def _many_arcs(arcs: list[GoldArc], summary: Mapping[str, float], seeds: Mapping[int, Run]) -> str:
    turned = sum(arc.turned_over for arc in arcs)
    peak = f"Gold went from {number(summary['gold_start'])} to a peak of {number(summary['gold_peak'])}"
    at = f" (on average at step {summary['gold_peak_step']:.0f}"
    if summary["kl_nats_at_gold_peak"] is not None:
        at += f" and {number(summary['kl_nats_at_gold_peak'])} nats"
    text = f"{peak}{at}) and ended at {number(summary['gold_final'])}. "
    text += (
        f"It turned over in {turned} of {len(arcs)} seeds" if turned else "It did not turn over in any seed"
    )
    mean, interval, count = share_lost(seeds)
    if mean is not None:
        text += f", ending {mean:.0%} of its gain lower"
        if interval is not None:
            text += f" (95% interval {interval[0]:.0%} to {interval[1]:.0%}"
            text += f", the {count} seeds with a gain)" if count < len(arcs) else ")"
    return text.replace("-", "−") + "."


def _compared(runs: Runs, base: str, other: str) -> str:
    """How gold's peak and end differ between two variants, paired by seed."""
    differences = {
        "peaks": paired_difference(runs[other], runs[base], "gold_peak"),
        "ends": paired_difference(runs[other], runs[base], "gold_final"),
    }
    known = {verb: difference for verb, difference in differences.items() if difference is not None}
    if not known:
        return "they share no seed on which gold was measured, so they cannot be compared."
    parts = [f"{verb} {_difference(difference)}" for verb, difference in known.items()]
    pairs = min(difference.num_pairs for difference in known.values())
    over = f"{pairs} seeds in pairs" if pairs > 1 else "one seed, so this may be chance"
    return f"gold {' and '.join(parts)}; {over}."


def _difference(difference: Difference) -> str:
    text = f"{number(abs(difference.mean))} {'higher' if difference.mean >= 0 else 'lower'}"
    if difference.interval is None:
        return text
    low, high = (number(bound, signed=True) for bound in difference.interval)
    return f"{text} (95% interval {low} to {high}{'' if difference.is_clear else ', not clear of zero'})"


def number_of_steps(steps: float) -> str:
    """A count of steps in words."""
    return f"{steps:.0f} step" + ("" if steps == 1 else "s")


def _noise(arc: GoldArc) -> float:
    return float((arc.start_se**2 + arc.final_se**2) ** 0.5)
