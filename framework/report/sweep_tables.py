"""The tables of a sweep: budgets, fits, losses past the peak, and trials."""

from collections.abc import Callable, Sequence

import numpy as np

from framework.analysis.comparison import Estimate
from framework.analysis.forms import FORMS
from framework.analysis.frontier import Fit
from framework.analysis.goodness import Goodness
from framework.analysis.reached import TrialEnd, by_seed
from framework.analysis.sweep_analysis import Frontier, SweepAnalysis
from framework.analysis.sweep_table import SweepTable, TrialCurve, TrialRecord
from framework.report.page import escaped, folded, html_table, plural
from framework.report.reading import number
from framework.report.sweep_reading import squared

Bounds = tuple[float, float] | None
OPTIMISERS = {"rl": "RL", "best_of_n": "best-of-n"}
TRIAL_COLUMNS = (
    "Trial", "Budget", "Status", "Steps", "KL reached", "Reached / budget", "Within 10%", "Gold", "Proxy", "Gap"
)  # fmt: skip
ANSWERS = {True: "yes", False: "no", None: "–"}


def budget_table(table: SweepTable, analysis: SweepAnalysis) -> str:
    """KL, gold, proxy, gap, coefficient and steps at the end, a row for each method and budget."""
    names = (
        "Method",
        "Budget",
        "Seeds",
        "KL reached",
        "Within 10%",
        "Gold",
        "Proxy",
        "Gap",
        "Coefficient",
        "Steps",
    )
    units = (
        "",
        "nats",
        "",
        "nats",
        "trials",
        "gold units",
        "reference s.d.",
        "step-0 s.d.",
        "reward per nat",
        "",
    )
    rows = []
    for name, method in analysis.methods.items():
        curves = table.curves_of(name, "rl")
        for budget in dict.fromkeys(
            sorted((end.budget for end in method.trials), key=lambda b: (b is None, b))
        ):
            ends = [end for end in method.trials if end.budget == budget]
            own = [curve for curve in curves if curve.budget == budget and curve.is_complete]
            rows.append(_budget_row(name, budget, ends, own))
    if not rows:
        return "<p>No trial has come to its end, so there is nothing to compare yet.</p>"
    note = (
        "Each trial by its mean over the last fifth of its steps, then the mean over seeds with its 95% t interval in"
        " brackets; one seed has none. Failed and unfinished trials are left out here."
    )
    return f'<p class="note">{note}</p>{html_table(_head(names, units), rows, "seeds")}'


def fit_table(analysis: SweepAnalysis) -> str:
    """Every fit with its intervals and errors, and the quadratic and isotonic curves that it is held against."""
    names = ("Curve", "R0", "α", "β", "Peak", "RMSE", "R²", "RMSE, seed left out", "Points")
    units = ("", "", "", "", "nats", "gold units", "", "gold units", "")
    rows, reasons = [], []
    for name, optimiser, frontier in _frontiers(analysis):
        for fit in frontier.fits:
            rows.append(_fit_row(f"{name}, {optimiser}", fit))
            reasons += (
                [f"{name}, {optimiser}, {_formula(fit)}: {fit.peak.reason}"] if not fit.peak.supported else []
            )
        rows += [
            _isotonic_row(f"{name}, {optimiser}", row) for row in frontier.goodness if row.curve not in FORMS
        ]
    if not rows:
        return "<p>Gold could not be fitted: no method has enough rows with both gold and KL.</p>"
    note = (
        "d is √KL in √nats. Brackets are 95% intervals over seeds, by bootstrap with Student’s factor; that of a peak is"
        " Fieller’s. R0 without brackets is fixed at the gold of the initial policy. The last error is on the points of a"
        " seed that the curve was not fitted to. The isotonic curve is the best that never falls."
    )
    listed = "".join(f"<li>{escaped(reason)}</li>" for reason in reasons)
    why = folded(
        f"Why {plural(len(reasons), 'fit')} {'has' if len(reasons) == 1 else 'have'} no peak",
        f"<ul>{listed}</ul>",
    )
    return (
        f'<p class="note">{note}</p>{html_table(_head(names, units), rows, "seeds")}{why if reasons else ""}'
    )


def loss_table(analysis: SweepAnalysis) -> str:
    """How much gold is lost past the peak, a row for each method and optimiser; empty without any fit."""
    names = ("Curve", "Peak − end", "Area lost", "KL at the peak", "Gold at the peak", "Gap at the end")
    units = ("", "gold units", "gold units × √nats", "nats", "gold units", "start s.d.")
    rows = []
    for name, optimiser, frontier in _frontiers(analysis):
        if (loss := frontier.losses) is not None:
            cells = [
                _cell(loss.index, loss.index_interval),
                _cell(loss.area_lost, loss.area_lost_interval),
                _cell(loss.kl_nats_at_peak, loss.kl_nats_at_peak_interval),
                _cell(loss.gold_at_peak),
                _estimate(loss.gap_at_end),
            ]
            rows.append(_row(f"{name}, {optimiser}", "", cells))
    if not rows:
        return ""
    note = (
        "Read off the fitted curve between the smallest and the largest √KL seen. An interval that begins at 0 says"
        " that a loss is not established. A peak without brackets is the curve’s own, and the data do not support it."
    )
    return f'<p class="note">{note}</p>{html_table(_head(names, units), rows, "seeds")}'


def trial_table(table: SweepTable, analysis: SweepAnalysis, records: Sequence[TrialRecord]) -> str:
    """What did not finish, with its error, then every trial, folded."""
    ends = {(end.trial, end.seed): end for method in analysis.methods.values() for end in method.trials}
    counts = {(c.trial, c.seed): c.data.num_rows for c in table.curves if c.optimiser == "rl"}
    known = list(records) or recorded(table)
    odd = [record for record in known if record.status != "finished"]
    head = _head(("Trial", "Method", "Status", "Steps", "Error"))
    rows = [
        _row(
            f"{record.trial}, seed {record.seed}",
            "",
            [
                _plain(record.method),
                _plain(record.status),
                _plain(f"{counts.get((record.trial, record.seed), 0):,}"),
                _plain(record.error or "–"),
            ],
        )
        for record in odd
    ]
    unfinished = f"<h3>Not finished</h3>{html_table(head, rows, 'text')}" if odd else ""
    body = [
        _trial_row(record, counts.get((record.trial, record.seed), 0), ends.get((record.trial, record.seed)))
        for record in known
    ]
    everything = html_table(_head(TRIAL_COLUMNS), body, "seeds")
    return unfinished + folded(f"All {plural(len(known), 'trial')}", everything)


def recorded(table: SweepTable) -> list[TrialRecord]:
    """The trials of a table from elsewhere, without run folders."""
    return [
        TrialRecord(curve.trial, curve.method, curve.budget, curve.seed, {}, curve.status, None)  # type: ignore[arg-type]
        for curve in table.curves
        if curve.optimiser == "rl"
    ]


def significant(value: float | None) -> str:
    """Three significant digits and a true minus sign; a dash for None."""
    return "–" if value is None else f"{value:.3g}".replace("-", "−")


def _frontiers(analysis: SweepAnalysis) -> list[tuple[str, str, Frontier]]:
    return [
        (name, OPTIMISERS[optimiser], frontier)
        for name, method in analysis.methods.items()
        for optimiser, frontier in method.frontiers.items()
    ]


def _budget_row(
    name: str, budget: float | None, ends: Sequence[TrialEnd], curves: Sequence[TrialCurve]
) -> str:
    judged = [end.within for end in ends if end.within is not None]
    over_seeds = {
        key: Estimate.of(list(by_seed(ends, key).values())) for key in ("kl_nats", "gold", "proxy", "gap")
    }
    prices = [_last(curve, "kl_coef") for curve in curves]
    steps = sorted({curve.data.num_rows for curve in curves})
    cells = [
        _plain("–" if budget is None else f"{budget:g}"),
        _plain(str(len({end.seed for end in ends}))),
        _estimate(over_seeds["kl_nats"]),
        _plain(f"{sum(judged)} of {len(judged)}" if judged else "–"),
        *(_estimate(over_seeds[key]) for key in ("gold", "proxy", "gap")),
        _estimate(Estimate.of(prices), significant),
        _plain("–".join(f"{count:,}" for count in dict.fromkeys((*steps[:1], *steps[-1:])))),
    ]
    return _row(name, "", cells)


def _fit_row(name: str, fit: Fit) -> str:
    peak = fit.peak
    top = _cell(peak.kl_nats, squared(peak.d_interval)) if peak.supported else _plain("none")
    cells = [
        *(
            _cell(
                fit.coefficients[key],
                fit.intervals[key] if key != "r0" or fit.intercept else None,
                significant,
            )
            for key in ("r0", "alpha", "beta")
        ),
        top,
        *_errors(fit.rmse, fit.r_squared, fit.cv_rmse),
        _plain(f"{fit.num_points:,}"),
    ]
    return _row(name, _formula(fit), cells)


def _isotonic_row(name: str, row: Goodness) -> str:
    cells = [_plain("–")] * 3 + [_plain("none"), *_errors(row.rmse, row.r_squared, row.cv_rmse), _plain("–")]
    return _row(name, row.curve, cells)


def _formula(fit: Fit) -> str:
    return f"R0 + {FORMS[fit.form].formula}" + ("" if fit.intercept else ", R0 fixed")


def _errors(rmse: float, r_squared: float | None, left_out: float | None) -> list[str]:
    return [_plain(significant(rmse)), _plain(number(r_squared)), _plain(significant(left_out))]


def _trial_row(record: TrialRecord, steps: int, end: TrialEnd | None) -> str:
    def value(name: str) -> float | None:
        return getattr(end, name, None)

    budget = "–" if record.budget is None else f"{record.budget:g}"
    cells = [budget, record.status, f"{steps:,}", number(value("kl_nats")), number(value("ratio"))]
    cells += [
        ANSWERS[end.within if end else None],
        *(number(value(name)) for name in ("gold", "proxy", "gap")),
    ]
    return _row(f"{record.trial}, seed {record.seed}", "", [_plain(cell) for cell in cells])


def _last(curve: TrialCurve, name: str) -> float | None:
    values = curve.series(name)[curve.last_fifth]
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _head(names: Sequence[str], units: Sequence[str] = ()) -> str:
    return "".join(
        f'<th scope="col">{name}'
        + (f"<small>{units[place]}</small>" if units and units[place] else "")
        + "</th>"
        for place, name in enumerate(names)
    )


def _row(name: str, below: str, cells: Sequence[str]) -> str:
    small = f"<small>{escaped(below)}</small>" if below else ""
    return f'<tr><th scope="row">{escaped(name)}{small}</th>{"".join(cells)}</tr>'


def _plain(value: str) -> str:
    return f"<td>{escaped(value)}</td>"


def _estimate(estimate: Estimate, show: Callable[[float | None], str] = number) -> str:
    return _cell(estimate.mean, estimate.interval, show)


def _cell(value: float | None, bounds: Bounds = None, show: Callable[[float | None], str] = number) -> str:
    small = f"<small>[{show(bounds[0])}, {show(bounds[1])}]</small>" if bounds else ""
    return f"<td>{escaped(show(value))}{small}</td>"
