"""A run, a study or a sweep, analysed: everything that its report shows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from framework.analysis.alarms import CONTROL, AlarmLead, alarm_leads
from framework.analysis.columns import BEST_OF_N
from framework.analysis.comparison import Comparison, compare
from framework.analysis.curve_analysis import CurveAnalysis, analyse_curve
from framework.analysis.frontier import Points
from framework.analysis.table import RunRecord, Table
from framework.measure import Outcome


@dataclass(frozen=True, eq=False)
class Experiment:
    """Runs over conditions, variants, points and seeds, with what is known of them."""

    name: str
    table: Table
    records: Sequence[RunRecord]
    """All its runs, those that never began too."""
    baseline: str | None
    """The variant that the others are compared with, if any."""
    curves: dict[str, CurveAnalysis]
    comparison: Comparison | None
    leads: list[AlarmLead]
    """Of signals that the runs logged; the last of each curve is the control."""

    @property
    def num_dropped(self) -> int:
        """Rows that no curve could be fitted to, for want of gold or KL."""
        return sum(f.num_dropped for curve in self.curves.values() for f in curve.frontiers.values())

    def to_json(self) -> dict[str, Any]:
        """What `summary.json` of an experiment holds: every figure as plain values; what does not exist is null."""
        return {
            "rows": self.table.data.num_rows,
            "dropped": self.num_dropped,
            "baseline": self.baseline,
            "curves": {name: _plain(curve) for name, curve in self.curves.items()},
            "comparison": self.comparison and self.comparison.to_json(),
            "warning_leads": _plain(self.leads),
        }


def analyse(
    name: str, table: Table, records: Sequence[RunRecord], baseline: str | None = None, epsilon: float | None = None
) -> Experiment:
    """The analysis of the runs in a table.

    `records` has their folders where rollouts and pools are to be read; `table.records` where the table is all there is.
    """
    runs = {name: [c for c in table.curves_of(name) if c.method != BEST_OF_N] for name in table.curve_names}
    leads = alarm_leads(runs)
    told = [each for each in leads if each.signal != CONTROL.name and each.num_turned + each.num_unturned]
    leads = [lead for lead in leads if lead.curve in {each.curve for each in told}]
    curves = {curve: analyse_curve(table, curve, records, epsilon) for curve in table.curve_names}
    comparison = None if baseline is None else compare(table, records, baseline)
    return Experiment(name, table, records, baseline, curves, comparison, leads)


def _plain(value: Any) -> Any:
    """Dataclasses as objects, tuples as lists, and no number that JSON has not."""
    if isinstance(value, Outcome):
        return value.to_json()
    if is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in fields(value)}
        # Points and bootstrap samples hold no figures of their own, but what figures are made from.
        return {name: _plain(x) for name, x in held.items() if not isinstance(x, Points) and name != "draws"}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
