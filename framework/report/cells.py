"""Rows and cells of tables, as HTML."""

from collections.abc import Callable, Sequence

from framework.analysis.comparison import Estimate
from framework.report.page import escaped
from framework.report.reading import number


def head(names: Sequence[str], units: Sequence[str] = ()) -> str:
    """Header cells, each with its unit below it where it has one."""
    below = list(units) or [""] * len(names)
    return "".join(
        f'<th scope="col">{escaped(name)}{_small(unit)}</th>' for name, unit in zip(names, below, strict=True)
    )


def row(name: str, cells: Sequence[str], below: str = "") -> str:
    """A row: its name, with a word below it, and its cells."""
    return f'<tr><th scope="row">{escaped(name)}{_small(below)}</th>{"".join(cells)}</tr>'


def plain(value: str) -> str:
    """A cell of text."""
    return f"<td>{escaped(value)}</td>"


def cell(
    value: float | None,
    bounds: tuple[float, float] | None = None,
    show: Callable[[float | None], str] = number,
) -> str:
    """A cell with a number, and its interval in brackets below it."""
    return f"<td>{escaped(show(value))}{_small(f'[{show(bounds[0])}, {show(bounds[1])}]' if bounds else '')}</td>"


def estimate(value: Estimate, show: Callable[[float | None], str] = number) -> str:
    """A cell with a mean over seeds and its interval."""
    return cell(value.mean, value.interval, show)


def significant(value: float | None) -> str:
    """Three significant digits and a true minus sign; a dash for None."""
    return "–" if value is None else f"{value:.3g}".replace("-", "−")


def _small(value: str) -> str:
    return f"<small>{escaped(value)}</small>" if value else ""
