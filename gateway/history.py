"""
The vocabulary of roll-ups: how many of what happened in each hour, for the operator's pages and ``status``.

The outbox counts in the commit of what it counts (:mod:`gateway.outbox.rollups`): after a kill these numbers agree with
what is stored. What has no commit of its own (``dropped`` and ``rejected`` before the store, ``aside``, ``hit``) goes
with the next one, at the latest about a second later, and at a clean stop: a kill loses the last second of those.

==================  ==================================================================================================
``what``            what is counted, once each; ``detail``
==================  ==================================================================================================
``accepted``        an event that has a unit of its own at one destination
``merged``          a copy that completed an event that waits or is dead
``duplicate``       a copy that added nothing, or came after its event had left
``dropped``         an event that is not sent; detail: the reason. Destination ``-``: before it had any
``rejected``        an item of a hit that cannot be read; detail: the reason
``aside``           an item that is no event (an erasure, an export, an alarm); detail: the reason
``delivered``       the vendor took it
``dead``            it became a dead letter; detail: the reason
``ended``           a waiting one was taken away: detail ``merged`` or ``duplicate`` (it turned out to be the same as
                    another), ``consent``, ``erased``, or why its destination refused it
``replayed``        a dead letter was queued again, by an operator
``revived``         a dead letter was queued again, because a copy completed it
``discarded``       a dead letter was taken away; detail: ``operator``, ``expired``, ``consent``, ``erased``,
                    ``duplicate``, ``merged``
``salvaged``        an event was brought from a damaged store, whose own counts stay there; detail: ``queued``, ``dead``
``signal``          a delivered event carried it; detail: see :func:`coverage`
``limited``         a delivered event had limited data; detail ``STATE:SIGNAL``: the US state (``?``: not known), and
                    the signals joined with ``+`` (``gpc``, ``us_privacy``, ``gpp``, ``sale_of_data``; ``source``: the
                    source said so, ``?``: not known any more)
``pair``            a copy that met another one; source: the copy's, detail ``merged:OTHER`` or ``duplicate:OTHER``,
                    OTHER being the source of the event that it met (``?``: not known any more). Also counted for one
                    that was accepted and later turned out to be the same as another (its ``ended``)
``keyless``         an accepted event without any key: nothing would tell its copy from it
``tag_seen``        an event that the page's own tag reported too (``tag: true``), once however many copies say so;
                    source: the copy's that said it first
``tag_met``         such an event was delivered under the very id that the tag used; source: the one that said it
``hit``             an answer to a hit; detail: its HTTP status. Source only, destination and event are ``-``
==================  ==================================================================================================

Test events are counted at the door and at the end only, as ``test_accepted``, ``test_delivered`` and so on.

These hold at every commit, in a store that was counted from its beginning: ``accepted + replayed + revived +
salvaged(queued) = delivered + dead + ended + waiting`` and ``dead + salvaged(dead) = replayed + revived + discarded +
dead letters``. Received are ``accepted + merged + duplicate``, unique
``accepted - ended(merged, duplicate)``. The overlap with the browser's tag is ``tag_met / tag_seen``. ``signal`` and
``limited`` are shares of ``delivered``.

Every part of a cell is bounded: names come from the configuration, events are canonical or configured names (others are
``-``), reasons are codes.
"""

from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from hashlib import sha256
from string import ascii_lowercase
from typing import Literal, NamedTuple

import msgspec

from gateway.event import STANDARD_NAMES, SealedEvent
from gateway.outcome import Outcome, Settled

#: How :meth:`gateway.outbox.Outbox.history` adds hours up.
By = Literal["hour", "day", "all"]
#: Stands for a part that something counted has not.
NONE = "-"
_LIMITED = "privacy: limited by "
_ENDS = {"delivered": "delivered", "dead": "dead"}
#: Details are codes; a longer one is cut.
_LONGEST = 60


class Cell(NamedTuple):
    """What a count is of."""

    source: str
    destination: str
    event: str
    what: str
    detail: str = ""


class Rolled(msgspec.Struct, frozen=True, order=True, gc=False):
    """A count; ``start`` is when its hour or UTC day began (Unix s), 0 for ``all``."""

    start: int
    source: str
    destination: str
    event: str
    what: str
    detail: str
    count: int


#: How often each of these happened.
Cells = Mapping[Cell, int]


def code_of(reason: str | None) -> str:
    """Return the code of a reason: what stands before a colon; a vendor's wording stays out of labels."""
    return (reason or "").split(":", 1)[0][:40]


def what_of(what: str, *, is_test: bool) -> str:
    """Return what something is counted as."""
    return f"test_{what}" if is_test else what


def add(cells: dict[Cell, int], cell: Cell, count: int = 1) -> None:
    """Count."""
    cells[cell] = cells.get(cell, 0) + count


def aside(source: str, outcome: Outcome) -> Cell:
    """Return the cell of what was decided without the store: dropped, rejected, or no event at all."""
    name = outcome.event_name if outcome.destination or outcome.event_name in STANDARD_NAMES else NONE
    what = what_of("aside" if outcome.fate == "accepted" else outcome.fate, is_test=outcome.is_test)
    return Cell(source, outcome.destination or NONE, name, what, code_of(outcome.reason))


@lru_cache(4_096)
def hit(source: str, status: int) -> Cell:
    """Return the cell of an answer."""
    return Cell(source, NONE, NONE, "hit", str(status))


@lru_cache(4_096)
def coverage(found: frozenset[str]) -> tuple[str, ...]:
    """
    Return the details of ``signal`` for an event with these signals (:func:`gateway.merge.signals`).

    Every signal by its own name (identifiers by the destination's: ``em``, ``ph``, ``external_id``, …; ``client_ip``,
    ``client_user_agent``, ``value``, ``items``, ``order_id``, ``source_url``), and groups: ``click_id`` (``epik``),
    ``ip_ua`` (both), ``em_or_maid`` (``em`` or ``hashed_maids``), ``fn_ln`` (both). Source of the groups: Pinterest
    help page "Conversions health".
    """
    groups = (
        ("click_id", "epik" in found),
        ("ip_ua", {"client_ip", "client_user_agent"} <= found),
        ("em_or_maid", "em" in found or "hashed_maids" in found),
        ("fn_ln", {"fn", "ln"} <= found),
    )
    return (*sorted(found - {"epik"}), *(name for name, has in groups if has))


def delivered(cells: dict[Cell, int], destination: str, events: Iterable[tuple[SealedEvent, frozenset[str]]]) -> None:
    """Count what delivered events carried."""
    alike: dict[tuple[str, str, frozenset[str]], int] = {}
    for event, found in events:
        if event.test:
            continue
        key = (event.source, event.event_name, found)
        alike[key] = alike.get(key, 0) + 1
        if event.limited_data:
            add(cells, Cell(event.source, destination, event.event_name, "limited", limited(event)))
        if event.tag:
            add(cells, Cell(tag_source(event), destination, event.event_name, "tag_met"))
    for (source, name, found), count in alike.items():
        for detail in coverage(found):
            add(cells, Cell(source, destination, name, "signal", detail), count)


def ends(cells: dict[Cell, int], settled: Iterable[Settled]) -> None:
    """Count how leased units ended."""
    for one in settled:
        what = _ENDS.get(one.end, "ended")
        if one.is_test:
            what = f"test_{what}"
        reason = "" if one.reason is None else code_of(one.reason)
        # equal to a Cell, and made in half the time
        cell: Cell = (one.source, one.destination, one.event_name, what, reason)  # type: ignore[assignment]
        cells[cell] = cells.get(cell, 0) + 1


def changed(cells: dict[Cell, int], event: SealedEvent, destination: str, what: str, detail: str = "") -> None:
    """Count what an operator, an erasure or time did to a stored event."""
    add(cells, Cell(event.source, destination, event.event_name, what_of(what, is_test=event.test), detail))


def tag_source(event: SealedEvent) -> str:
    """Return the source whose copy brought the id that the page's own tag used."""
    side, _, name = event.origins.get("event_id", "").partition(":")
    return name if side in ("browser", "server") else event.source


def limited(event: SealedEvent) -> str:
    """Return state and signal of an event with limited data."""
    told = next((note for note in event.notes if note.startswith(_LIMITED)), None)
    by = "?" if told is None else told.removeprefix(_LIMITED).replace(", ", "+").replace("limited_data", "source")
    hashes = event.user.get("st", ())
    state = _codes().get(hashes[0], "?") if len(hashes) == 1 else "?"
    return f"{state}:{by}"[:_LONGEST]


@cache
def _codes() -> dict[str, str]:
    """Codes of two letters by their hash: there are few enough to know all."""
    codes = [first + second for first in ascii_lowercase for second in ascii_lowercase]
    return {sha256(code.encode()).hexdigest(): code.upper() for code in codes}
