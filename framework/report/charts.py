"""Charts as Vega-Lite specs: each is drawn three ways, interactive in the page, still inside it, and as PNG beside it.
A panel is one spec without its width and the dots; a figure is a few panels over one caption, a section a few figures and
tables. All take one palette, in which colour is never the only carrier: dashes and shapes say the same.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's palette (2008), told apart with any common colour vision."""
DASHES = ([1, 0], [7, 3], [2, 2], [8, 3, 2, 3])
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross")
SHADE = "#8a909b"
GREY = {"color": {"value": SHADE}}
POINTS = "points"  # the data set of the dots of all runs: one for the whole page
KL_TITLE = "KL to the initial policy (nats per sequence, √ scale)"
WIDTHS = {1: 980, 2: 480, 3: 310}  # pixels of a still panel's axes, by panels in a row
MOST_STILL = 300  # dots of a picture that cannot be asked
VEGA_LITE = "6.4"
FONT = "system-ui, Segoe UI, Helvetica Neue, DejaVu Sans, sans-serif"
INK = "#33363c"
CONFIG: dict[str, Any] = {
    "aria": False,  # the figure has a text of its own; a label at each of a thousand dots would drown it
    "font": FONT,
    "background": "white",
    "view": {"stroke": None},
    "axis": {
        "gridColor": "#e6e8eb", "domainColor": SHADE, "tickColor": SHADE, "labelColor": INK, "titleColor": INK,
        "titleFontWeight": "normal", "labelFontSize": 11, "titleFontSize": 11.5, "labelOverlap": "greedy", "tickCount": 6,
    },
    "title": {"anchor": "start", "fontSize": 12.5, "color": "#1b1d21", "offset": 8},
    "legend": {"orient": "top", "titleFontWeight": "normal", "labelLimit": 400, "symbolOpacity": 1},
}  # fmt: skip
Spec = dict[str, Any]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Palette:
    """Colour, dashes and shape of each name, in their order: 28 lines and 35 dots differ."""

    names: tuple[str, ...]
    key: str = "curve"  # the column that holds the names

    def look(self, place: int) -> dict[str, Any]:
        """Of the name in this place, by channel."""
        looks = (("color", COLOURS), ("strokeDash", DASHES), ("shape", SHAPES))
        return {channel: choices[place % len(choices)] for channel, choices in looks}

    def by(self, *channels: str) -> Spec:
        """These channels of the names."""
        looks = [self.look(place) for place in range(len(self.names))]
        return {
            channel: {
                "field": self.key, "type": "nominal", "legend": None,
                "scale": {"domain": list(self.names), "range": [look[channel] for look in looks]},
            }
            for channel in channels
        }  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One chart: layers over two shared axes."""

    title: str
    layers: Sequence[Spec]
    data: Mapping[str, Rows] = field(default_factory=dict)  # the data sets that the layers name, `POINTS` left out
    height: int = 250

    def spec(self, **own: Any) -> Spec:
        """The panel with its data, but the dots."""
        sets = {name: [plain(row) for row in rows] for name, rows in self.data.items()}
        return {"title": self.title, "height": self.height, "layer": self.layers, "datasets": sets, **own}

    def live(self) -> Spec:
        """For the page's script: as wide as its box, the dots put in by the script."""
        return self.spec(width="container", autosize={"type": "fit-x", "contains": "padding"}, config=CONFIG)


@dataclass(frozen=True)
class Figure:
    """Panels with one heading and a caption."""

    name: str
    title: str
    caption: str
    panels: Sequence[Panel]
    palette: Palette | None = None  # what the legend shows; none with fewer than two names
    widest: int = 3

    @property
    def columns(self) -> int:
        """Panels side by side, where there is room."""
        return 2 if len(self.panels) == 4 else min(self.widest, len(self.panels))

    @property
    def legend(self) -> list[tuple[str, str, str]]:
        """Name, colour and dashes of each line."""
        if self.palette is None or len(self.palette.names) < 2:
            return []
        looks = [(name, self.palette.look(place)) for place, name in enumerate(self.palette.names)]
        return [(name, look["color"], " ".join(map(str, look["strokeDash"]))) for name, look in looks]

    def still(self, dots: Rows) -> str:
        """All panels and their legend as one SVG that needs no script, with nothing to hover over."""
        import vl_convert

        sets = {POINTS: dots[:: -(-len(dots) // MOST_STILL) or 1]}
        panels = []
        for place, panel in enumerate(self.panels):
            own = panel.spec(width=WIDTHS[self.columns])
            sets |= {f"{name}-{place}": rows for name, rows in own.pop("datasets").items()}
            panels.append(own | {"layer": [self._still(layer, place) for layer in panel.layers]})
        spec = {
            "concat": panels, "columns": self.columns, "datasets": sets, "config": CONFIG,
            "resolve": {"scale": dict.fromkeys(("color", "strokeDash", "shape"), "shared")},
        }  # fmt: skip
        svg = str(vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE))
        # Ids are numbered over the life of the process: the same run is to give the same page.
        ids = dict.fromkeys(re.findall(r'id="(\w+)"', svg))
        names = {name: f"c{place}" for place, name in enumerate(ids)}
        return re.sub(r'(id="|url\(#)(\w+)', lambda found: found[1] + names.get(found[2], found[2]), svg)

    def _still(self, layer: Spec, place: int) -> Spec:
        """The layer of a panel without what a pointer does, with a legend where the page has one of its own."""
        encoding = {name: dict(own) for name, own in layer["encoding"].items() if name != "tooltip"}
        for own in encoding.values():
            own.pop("condition", None)
            if self.legend and "legend" in own:
                own["legend"] = {"title": None, "columns": 4}
        name = layer["data"]["name"]
        data = {"name": name if name == POINTS else f"{name}-{place}"}
        return {key: layer[key] for key in layer if key != "params"} | {"encoding": encoding, "data": data}


class Section(NamedTuple):
    """What the template of this name shows."""

    name: str
    title: str
    figures: Sequence[Figure] = ()
    values: Mapping[str, Any] = {}  # what the template makes its tables of


def png(svg: str) -> bytes:
    """A still figure as a picture."""
    import vl_convert

    return bytes(vl_convert.svg_to_png(svg, scale=1.3))


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with four significant digits, to save bytes, and None for what is no number."""
    return {
        name: (float(f"{value:.4g}") if math.isfinite(value) else None) if isinstance(value, float) else value
        for name, value in row.items()
    }


def axis(name: str, title: str | None = None, domain: Sequence[float] | None = None, **scale: Any) -> Spec:
    """A quantitative encoding of a column; its axis begins at 0 only where that is asked for."""
    if scale.get("type") != "log":
        scale = {"zero": False, **scale}
    limits = {"domain": list(domain)} if domain else {}
    return {"field": name, "type": "quantitative", "title": title, "scale": limits | scale}


def layer(kind: str, data: str, encoding: Iterable[Spec], **properties: Any) -> Spec:
    """Marks over a data set, the encoding given in parts."""
    own = {channel: each for part in encoding for channel, each in part.items()}
    mark = {"type": kind, "aria": False, **properties}
    return {"data": {"name": data}, "mark": mark, "encoding": own}


def line(data: str, x: Spec, y: Spec, *looks: Spec, width: float = 2.2) -> Spec:
    """Lines through the rows of a data set, one for each value of `group`."""
    own = {"x": x, "y": y, "detail": {"field": "group"}}
    return layer("line", data, [own, *looks], strokeWidth=width, clip=True)


def banded(data: str, x: Spec, y: Spec, *looks: Spec, width: float = 2.2) -> list[Spec]:
    """Lines over the shades between `low` and `high`."""
    own = {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}, "detail": {"field": "group"}}
    colours = [{name: look for name, look in each.items() if name == "color"} for each in looks]
    shade = layer("area", data, [*colours, own], opacity=0.16, clip=True)
    return [shade, line(data, x, y, *looks, width=width)]


def bars(data: str, x: Spec, y: Spec, *looks: Spec, channel: str = "y") -> Spec:
    """Intervals from `low` to `high`."""
    own = {"x": x, "y": y}
    own |= {channel: own[channel] | {"field": "low"}, f"{channel}2": {"field": "high"}}
    return layer("rule", data, [own, *looks], strokeWidth=1.8, clip=True)


def spots(data: str, x: Spec, y: Spec, *looks: Spec, tips: Mapping[str, str] | None = None, **own: Any) -> Spec:
    """Marks of their own, with a tooltip of these columns and their titles where one is given."""
    told: Spec = {"tooltip": [{"field": name, "title": title} for name, title in tips.items()]} if tips else {}
    return layer("point", data, [{"x": x, "y": y}, *looks, told], **{"filled": True, "opacity": 1, **own})


def dots(x: Spec, y: Spec, palette: Palette, where: Mapping[str, Sequence[str]]) -> Spec:
    """The dots of the runs: the nearest one says what it is, its run stands out, and a click opens its samples.

    What it says is put together by the page's script: Vega-Lite gives the nearest dot's tooltip another row's values.
    `where` has the values of columns that are drawn.
    """
    here, own_run = ({"param": name, "empty": False} for name in ("here", "own_run"))
    looks = {
        "opacity": {"condition": own_run | {"value": 0.9}, "value": 0.38},
        "size": {"condition": [here | {"value": 130}, own_run | {"value": 34}], "value": 18},
        "tooltip": {"value": "dot"},
    }
    own = spots(POINTS, x, y, palette.by("color", "shape"), looks, cursor="pointer")
    nearest = {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"}
    return own | {
        "params": [
            {"name": "here", "select": nearest},
            {"name": "own_run", "select": nearest | {"fields": ["run", "seed"]}},
        ],
        "transform": [
            *({"filter": {"field": name, "oneOf": list(values)}} for name, values in where.items()),
            *({"filter": f"isValid(datum.{each['field']})"} for each in (x, y)),
        ],
    }
