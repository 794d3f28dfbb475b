"""Where the lines and bars of the pages' charts lie: numbers for SVG, because no page carries a style of its own."""

from collections.abc import Sequence

from gateway.event import Struct

#: The plot's own units; a browser scales them.
WIDTH, HEIGHT = 640.0, 160.0
_MOST_TICKS = 6


class Piece(Struct, frozen=True, kw_only=True):
    """A piece of a stacked bar: ``x`` and ``width`` in per cent of the whole."""

    label: str
    count: float
    kind: str
    x: float
    width: float
    share: float


class Line(Struct, frozen=True, kw_only=True):
    """A line: ``d`` and ``area`` are paths; ``values`` what they show."""

    label: str
    kind: str
    d: str
    area: str
    values: tuple[float, ...]
    total: float
    last: float
    peak: float


class Plot(Struct, frozen=True, kw_only=True):
    """Lines over labels: ``top`` is the value of the upper edge, ``ticks`` labels with their x."""

    width: float
    height: float
    top: float
    labels: tuple[str, ...]
    lines: tuple[Line, ...]
    ticks: tuple[tuple[float, str], ...]


def stacked(parts: Sequence[tuple[str, float, str]]) -> list[Piece]:
    """Return the pieces of a bar, of (label, count, kind); those without a count have no width."""
    total = sum(max(0.0, count) for _, count, _ in parts)
    pieces, x = [], 0.0
    for label, count, kind in parts:
        share = max(0.0, count) / total if total else 0.0
        pieces.append(
            Piece(label=label, count=count, kind=kind, x=round(x, 3), width=round(share * 100, 3), share=share)
        )
        x += share * 100
    return pieces


def plotted(labels: Sequence[str], series: Sequence[tuple[str, Sequence[float], str]]) -> Plot:
    """Return the plot of (label, values, kind), each with a value for every label."""
    top = _round_up(max((value for _, values, _ in series for value in values), default=0.0))
    step = WIDTH / max(1, len(labels) - 1)
    lines = [_line(name, values, kind, step, top) for name, values, kind in series]
    every = max(1, -(-len(labels) // _MOST_TICKS))
    ticks = [(round(at * step, 1), labels[at]) for at in range(0, len(labels), every)]
    return Plot(width=WIDTH, height=HEIGHT, top=top, labels=tuple(labels), lines=tuple(lines), ticks=tuple(ticks))


def _line(label: str, values: Sequence[float], kind: str, step: float, top: float) -> Line:
    points = [(round(at * step, 1), round(HEIGHT - value / top * HEIGHT, 1)) for at, value in enumerate(values)]
    if len(points) == 1:  # one value is a level, not a dot that nobody sees
        points.append((WIDTH, points[0][1]))
    d = "M" + " L".join(f"{x:g} {y:g}" for x, y in points) if points else ""
    area = f"{d} L{points[-1][0]:g} {HEIGHT:g} L0 {HEIGHT:g} Z" if points else ""
    return Line(
        label=label, kind=kind, d=d, area=area, values=tuple(values), total=sum(values),
        last=values[-1] if values else 0.0, peak=max(values, default=0.0),
    )  # fmt: skip


def _round_up(value: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten, so that the scale is readable."""
    if value <= 1:
        return 1.0
    power = 10.0 ** (len(str(int(value))) - 1)
    return next(factor * power for factor in (1, 2, 5, 10) if value <= factor * power)
