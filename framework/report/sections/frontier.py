"""Gold against KL, curve by curve: the fits with their bands and peaks and what is lost past them; and best-of-n."""

from collections.abc import Sequence

import numpy as np

from framework.analysis.columns import BEST_OF_N
from framework.analysis.experiment import CurveAnalysis, Experiment
from framework.analysis.frontier import FORMS
from framework.analysis.over_seeds import Band, Estimate
from framework.analysis.table import Curve
from framework.report.charts import Figure, Palette, Panel, Rows, Section, axis, banded, bars, dots, spots
from framework.report.drawn import band_rows, bounds, kl_axis, limits, method_title

MOST_PANELS = 12
FITTED = (
    "Dots are steps of all runs and seeds, and values of n. The line is the fit, R0 + d (α − β log d) for runs and"
    " R0 + d (α − β d) for best-of-n, with d = √KL; the band its pointwise 95% interval over seeds. A diamond is a peak"
    " that the data support, the bar through it where the peak may be (95%). KL of runs is the k1 estimate, that of"
    " best-of-n log n − (n − 1)/n: at equal KL the two need not be equally far from the initial policy in other respects."
)
PANELS = {
    "gold": "Gold (gold scorer's units)",
    "proxy": "Proxy (reference s.d.)",
    "gap": "Gap: proxy − gold (pool s.d.)",
}
FIGURES = ("kl_nats", "proxy", "gold", "gap", "win_rate")
CHOSEN = (
    "Dots are values of n. With one pool the band is one standard error over prompts, with pools of several seeds the"
    " pointwise 95% t interval of their mean. Lines of one pool move together and differ by less than their bands suggest."
)


def frontier(experiment: Experiment) -> Section | None:
    """A panel a curve, and the tables of fits and losses; None where nothing could be fitted."""
    fitted = [own for own in experiment.curves.values() if any(each.main for each in own.frontiers.values())]
    if not fitted:
        return None
    methods = tuple(dict.fromkeys(method_title(method) for own in fitted for method in own.frontiers))
    palette = Palette(methods, "method")
    panels = [_fit_panel(experiment, own, palette) for own in fitted[:MOST_PANELS]]
    more = f" The first {MOST_PANELS} of {len(fitted)} curves." if len(fitted) > MOST_PANELS else ""
    figure = Figure("frontier", "Gold against KL, fitted", FITTED + more, panels, palette)
    return Section("frontier", "Gold and its peak", (figure,), {"fitted": fitted, "forms": FORMS})


def _fit_panel(experiment: Experiment, own: CurveAnalysis, palette: Palette) -> Panel:
    x = kl_axis(experiment.table.curves)
    y = axis("y", domain=limits(experiment.table.curves_of(own.curve), "gold"))
    lines: Rows = []
    peaks: Rows = []
    for method, each in own.frontiers.items():
        if (fit := each.main) is not None:
            look = {"method": method_title(method), "group": method}
            d = np.linspace(*fit.d_range, 80)
            low, high = fit.band(d) or (np.full(len(d), np.nan),) * 2
            lines += band_rows(Band(d**2, fit.curve(d), low, high, fit.num_seeds), **look)
            if fit.peak.supported and fit.peak.kl_interval:
                spread = dict(zip(("low", "high"), fit.peak.kl_interval, strict=True))
                peaks.append(look | {"x": fit.peak.kl_nats, "y": fit.peak.gold, **spread})
    colour, hollow = palette.by("color"), {"filled": False, "fill": "white", "strokeWidth": 2}
    tips = {"x": "peak at (nats)", "low": "95% interval from", "high": "to", "y": "fitted gold"}
    layers = [
        dots(x | {"field": "kl_nats"}, y | {"field": "gold"}, palette, {"curve": [own.curve]}),
        *banded("fits", x, y, palette.by("color", "strokeDash")),
    ]
    if peaks:
        layers.append(bars("peaks", x, y, colour, channel="x"))
        layers.append(spots("peaks", x, y, colour, tips=tips, shape="diamond", size=110, **hollow))
    return Panel(own.curve, layers, {"fits": lines, "peaks": peaks}, 290)


def best_of_n(experiment: Experiment) -> Section | None:
    """The curves of all pools, and every number; None without a pool."""
    pools = [curve for curve in experiment.table.curves if curve.method == BEST_OF_N]
    if not pools:
        return None
    names = tuple(dict.fromkeys(curve.curve for curve in pools))
    rows = [row for name in names for row in _rows([curve for curve in pools if curve.curve == name])]
    palette = Palette(names)
    panels = [_pool_panel(pools, rows, key, palette) for key in PANELS if limits(pools, key)]
    figure = Figure("best_of_n", "Gold, proxy and their gap by best-of-n", CHOSEN, panels, palette)
    shown = [key for key in FIGURES if any(row[key][0].mean is not None for row in rows)]
    values = {"rows": rows, "shown": shown, "is_folded": bool(experiment.table.records)}
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


def _pool_panel(pools: Sequence[Curve], rows: Rows, key: str, palette: Palette) -> Panel:
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
