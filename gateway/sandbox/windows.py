"""Fixed windows in which calls are counted: Klaviyo's burst and steady limits, Pinterest's calls a minute."""

import math
from collections.abc import Callable


class Windows:
    """
    Calls counted per key, in windows that begin at whole multiples of their length.

    Args:
        clock: Unix seconds now.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._used: dict[tuple[str, float], tuple[int, int]] = {}

    def clear(self) -> None:
        """Forget every call."""
        self._used.clear()

    def used(self, key: str, length_s: float) -> int:
        """Return the calls of this key in the window that runs."""
        number, used = self._used.get((key, length_s), (0, 0))
        return used if number == self._number(length_s) else 0

    def left_s(self, length_s: float) -> int:
        """Whole seconds until the next window begins, at least 1."""
        now = self._clock()
        return max(1, math.ceil((math.floor(now / length_s) + 1) * length_s - now))

    def count(self, key: str, length_s: float) -> None:
        """Count one call."""
        self._used[key, length_s] = (self._number(length_s), self.used(key, length_s) + 1)

    def _number(self, length_s: float) -> int:
        return math.floor(self._clock() / length_s)
