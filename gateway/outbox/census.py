"""
Dead letters for a page: counted by reason, and listed newest first, on a reading connection beside the writer.

Both are bounded: groups are counted by an index alone, and of letters themselves only so many are read.
"""

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway.event import Struct
from gateway.outbox import DeadFilter, DeadLetter, Kind
from gateway.outbox.admission import DEAD
from gateway.outbox.records import unpack
from gateway.outbox.schema import connect_reader

#: Letters whose event is read for the groups.
EVENTS = 2_000
#: Rows that one page of a list looks at.
LOOKED_AT = 20_000
_MOST_WORDS = 5
#: Bytes of the head of a stored event: a format number and, since format 2, a checksum.
_HEADS = {1: 1, 2: 5}
_DEAD = f"u.state <> 0 AND u.state = {DEAD}"
_COUNT = (
    "SELECT lane, reason, count(*), min(ended_at), max(ended_at), sum(twice) FROM unit INDEXED BY unit_dead"
    f" WHERE state = {DEAD} GROUP BY lane, reason"
)
_GLANCE = f"SELECT u.lane, u.reason, u.event FROM unit u WHERE {_DEAD} ORDER BY u.ended_at DESC LIMIT ?"
_LIST = (
    "SELECT u.id, l.destination, u.event, u.reason, u.ended_at, u.attempts, u.twice FROM unit u"
    f" JOIN lane l ON l.id = u.lane WHERE {_DEAD} AND u.ended_at <= ?"
    " AND (u.ended_at < ? OR u.id < ?) ORDER BY u.ended_at DESC, u.id DESC LIMIT ?"
)


class DeadGroup(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    The dead letters of one destination that share the code of their reason (what stands before a colon).

    ``words``: the commonest wordings behind the code, with their counts; ``others``: how many wordings there are
    besides. ``kinds``, ``sources`` and ``events`` count by kind of lane, source and event name, the last two among the
    newest letters only (:attr:`DeadCensus.glanced`). Times are Unix s.
    """

    destination: str
    code: str
    count: int
    oldest_at: float
    newest_at: float
    maybe_twice: int = 0
    words: tuple[tuple[str, int], ...] = ()
    others: int = 0
    kinds: tuple[tuple[Kind, int], ...] = ()
    sources: tuple[tuple[str, int], ...] = ()
    events: tuple[tuple[str, int], ...] = ()


class DeadCensus(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    All groups, the largest first.

    ``counted``: how many letters there are. ``glanced``: so many of them, the newest, gave the counts by source and
    event.
    """

    groups: tuple[DeadGroup, ...] = ()
    counted: int = 0
    glanced: int = 0


class DeadPage(Struct, frozen=True, kw_only=True):
    """
    Dead letters, newest first. ``after`` asks for the next page, None when there is none. ``is_complete`` false: it
    ends early, for so many letters were looked at.
    """

    letters: tuple[DeadLetter, ...] = ()
    after: str | None = None
    is_complete: bool = True


class _Glance(msgspec.Struct):
    """What the counts need of a stored event."""

    event_name: str = "?"
    source: str = "?"


class _Counted:
    """One group while it is counted."""

    def __init__(self) -> None:
        self.words: Counter[str] = Counter()
        self.kinds: Counter[Kind] = Counter()
        self.sources: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.oldest_at, self.newest_at, self.twice = float("inf"), 0.0, 0

    def add(self, kind: Kind, words: str, count: int, oldest_at: float, newest_at: float, twice: int) -> None:
        """Count the letters of one reason."""
        self.words[words] += count
        self.kinds[kind] += count
        self.oldest_at, self.newest_at = min(self.oldest_at, oldest_at), max(self.newest_at, newest_at)
        self.twice += twice

    def group(self, destination: str, code: str) -> DeadGroup:
        """Return the finished group."""
        said = Counter({words: count for words, count in self.words.items() if words})
        return DeadGroup(
            destination=destination,
            code=code,
            count=self.words.total(),
            oldest_at=self.oldest_at,
            newest_at=self.newest_at,
            maybe_twice=self.twice,
            words=tuple(said.most_common(_MOST_WORDS)),
            others=max(0, len(said) - _MOST_WORDS),
            kinds=tuple(self.kinds.most_common()),
            sources=tuple(self.sources.most_common()),
            events=tuple(self.events.most_common()),
        )


class _LaneRow(NamedTuple):
    destination: str
    kind: Kind


def census(path: Path, *, events: int = EVENTS) -> DeadCensus:
    """Count dead letters by destination and code, and the newest ``events`` of them by source and event."""
    groups: dict[tuple[str, str], _Counted] = {}
    with closing(connect_reader(path)) as reader:
        reader.execute("BEGIN")  # one state of the store for all that follows
        lanes = {
            number: _LaneRow(name, kind)
            for number, name, kind in reader.execute("SELECT id, destination, kind FROM lane")
        }
        counted = 0
        for lane, reason, count, oldest_at, newest_at, twice in reader.execute(_COUNT):
            code, words = parts_of(reason)
            group = groups.setdefault((lanes[lane].destination, code), _Counted())
            group.add(lanes[lane].kind, words, count, oldest_at, newest_at, twice)
            counted += count
        glanced = _glance(reader, lanes, groups, events)
    found = [one.group(destination, code) for (destination, code), one in groups.items()]
    found.sort(key=lambda one: (-one.count, one.destination, one.code))
    return DeadCensus(groups=tuple(found), counted=counted, glanced=glanced)


def _glance(
    reader: sqlite3.Connection, lanes: dict[int, _LaneRow], groups: dict[tuple[str, str], _Counted], limit: int
) -> int:
    decode, glanced = msgspec.msgpack.Decoder(_Glance).decode, 0
    for lane, reason, stored in reader.execute(_GLANCE, (limit,)):
        glanced += 1
        group = groups[lanes[lane].destination, parts_of(reason)[0]]
        try:
            event = decode(memoryview(stored)[_HEADS[stored[0]] :])
        except (msgspec.DecodeError, UnicodeDecodeError, LookupError):  # reading it to be sent says what is wrong
            event = _Glance()
        group.sources[event.source] += 1
        group.events[event.event_name] += 1
    return glanced


def newest(path: Path, which: DeadFilter, limit: int, after: str | None, *, most: int = LOOKED_AT) -> DeadPage:
    """
    Return up to ``limit`` dead letters that match, newest first, after the one that ``after`` names.

    Raises:
        ValueError: ``after`` is not what an earlier page gave.
    """
    place = _place(after)
    letters: list[DeadLetter] = []
    looked_at = 0
    until = place[0] if which.until is None else min(place[0], which.until)
    with closing(connect_reader(path)) as reader:
        # closing the cursor early ends the reading: the limit only bounds a search for what is rare
        for row in reader.execute(_LIST, (until, *place, most)):
            looked_at += 1
            if len(letters) == limit:
                return DeadPage(letters=tuple(letters), after=_text(*place))
            place = row[4], row[0]
            if (letter := _letter(row, which)) is not None:
                letters.append(letter)
    is_complete = looked_at < most
    return DeadPage(letters=tuple(letters), after=None if is_complete else _text(*place), is_complete=is_complete)


def _letter(row: tuple[int, str, bytes, str, float, int, int], which: DeadFilter) -> DeadLetter | None:
    unit, destination, stored, reason, died_at, attempts, twice = row
    if which.destination not in (None, destination) or which.reason not in (None, reason):
        return None
    if which.code not in (None, parts_of(reason)[0]) or (which.units and format(unit, "x") not in which.units):
        return None
    event = unpack(stored)
    if which.event_name not in (None, event.event_name) or which.source not in (None, event.source):
        return None
    return DeadLetter(
        unit=format(unit, "x"), destination=destination, event=event, reason=reason, died_at=died_at,
        attempts=attempts, maybe_twice=bool(twice),
    )  # fmt: skip


def parts_of(reason: str | None) -> tuple[str, str]:
    """Return a reason's code and the words behind it."""
    code, _, words = (reason or "").partition(":")
    return code, words.strip()


def _place(after: str | None) -> tuple[float, int]:
    if after is None:
        return float("inf"), 0
    died_at, dash, unit = after.partition("-")
    try:
        return float.fromhex(died_at), int(unit, 16) if dash else 0
    except (ValueError, OverflowError):
        raise ValueError("after must be what an earlier page gave.") from None


def _text(died_at: float, unit: int) -> str:
    return f"{died_at.hex()}-{unit:x}"


class Letters:
    """
    The dead letters of one store, for looking at.

    Args:
        path: The store's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def census(self) -> DeadCensus:
        """See :func:`census`."""
        return await asyncio.to_thread(census, self._path)

    async def newest(self, which: DeadFilter, *, limit: int = 50, after: str | None = None) -> DeadPage:
        """See :func:`newest`."""
        return await asyncio.to_thread(newest, self._path, which, limit, after)
