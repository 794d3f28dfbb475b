"""How much counters grew lately."""

from collections import deque
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
_SAMPLES = 30


class Growth(Generic[K]):
    """
    Growth of counters that begin at zero with the process.

    Args:
        window_s: How far back "lately" goes.
        now: When they began to count, in seconds of the clock of :meth:`since`.
    """

    def __init__(self, window_s: float, now: float) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, Mapping[K, int]]] = deque([(now, {})])

    def since(self, now: float, counts: Mapping[K, int]) -> dict[K, int]:
        """Return by how much each counter grew in the window; those that did not are left out."""
        samples = self._samples
        if now < samples[-1][0]:  # the clock was set back
            samples = self._samples = deque([(now, samples[0][1])])
        while len(samples) > 1 and samples[1][0] <= now - self._window_s:
            samples.popleft()
        base = samples[0][1]
        if now - samples[-1][0] >= self._window_s / _SAMPLES:
            samples.append((now, dict(counts)))
        grown = {key: count - base.get(key, 0) for key, count in counts.items()}
        return {key: count for key, count in grown.items() if count > 0}
