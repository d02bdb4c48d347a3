"""The tables of a sweep: budgets, fits, losses past the peak, and warnings."""

from collections.abc import Sequence

from framework.analysis.alarms import CONTROL, SIGNALS, AlarmLead
from framework.analysis.forms import FORMS
from framework.analysis.frontier import Fit
from framework.analysis.goodness import Goodness
from framework.analysis.reached import BudgetEnd
from framework.analysis.sweep_analysis import Frontier, SweepAnalysis
from framework.report.cells import cell, estimate, head, plain, row, significant
from framework.report.page import escaped, folded, html_table, plural
from framework.report.reading import number

OPTIMISERS = {"rl": "RL", "best_of_n": "best-of-n"}


def budget_table(analysis: SweepAnalysis) -> str:
    """KL, gold, proxy, gap, coefficient and steps at the end, a row for each method and budget."""
    names = (
        "Method", "Budget", "Seeds", "KL reached", "Within 10%", "Gold", "Proxy", "Gap", "Coefficient", "Steps"
    )  # fmt: skip
    units = (
        "", "nats", "", "nats", "trials", "gold units", "reference s.d.", "step-0 s.d.", "reward per nat", ""
    )  # fmt: skip
    rows = [_budget_row(name, end) for name, method in analysis.methods.items() for end in method.budgets]
    if not rows:
        return "<p>No trial has come to its end, so there is nothing to compare yet.</p>"
    note = (
        "Each trial by its mean over the last fifth of its steps, then the mean over seeds with its 95% t interval in"
        " brackets; one seed has none. Failed and unfinished trials are left out here."
    )
    return f'<p class="note">{note}</p>{html_table(head(names, units), rows, "seeds")}'


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
            _isotonic_row(f"{name}, {optimiser}", curve)
            for curve in frontier.goodness
            if curve.curve not in FORMS
        ]
    if not rows:
        return "<p>Gold could not be fitted: no method has enough rows with both gold and KL.</p>"
    note = (
        "d is √KL in √nats. Brackets are 95% intervals over seeds, by bootstrap with Student’s factor; that of a peak is"
        " Fieller’s. R0 without brackets is fixed at the gold of the initial policy. The last error is on the points of a"
        " seed that the curve was not fitted to. The isotonic curve is the best that never falls."
    )
    if unknown := [
        f"{name}, {optimiser}" for name, optimiser, each in _frontiers(analysis) if each.points.start is None
    ]:
        note += f" Without gold at the start there is no fit with R0 fixed: {', '.join(unknown)}."
    listed = "".join(f"<li>{escaped(reason)}</li>" for reason in reasons)
    why = folded(
        f"Why {plural(len(reasons), 'fit')} {'has' if len(reasons) == 1 else 'have'} no peak",
        f"<ul>{listed}</ul>",
    )
    return (
        f'<p class="note">{note}</p>{html_table(head(names, units), rows, "seeds")}{why if reasons else ""}'
    )


def loss_table(analysis: SweepAnalysis) -> str:
    """How much gold is lost past the peak, a row for each method and optimiser; empty without any fit."""
    names = (
        "Curve",
        "Peak − end",
        "Area lost",
        "KL at the peak",
        "Gold at the peak",
        "Slope past it",
        "Gap at the end",
    )
    units = ("", "gold units", "gold units × √nats", "nats", "gold units", "gold per √nat", "start s.d.")
    rows = []
    for name, optimiser, frontier in _frontiers(analysis):
        if (loss := frontier.losses) is not None:
            cells = [
                cell(loss.index, loss.index_interval),
                cell(loss.area_lost, loss.area_lost_interval),
                cell(loss.kl_nats_at_peak, loss.kl_nats_at_peak_interval),
                cell(loss.gold_at_peak),
                estimate(frontier.slope_past_peak) if frontier.slope_past_peak else plain("–"),
                estimate(loss.gap_at_end),
            ]
            rows.append(row(f"{name}, {optimiser}", cells))
    if not rows:
        return ""
    note = (
        "Read off the fitted curve between the smallest and the largest √KL seen. An interval that begins at 0 says"
        " that a loss is not established. A peak without brackets is the curve’s own, and the data do not support it."
        " The slope is that of a line through the points past it."
    )
    return f'<p class="note">{note}</p>{html_table(head(names, units), rows, "seeds")}'


def warning_table(leads: Sequence[AlarmLead]) -> str:
    """What each gold-free warning was worth, with the control that needs no signal."""
    shown = [lead for lead in leads if lead.num_turned + lead.num_unturned]
    if all(lead.signal == CONTROL.name for lead in shown):
        return "<p>No run has both gold and a signal that may warn, so nothing is known of their lead.</p>"
    meanings = {signal.name: signal.meaning for signal in (*SIGNALS, CONTROL)}
    names = (
        "Signal",
        "Gold turned",
        "Warned before",
        "Warned after",
        "Lead",
        "Lead",
        "Gold did not turn",
        "Warned",
    )
    units = ("", "runs", "runs", "runs", "median, steps", "median, nats", "runs", "runs")
    rows = [
        row(
            f"{lead.method}, {lead.signal}",
            [
                *(plain(str(count)) for count in (lead.num_turned, lead.num_ahead, lead.num_late)),
                cell(lead.lead_steps),
                cell(lead.lead_nats),
                *(plain(str(count)) for count in (lead.num_unturned, lead.num_false)),
            ],
            meanings[lead.signal] + (" (control)" if lead.signal == CONTROL.name else ""),
        )
        for lead in shown
    ]
    note = (
        "The step at which a signal’s alarm was first raised, against the step of gold’s peak, in the runs whose gold"
        " rose and then fell by more than its noise; a negative lead is late."
        " Every signal moves as KL grows, so one that does no better than the"
        " control, an alarm on KL itself, says nothing of its own."
    )
    return f'<p class="note">{note}</p>{html_table(head(names, units), rows, "seeds")}'


def _frontiers(analysis: SweepAnalysis) -> list[tuple[str, str, Frontier]]:
    return [
        (name, OPTIMISERS[optimiser], frontier)
        for name, method in analysis.methods.items()
        for optimiser, frontier in method.frontiers.items()
    ]


def _budget_row(name: str, end: BudgetEnd) -> str:
    cells = [
        plain("–" if end.budget is None else f"{end.budget:g}"),
        plain(str(end.num_seeds)),
        estimate(end.kl_nats),
        plain(f"{end.num_within} of {end.num_judged}" if end.num_judged else "–"),
        *(estimate(value) for value in (end.gold, end.proxy, end.gap)),
        estimate(end.coef, significant),
        plain("–".join(f"{count:,}" for count in dict.fromkeys(end.num_steps))),
    ]
    return row(name, cells)


def _fit_row(name: str, fit: Fit) -> str:
    peak = fit.peak
    top = cell(peak.kl_nats, peak.kl_interval) if peak.supported else plain("none")
    cells = [
        *(
            cell(
                fit.coefficients[key],
                fit.intervals[key] if key != "r0" or fit.intercept else None,
                significant,
            )
            for key in ("r0", "alpha", "beta")
        ),
        top,
        *_errors(fit.rmse, fit.r_squared, fit.cv_rmse),
        plain(f"{fit.num_points:,}"),
    ]
    return row(name, cells, _formula(fit))


def _isotonic_row(name: str, curve: Goodness) -> str:
    cells = [plain("–")] * 3 + [
        plain("none"),
        *_errors(curve.rmse, curve.r_squared, curve.cv_rmse),
        plain("–"),
    ]
    return row(name, cells, curve.curve)


def _formula(fit: Fit) -> str:
    return f"R0 + {FORMS[fit.form].formula}" + ("" if fit.intercept else ", R0 fixed")


def _errors(rmse: float, r_squared: float | None, left_out: float | None) -> list[str]:
    return [plain(significant(rmse)), plain(number(r_squared)), plain(significant(left_out))]
