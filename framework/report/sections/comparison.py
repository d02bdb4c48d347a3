"""Every variant against the baseline: gold at the end and at the peak, wins, and what the proxy did meanwhile."""

from framework.analysis.comparison import Comparison
from framework.analysis.experiment import Experiment
from framework.report.charts import Figure, Palette, Panel, Rows, Section, axis, bars, layer, spots
from framework.report.drawn import bounds, method_title


def comparison(experiment: Experiment) -> Section | None:
    """The tables, and gold at the end as dots; None without a baseline, or with nothing beside it."""
    own = experiment.comparison
    if own is None or len(own.variants) < 2:
        return None
    palette = Palette(tuple(method_title(method) for method in own.figures), "method")
    panels = [_condition(own, condition, palette) for condition in own.conditions]
    caption = (
        f"Dots are means over seeds, bars 95% t intervals of the mean; the line is the mean of {own.baseline}. Runs at their"
        " end, best-of-n at the largest n. Seeds are shared, so a paired difference can be clear where two bars overlap."
    )
    every = [each for cells in own.figures.values() for figures in cells.values() for each in figures.values()]
    order = {
        by: sorted(cells, key=lambda cell: own.conditions.index(cell.condition)) for by, cells in own.figures.items()
    }
    values = {"own": own, "order": order, "seeds": max((each.num_seeds for each in every), default=0)}
    figure = Figure("comparison", "Gold at the end", caption, panels, palette)
    return Section("comparison", f"Against {own.baseline}", (figure,), values)


def _condition(own: Comparison, condition: str, palette: Palette) -> Panel:
    """A dot and its interval for each variant of a condition, the baseline's mean as a line."""
    rows: Rows = [
        {"x": gold.mean, **bounds(gold), "seeds": gold.num_seeds, "name": cell.name}
        | {"method": method_title(method), "is_baseline": cell.variant == own.baseline}
        for method, figures in own.figures.items()
        for cell, each in figures.items()
        if cell.condition == condition and (gold := each["gold_end"]).mean is not None
    ]
    y = {"field": "name", "type": "nominal", "axis": {"labelLimit": 140, "grid": True}, "title": None, "sort": None}
    x, beside = axis("x", "gold (gold scorer's units)"), {"yOffset": {"field": "method", "sort": None}}
    tips = {"name": "variant", "method": "method", "x": "mean gold", "low": "95% from", "high": "to"}
    level = layer("rule", "ends", [{"x": x}, palette.by("color")], opacity=0.6)
    layers = [
        level | {"transform": [{"filter": "datum.is_baseline"}]},
        bars("ends", x, y, palette.by("color"), beside, channel="x"),
        spots("ends", x, y, palette.by("color", "shape"), beside, tips=tips | {"seeds": "seeds"}, size=60),
    ]
    height = 40 + (16 + 10 * len(palette.names)) * len({row["name"] for row in rows})
    return Panel(condition, layers, {"ends": rows}, height)
