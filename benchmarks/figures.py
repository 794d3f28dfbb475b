"""What a benchmark found, as one readable line."""

import statistics
from collections.abc import Sequence

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """
    One measured value, the median of its rounds.

    ``values`` are those of each round; ``reference`` says what it was measured against; ``target`` is the goal,
    ``at_most`` whether smaller is better. Without a target the line only informs.
    """

    name: str
    values: Sequence[float]
    unit: str = ""
    reference: str = ""
    target: float | None = None
    at_most: bool = False

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool:
        """Whether the goal is reached; always true without one."""
        if self.target is None:
            return True
        return self.value <= self.target if self.at_most else self.value >= self.target

    def __str__(self) -> str:
        text = f"{self.name}: {_short(self.value)}{self.unit}"
        if len(self.values) > 1:
            text += f" ({_short(min(self.values))} to {_short(max(self.values))})"
        if self.reference:
            text += f"; {self.reference}"
        if self.target is not None:
            sign = "≤" if self.at_most else "≥"
            text += f" [target {sign} {_short(self.target)}{self.unit}: {'met' if self.is_met else 'missed'}]"
        return text


def _short(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
