"""Best-of-n from a pool: proxy and gold of the response that the proxy likes best, for every n."""

from collections.abc import Sequence

import numpy as np

from framework.analysis.columns import BEST_OF_N
from framework.analysis.experiment import Experiment
from framework.analysis.over_seeds import Estimate
from framework.analysis.table import Curve
from framework.report.charts import Figure, Palette, Panel, Rows, axis, banded, dots
from framework.report.drawn import bounds, kl_axis, limits, method_title, runs_of
from framework.report.sections import Section

PANELS = {
    "gold": "Gold (gold scorer's units)",
    "proxy": "Proxy (reference s.d.)",
    "gap": "Gap: proxy − gold (pool s.d.)",
}
FIGURES = ("kl_nats", "proxy", "gold", "gap", "win_rate")
CAPTION = (
    "Dots are values of n. With one pool the band is one standard error over prompts, with pools of several seeds the"
    " pointwise 95% t interval of their mean. Lines of one pool move together and differ by less than their bands suggest."
)


def best_of_n(experiment: Experiment) -> Section | None:
    """The curves of all pools, and every number; None without a pool."""
    pools = [curve for curve in experiment.table.curves if curve.method == BEST_OF_N]
    if not pools:
        return None
    names = tuple(dict.fromkeys(curve.curve for curve in pools))
    rows = [row for name in names for row in _rows([curve for curve in pools if curve.curve == name])]
    palette = Palette(names)
    panels = [_panel(pools, rows, key, palette) for key in PANELS if limits(pools, key)]
    figure = Figure("best_of_n", "Gold, proxy and their gap by best-of-n", CAPTION, panels, palette)
    shown = [key for key in FIGURES if any(row[key][0].mean is not None for row in rows)]
    values = {"rows": rows, "shown": shown, "is_folded": bool(runs_of(experiment))}
    return Section("best_of_n", "Best of n", (figure,), values)


def _rows(pools: Sequence[Curve]) -> Rows:
    """Of each n the figures over pools, each with its standard error over prompts where there is one pool alone."""

    def known(key: str, n: float) -> list[float]:
        found = np.concatenate([curve.series(key)[curve.position == n] for curve in pools])
        return found[np.isfinite(found)].tolist()

    rows: Rows = []
    for n in pools[0].position.tolist():
        errors = {key: known(f"{key}_se", n) if len(pools) == 1 else [] for key in FIGURES}
        figures = {key: (Estimate.of(known(key, n)), next(iter(errors[key]), None)) for key in FIGURES}
        rows.append({"curve": pools[0].curve, "n": n, **figures})
    return rows


def _panel(pools: Sequence[Curve], rows: Rows, key: str, palette: Palette) -> Panel:
    lines = []
    for row in rows:
        own, error = row[key]
        place = {"x": row["kl_nats"][0].mean, "y": own.mean, **bounds(own)}
        if error is not None and own.mean is not None:
            place |= {"low": own.mean - error, "high": own.mean + error}
        lines.append({"curve": row["curve"], "group": row["curve"], **place})
    x, y = kl_axis(pools), axis("y", domain=limits(pools, key))
    found = dots(x | {"field": "kl_nats"}, y | {"field": key}, palette, {"method": [method_title(BEST_OF_N)]})
    layers = [found, *banded("means", x, y, palette.by("color", "strokeDash"))]
    return Panel(PANELS[key], layers, {"means": lines})
