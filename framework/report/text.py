"""Numbers and lists as a reader sees them."""

from collections.abc import Callable, Sequence

Show = Callable[[float | None], str]


def number(value: float | None, signed: bool = False) -> str:
    """The value with about three significant figures and a true minus sign; a dash for None."""
    if value is None:
        return "–"
    magnitude = abs(value)
    digits = 0 if magnitude >= 100 else 1 if magnitude >= 10 else 2
    return _signed(f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}")


def significant(value: float | None) -> str:
    """Three significant digits, for what spans many sizes."""
    return "–" if value is None else _signed(f"{value:.3g}")


def percent(share: float | None) -> str:
    """A share in whole percent."""
    return "–" if share is None else _signed(f"{share:.0%}")


def count(value: float | None) -> str:
    """A whole number."""
    return "–" if value is None else _signed(f"{value:,.0f}")


def _signed(text: str) -> str:
    """With a true minus sign, and none before a zero."""
    is_zero = not any(digit in text for digit in "123456789")
    return text.lstrip("+-") if is_zero else text.replace("-", "−")


def plural(many: int, noun: str) -> str:
    """A count and its noun."""
    return f"{many:,} {noun}" + ("" if many == 1 else "s")


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def interval(bounds: tuple[float, float] | None, show: Show = number) -> str:
    """`95% interval low to high`; empty without one."""
    return f"95% interval {show(bounds[0])} to {show(bounds[1])}" if bounds else ""
