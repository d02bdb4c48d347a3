"""Gold against KL, curve by curve: the fits with their bands and peaks, best-of-n beside, and what is lost past them."""

import numpy as np

from framework.analysis.experiment import CurveAnalysis, Experiment
from framework.analysis.forms import FORMS
from framework.analysis.over_seeds import Band
from framework.report.charts import Figure, Palette, Panel, Rows, axis, banded, bars, dots, spots
from framework.report.drawn import band_rows, kl_axis, limits, method_title
from framework.report.sections import Section

MOST_PANELS = 12
CAPTION = (
    "Dots are steps of all runs and seeds, and values of n. The line is the fit, R0 + d (α − β log d) for runs and"
    " R0 + d (α − β d) for best-of-n, with d = √KL; the band its pointwise 95% interval over seeds. A diamond is a peak"
    " that the data support, the bar through it where the peak may be (95%). KL of runs is the k1 estimate, that of"
    " best-of-n log n − (n − 1)/n: at equal KL the two need not be equally far from the initial policy in other respects."
)


def frontier(experiment: Experiment) -> Section | None:
    """A panel a curve, and the tables of fits and losses; None where nothing could be fitted."""
    fitted = [own for own in experiment.curves.values() if any(each.main for each in own.frontiers.values())]
    if not fitted:
        return None
    methods = tuple(dict.fromkeys(method_title(method) for own in fitted for method in own.frontiers))
    palette = Palette(methods, "method")
    panels = [_panel(experiment, own, palette) for own in fitted[:MOST_PANELS]]
    more = f" The first {MOST_PANELS} of {len(fitted)} curves." if len(fitted) > MOST_PANELS else ""
    figure = Figure("frontier", "Gold against KL, fitted", CAPTION + more, panels, palette)
    return Section("frontier", "Gold and its peak", (figure,), {"fitted": fitted, "forms": FORMS})


def _panel(experiment: Experiment, own: CurveAnalysis, palette: Palette) -> Panel:
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
