"""
Vendors' own scores of what they got, beside ours, with their history: one line a destination and day in a small file.

A score is asked for when somebody looks and every few hours; a vendor that gives none is asked again after a while.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from gateway.errors import Unavailable
from gateway.event import Struct
from gateway.interfaces import Destination, Quality, Score
from gateway.isolation import Guard

_log = logging.getLogger("gateway.quality")
#: The period that is asked for; Pinterest has 1d and 14d.
LOOKBACK = "14d"
#: A score is asked for again after so many seconds, one that was not given sooner.
FRESH_S, AGAIN_S = 21_600.0, 3_600.0
#: The first look of a gateway that nobody looks at, after its start; and the longest that a caller waits for an answer.
_FIRST_S, _LIMIT_S, PATIENCE_S = 600.0, 15.0, 3.0
#: Days of history that are kept, and lines of the file after which it is written anew.
KEEP_DAYS, _MOST_LINES = 400, 4_000
_DAY_S = 86_400


class Scored(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One score in short: its status, and the mean coverage of each component over the names of events, in percent."""

    status: str
    platform: str
    ingestion: str
    components: dict[str, float]


class Line(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The last scores of one destination on one UTC day (``2026-11-22``)."""

    day: str
    destination: str
    scores: tuple[Scored, ...] = ()


class Known(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """What a destination's vendor said last, and when (Unix s)."""

    at: float
    quality: Quality


class QualityBook:
    """
    Asks destinations for their vendors' scores, and keeps them.

    Args:
        path: The file of the history; it and its folder are made with the first line.
        clock: Unix s. ``guard`` isolates plugins that raise or hang.
        destinations: Returns the current ones by name.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float],
        guard: Guard,
        destinations: Callable[[], Mapping[str, Destination]],
    ) -> None:
        self._path, self._clock, self._guard, self._destinations = path, clock, guard, destinations
        self._known: dict[str, Known | None] = {}
        self._asking: dict[str, asyncio.Task[Known | None]] = {}
        self._lines: dict[tuple[str, str], Line] | None = None
        self._rounds: asyncio.Task[None] | None = None

    async def known(self, name: str, patience_s: float = PATIENCE_S) -> Known | None:
        """
        Return what is known of a destination, asking when it is not fresh; None: its vendor keeps no score.

        An answer that takes longer than ``patience_s`` is not waited for: it is there at the next call.
        """
        known = self._known.get(name)
        if name in self._known and (known is None or self._is_fresh(known)):
            return known
        destination = self._destinations().get(name)
        if destination is None or type(destination).quality is Destination.quality:
            return None
        task = self._asking.get(name)
        if task is None:
            task = self._asking[name] = asyncio.create_task(self._ask(name, destination))
        await asyncio.wait([task], timeout=patience_s)
        if task.done():
            return task.result()
        return known or Known(
            at=self._clock(),
            quality=Quality(problem="The vendor has been asked for its score; look again in a minute."),
        )

    def history(self, name: str) -> list[Line]:
        """Return the history of a destination, oldest day first."""
        return [line for key, line in sorted(self._read().items()) if key[1] == name]

    def start(self) -> None:
        """Look every few hours, also when nobody asks."""
        self._rounds = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Look no more."""
        tasks = [task for task in (self._rounds, *self._asking.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_fresh(self, known: Known) -> bool:
        age = self._clock() - known.at
        return 0 <= age < (FRESH_S if known.quality.problem is None else AGAIN_S)

    async def _look(self) -> None:
        await asyncio.sleep(_FIRST_S)
        while True:
            for name in list(self._destinations()):
                await self.known(name, _LIMIT_S)
            await asyncio.sleep(FRESH_S)

    async def _ask(self, name: str, destination: Destination) -> Known | None:
        try:
            quality = await self._guard.asked(destination.name, lambda: destination.quality(LOOKBACK), _LIMIT_S)
        except Unavailable:
            quality = Quality(problem=f"The destination '{name}' could not be asked: see the log (plugin_failed).")
        finally:
            self._asking.pop(name, None)
        known = None if quality is None else Known(at=self._clock(), quality=quality)
        self._known[name] = known
        if known is not None and known.quality.scores:
            self._note(name, known)
        return known

    def _note(self, name: str, known: Known) -> None:
        day = time.strftime("%Y-%m-%d", time.gmtime(known.at))
        line = Line(day=day, destination=name, scores=tuple(map(_short, known.quality.scores)))
        lines = self._read()
        if lines.get((day, name)) == line:
            return
        lines[day, name] = line
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")
        except OSError as error:
            _log.warning("quality_not_written", extra={"error": type(error).__name__})

    def _read(self) -> dict[tuple[str, str], Line]:
        """Return the lines by (day, destination); the newest of a day counts, and half a line at the end does not."""
        if self._lines is None:
            oldest = time.strftime("%Y-%m-%d", time.gmtime(self._clock() - KEEP_DAYS * _DAY_S))
            raw = self._path.read_bytes().splitlines() if self._path.exists() else []
            found = [line for line in map(_line, raw) if line is not None and line.day >= oldest]
            self._lines = {(line.day, line.destination): line for line in found}
            if len(raw) > _MOST_LINES or (raw and _line(raw[-1]) is None):
                self._rewrite(self._lines)
        return self._lines

    def _rewrite(self, lines: Mapping[tuple[str, str], Line]) -> None:
        whole = b"".join(msgspec.json.encode(line) + b"\n" for _, line in sorted(lines.items()))
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_bytes(whole)
            fresh.replace(self._path)
        except OSError as error:
            _log.warning("quality_not_written", extra={"error": type(error).__name__})


def _short(score: Score) -> Scored:
    by_name: dict[str, list[float]] = {}
    for one in score.components:
        by_name.setdefault(one.name, []).append(one.coverage)
    components = {name: round(sum(found) / len(found), 1) for name, found in sorted(by_name.items())}
    return Scored(status=score.status, platform=score.platform, ingestion=score.ingestion, components=components)


def _line(raw: bytes) -> Line | None:
    try:
        return msgspec.json.decode(raw, type=Line)
    except msgspec.DecodeError:
        return None
