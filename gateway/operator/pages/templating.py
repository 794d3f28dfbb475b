"""The templates' environment: everything escaped, an unknown name an error, and the filters for numbers and times."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gateway.operator.pages import charts

_FOLDER = Path(__file__).parent / "templates"


def environment(static: Callable[[str], str]) -> Environment:
    """Return the environment; ``static`` gives the address of a file."""
    found = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, auto_reload=False,
    )  # fmt: skip
    found.globals |= {"static": static, "stacked": charts.stacked, "plotted": charts.plotted}
    found.filters |= {one.__name__: one for one in (number, percent, moment, iso, span, size, plural)}
    return found


def number(value: float) -> str:
    """Return 12,345, or 1.5."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def percent(share: float | None, digits: int = 0) -> str:
    """Return a share (0 to 1) in per cent, a dash for None."""
    return "\N{EN DASH}" if share is None else f"{share * 100:.{digits}f} %"


def iso(unix: float) -> str:
    """Return a time for the ``datetime`` attribute; one that no calendar has as the nearest."""
    return _utc(unix).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(unix: float) -> str:
    """Return a time for a reader, in UTC."""
    return _utc(unix).strftime("%d %b %Y, %H:%M:%S UTC")


def span(seconds: float) -> str:
    """Return a length of time in its largest two units."""
    left = max(0, int(seconds))
    if left < 60:
        return f"{left} s"
    if left < 3_600:
        return f"{left // 60} min {left % 60} s" if left % 60 and left < 600 else f"{left // 60} min"
    if left < 86_400:
        return f"{left // 3_600} h {left % 3_600 // 60} min" if left % 3_600 >= 60 else f"{left // 3_600} h"
    days, hours = left // 86_400, left % 86_400 // 3_600
    return f"{days} d {hours} h" if hours else f"{days} d"


def size(count: float) -> str:
    """Return a number of bytes in the unit that fits."""
    value, units = float(count), ("bytes", "KB", "MB", "GB", "TB")
    for unit in units:
        if value < 1024 or unit == units[-1]:
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError  # the last unit takes everything


def plural(count: float, one: str, many: str | None = None) -> str:
    """Return the count with its noun."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def _utc(unix: float) -> datetime:
    limited: Any = min(max(unix, 0.0), 253_402_300_799.0)
    return datetime.fromtimestamp(limited, UTC)
