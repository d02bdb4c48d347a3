"""The page on best-of-n: proxy and gold against the square root of KL, one line per aggregation, and every number."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from framework.report.figures import Figure, _canvas, _look, _rendered
from framework.report.page import escaped, fill_page, html_figure, html_table, write_page
from framework.report.reading import number

Curve = Mapping[str, Any]
"""`aggregation`, `convention` and `points`, one a value of n."""

PANELS = (
    ("proxy", "Proxy (reference s.d.)"),
    ("gold", "Gold (gold scorer's units)"),
    ("gap", "Gap: proxy − gold (pool s.d.)"),
)


def write_best_of_n_report(folder: Path, record: Mapping[str, Any]) -> Path:
    """The path of `best_of_n.html`, written into `folder` with its plot as PNG beside it.

    Args:
        record: what `best_of_n.json` holds.

    Raises:
        UserError: the folder cannot be written.
    """
    target = Path(folder) / "best_of_n.html"
    figure = draw_curves(record["curves"])
    return write_page(target, _page(record, figure), [figure])


def draw_curves(curves: Mapping[str, Curve]) -> Figure:
    """Proxy, gold and gap against sqrt(KL), one line per aggregation, a band of one standard error."""
    with _canvas(len(PANELS)) as (canvas, panels):
        for axes, (key, title) in zip(panels, PANELS, strict=True):
            _panel(axes, curves, key, title)
        if len(curves) > 1:
            looks = [_look(position) for position in range(len(curves))]
            handles = [Line2D([], [], color=colour, ls=dashes, lw=2.1) for colour, dashes in looks]
            canvas.legend(handles, list(curves), loc="outside upper left", ncols=6, handlelength=3)
        counts = ", ".join(str(point["n"]) for point in next(iter(curves.values()))["points"])
        caption = (
            f"Dots are n = {counts}. The band is one standard error over prompts, each line's own; all lines are of "
            "one pool, so they move together and differ by less than their bands suggest. The ring marks the "
            "highest gold."
        )
        alt = "Line plots of proxy, gold and their gap against the square root of KL. " + "; ".join(
            _in_words(name, curve) for name, curve in curves.items()
        )
        return _rendered(canvas, "best_of_n", "Proxy, gold and their gap against √KL", alt + ".", caption)


def _panel(axes: Axes, curves: Mapping[str, Curve], key: str, title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("√KL to the start policy (√nats per sequence)")
    for position, curve in enumerate(curves.values()):
        colour, dashes = _look(position)
        points = curve["points"]
        axis = np.sqrt([point["kl_nats"] for point in points])
        values, errors = (_column(points, name) for name in (key, f"{key}_se"))
        axes.fill_between(axis, values - errors, values + errors, color=colour, alpha=0.16, lw=0)
        axes.plot(axis, values, "o", color=colour, ms=4.5, mew=0)
        axes.plot(axis, values, color=colour, ls=dashes, lw=2.1)
        if key == "gold":
            top = int(values.argmax())
            axes.plot(axis[top], values[top], "o", ms=7.5, mfc="white", mec=colour, mew=1.8)
    axes.set_xlim(left=0)


def _column(points: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([np.nan if point.get(name) is None else point[name] for point in points])


def _page(record: Mapping[str, Any], figure: Figure) -> str:
    pool = record["pool"]
    return fill_page(
        "best_of_n.html",
        "Best of n from one pool",
        kicker=f"Goldilocks report · {pool['prompts']:.0f} prompts × {pool['samples']:.0f} samples · "
        f"seed {record['seed']}",
        reading="\n".join(f"<p>{escaped(line)}</p>" for line in read_curves(record)),
        figures=html_figure(figure),
        numbers="".join(_numbers(name, curve) for name, curve in record["curves"].items()),
        provenance=_provenance(record),
    )


def read_curves(record: Mapping[str, Any]) -> list[str]:
    """What the curves say, one sentence each: where gold peaks, and whether the end is clearly lower."""
    lines = [f"{name}: {_verdict(curve['points'])}" for name, curve in record["curves"].items()]
    repeated = 1 - record["pool"]["distinct_share"]
    if repeated > 0.05:
        lines.append(
            f"{repeated:.0%} of the pool repeats another response to the same prompt, so the true KL is lower than drawn."
        )
    return lines


def _verdict(points: list[dict[str, Any]]) -> str:
    first, last = points[0], points[-1]
    top = max(points, key=lambda point: point["gold"])
    text = f"gold goes from {number(first['gold'])} at n = {first['n']} to {number(last['gold'])} at n = {last['n']}"
    if top is last:
        return f"{text}, where it is highest: it does not turn over up to {number(last['kl_nats'])} nats."
    text += f"; it is highest at n = {top['n']} ({number(top['gold'])}, {number(top['kl_nats'])} nats)"
    drop, error = last["below_peak"], last["below_peak_se"]
    if error is None:
        return f"{text} and ends {number(drop)} lower."
    clear = "" if drop > 2 * error else ", which is within noise"
    return f"{text} and ends {number(drop)} ± {number(error)} lower{clear}."


def _in_words(name: str, curve: Curve) -> str:
    first, last = curve["points"][0], curve["points"][-1]
    return (
        f"{name}: from n = {first['n']} to n = {last['n']} proxy {number(first['proxy'])} to {number(last['proxy'])}, "
        f"gold {number(first['gold'])} to {number(last['gold'])}"
    )


def _numbers(name: str, curve: Curve) -> str:
    points = curve["points"]
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "n": lambda point: str(point["n"]),
        "KL (nats)": lambda point: number(point["kl_nats"]),
        "Proxy": lambda point: _with_error(point, "proxy"),
        "Gold": lambda point: _with_error(point, "gold"),
        "Gap": lambda point: "–" if point["gap"] is None else number(point["gap"]),
    }
    if "win_rate" in points[0]:
        columns["Wins over one head"] = lambda point: _with_error(point, "win_rate")
    head = "".join(f'<th scope="col">{title}</th>' for title in columns)
    rows = [
        f"<tr>{''.join(f'<td>{escaped(show(p))}</td>' for show in columns.values())}</tr>" for p in points
    ]
    return f"<figure><h3>{escaped(name)}: {escaped(curve['convention'])}</h3>{html_table(head, rows, 'seeds')}</figure>"


def _with_error(point: dict[str, Any], key: str) -> str:
    error = point[f"{key}_se"]
    return number(point[key]) + ("" if error is None else f" ± {number(error)}")


def _provenance(record: Mapping[str, Any]) -> str:
    rows = [
        f'<tr><th scope="row">{name}</th><td>{escaped(record[name]["path"])}</td>'
        f'<td class="hash">{escaped(record[name]["sha256"][:16])}</td></tr>'
        for name in ("pool", "reward")
    ]
    head = "".join(f'<th scope="col">{title}</th>' for title in ("Stage", "Folder", "SHA-256"))
    note = f"Configuration {escaped(record['fingerprint'])}; {record['cut']:.0f} texts were cut by the reward model."
    return f'{html_table(head, rows, "text")}<p class="note">{note}</p>'
