"""The two sides of a connection, and the patience with which they are called."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from gateway.audience import AudienceError, AudienceSink, AudienceSource
from gateway.audiences.records import Settings

T = TypeVar("T")
#: Given SHA-256 hashes of e-mails (hex), returns those of people who opted out or were erased.
AskBarred = Callable[[Sequence[str]], Awaitable[set[str]]]
_FIRST_WAIT_S = 0.5


class Sides:
    """Finds sources and sinks by name, and calls them again when they ask for it."""

    def __init__(
        self,
        sources: Mapping[str, AudienceSource],
        sinks: Mapping[str, AudienceSink],
        settings: Settings,
        barred: AskBarred,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._sources = sources
        self._sinks = sinks
        self._settings = settings
        self._sleep = sleep
        self.barred = barred

    def source(self, name: str) -> AudienceSource:
        """Return a source; raises AudienceError when none is configured under the name."""
        return _named(self._sources, name, "audience_sources")

    def sink(self, name: str) -> AudienceSink:
        """Return a sink; raises AudienceError when none is configured under the name."""
        return _named(self._sinks, name, "audience_sinks")

    async def call(self, make: Callable[[], Awaitable[T]], *, tries: int | None = None) -> T:
        """
        Await what ``make`` returns, again after the wait that the side asks for.

        Raises:
            AudienceError: The last one, after ``tries`` calls; at once when an operator must mend something, or when
                the wait is longer than ``max_wait_s``.
        """
        wait = _FIRST_WAIT_S
        for left in range((tries or self._settings.tries) - 1, -1, -1):
            try:
                return await make()
            except AudienceError as error:
                if error.retry_after_s is None or not left:
                    raise
                pause = max(error.retry_after_s, wait)
                if pause > self._settings.max_wait_s:
                    raise
            await self._sleep(pause)
            wait = min(wait * 2, self._settings.max_wait_s)
        raise AssertionError("tries is at least 1")


def _named(sides: Mapping[str, T], name: str, table: str) -> T:
    if name not in sides:
        known = ", ".join(sorted(sides)) or "none"
        raise AudienceError(
            f"There is no [{table}.{name}] in the configuration (there: {known}): add it, or disconnect."
        )
    return sides[name]
