"""The report of an experiment, of one run or of many: a page that needs nothing else, and its charts as PNG beside it. The
charts' script comes from an installed package and is written into the page. Nothing is loaded from elsewhere, and no script
runs but the two whose hashes the page's own policy names."""

import base64
import hashlib
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from framework.analysis.experiment import Experiment
from framework.errors import UserError
from framework.report.charts import VEGA_LITE, png
from framework.report.drawn import dot_rows, method_title
from framework.report.sections.budgets import budgets
from framework.report.sections.comparison import comparison
from framework.report.sections.curves import curves
from framework.report.sections.frontier import best_of_n, frontier
from framework.report.sections.tables import overview, provenance, samples, warnings
from framework.report.text import count, number, percent, plural, significant

SECTIONS = (overview, comparison, frontier, budgets, best_of_n, curves, warnings, samples, provenance)
TEMPLATES = Path(__file__).parent / "templates"
BESIDE = {
    "results.parquet": "every row: a step of a run, or an n of best-of-n",
    "summary.json": "every figure of this page",
    "runs.json": "what became of each run",
    "experiment.yaml": "the configuration",
}
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def write_report(experiment: Experiment, folder: Path, live: bool = False) -> Path:
    """The path of `report.html`, written into the folder whole or not at all, with its charts as PNG beside it. While the
    experiment is `live`, the page says so and loads itself again, and the PNGs are left for the end. A `UserError` where
    the folder cannot be written, or a run's folder cannot be read."""
    dots = dot_rows(experiment)
    sections = {made.name: made for make in SECTIONS if (made := make(experiment))}
    figures = [figure for section in sections.values() for figure in section.figures]
    stills = {figure.name: figure.still(dots) for figure in figures}
    specs = {f"{f.name}-{place}": panel.live() for f in figures for place, panel in enumerate(f.panels)}
    script, style = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    page = _environment().get_template("page.html").render(
        name=experiment.name, kicker=_kicker(experiment), sections=sections, is_live=live,
        files={name: what for name, what in BESIDE.items() if (Path(folder) / name).is_file()},
        stills=stills, specs=specs, dots=dots, scripts=(_library(), script) if figures else (), style=style,
    )  # fmt: skip
    target = Path(folder) / "report.html"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for name, svg in stills.items() if not live else ():
            target.with_name(f"{name}.png").write_bytes(png(svg))
        draft = target.with_name("report.html.part")
        draft.write_text(page, encoding="utf-8")
        os.replace(draft, target)
    except OSError as error:
        raise UserError(f"cannot write the report to {folder}: {error.strerror or error}") from error
    return target


def _kicker(experiment: Experiment) -> str:
    runs = {(own.run, own.seed) for own in experiment.records or experiment.table.records}
    seeds = sorted({seed for _, seed in runs} or {curve.seed for curve in experiment.table.curves})
    many = ((len(experiment.curves), "curve"), (len(runs), "run"), (len(seeds), "seed"))
    names = [plural(number, noun) for number, noun in many if number > 1]
    return " · ".join(("Goldilocks report", *names, *([] if len(seeds) > 1 else [f"seed {seeds[0]}"])))


@cache
def _library() -> str:
    """Vega, Vega-Lite and their embedding, as one script that needs nothing else."""
    import vl_convert

    bundle = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE))
    assert "</script" not in bundle.lower() and "\r" not in bundle
    return bundle


def _environment() -> Environment:
    own = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, finalize=_printable, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    own.globals |= {"number": number, "count": count, "percent": percent, "significant": significant}
    own.globals |= {"plural": plural, "method_title": method_title}
    own.filters["base64"] = lambda text: base64.b64encode(text.encode()).decode()
    own.filters["hash"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return own


def _printable(value: Any) -> Any:
    """Unprintable characters become visible: a terminal's escapes, halves of surrogate pairs."""
    return UNPRINTABLE.sub("\ufffd", value) if type(value) is str else value
