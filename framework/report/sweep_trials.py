"""The table of a sweep's trials, and of what did not finish."""

from collections.abc import Sequence

from framework.analysis.reached import TrialEnd
from framework.analysis.sweep_analysis import SweepAnalysis
from framework.analysis.sweep_table import SweepTable, TrialRecord
from framework.report.cells import head, plain, row
from framework.report.page import folded, html_table, plural
from framework.report.reading import number

TRIAL_COLUMNS = (
    "Trial", "Budget", "Status", "Steps", "KL reached", "Reached / budget", "Within 10%", "Gold", "Proxy", "Gap"
)  # fmt: skip
ANSWERS = {True: "yes", False: "no", None: "–"}


def trial_table(table: SweepTable, analysis: SweepAnalysis, records: Sequence[TrialRecord]) -> str:
    """What did not finish, with its error, then every trial, folded."""
    ends = {
        (method.method, end.trial, end.seed): end
        for method in analysis.methods.values()
        for end in method.trials
    }
    counts = {(c.method, c.trial, c.seed): c.data.num_rows for c in table.curves if c.optimiser == "rl"}
    known = [(record, (record.method, record.trial, record.seed)) for record in records or recorded(table)]
    rows = [
        row(
            f"{record.trial}, seed {record.seed}",
            [
                plain(text)
                for text in (record.method, record.status, f"{counts.get(key, 0):,}", record.error or "–")
            ],
        )
        for record, key in known
        if record.status != "finished"
    ]
    columns = head(("Trial", "Method", "Status", "Steps", "Error"))
    unfinished = f"<h3>Not finished</h3>{html_table(columns, rows, 'text')}" if rows else ""
    body = [_trial_row(record, counts.get(key, 0), ends.get(key)) for record, key in known]
    everything = html_table(head(TRIAL_COLUMNS), body, "seeds")
    return unfinished + folded(f"All {plural(len(known), 'trial')}", everything)


def recorded(table: SweepTable) -> list[TrialRecord]:
    """The trials of a table from elsewhere, without run folders."""
    return [
        TrialRecord(curve.trial, curve.method, curve.budget, curve.seed, {}, curve.status, None)  # type: ignore[arg-type]
        for curve in table.curves
        if curve.optimiser == "rl"
    ]


def _trial_row(record: TrialRecord, steps: int, end: TrialEnd | None) -> str:
    def value(name: str) -> float | None:
        return getattr(end, name, None)

    budget = "–" if record.budget is None else f"{record.budget:g}"
    held = ANSWERS[end.within if end else None]
    reached = (number(value("kl_nats")), number(value("ratio")), held)
    cells = (
        budget,
        record.status,
        f"{steps:,}",
        *reached,
        *(number(value(name)) for name in ("gold", "proxy", "gap")),
    )
    return row(f"{record.trial}, seed {record.seed}", [plain(cell) for cell in cells])
