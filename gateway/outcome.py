"""
The fates of an event, and the record of one.

Every accepted event has exactly one visible fate per destination: ``queued`` and then ``delivered``, ``dead(reason)``
or ``dropped(reason)``; or at once ``merged(into)``, ``duplicate(of)``, ``dropped(reason)``. ``rejected(reason)`` is not
accepted.
"""

from typing import Literal

import msgspec

from gateway.event import Struct

#: What admission says of one event for one destination.
Fate = Literal["accepted", "merged", "duplicate", "dropped", "rejected"]
#: What becomes of an accepted unit in the end.
End = Literal["delivered", "dead", "dropped", "merged"]

#: Best first: an event with several destinations counts once, under its best fate.
FATES: tuple[Fate, ...] = ("accepted", "merged", "duplicate", "dropped", "rejected")


class Outcome(Struct, frozen=True, kw_only=True):
    """
    The fate of one event at one destination, or of one item without a destination.

    ``of`` names the event id that a duplicate or merged copy belongs to; ``unit`` is the store's opaque id of an
    accepted one; ``notes`` what was corrected or dropped on the way, without values. ``signals`` says which signals of
    a merged or completed event came from where (``server:NAME``, ``browser:NAME``, ``memory:KEY``), ``missed`` what a
    duplicate brought too late.
    """

    fate: Fate
    event_id: str | None = None
    event_name: str = ""
    destination: str | None = None
    reason: str | None = None
    of: str | None = None
    unit: str | None = None
    notes: tuple[str, ...] = ()
    is_test: bool = False
    signals: dict[str, list[str]] = msgspec.field(default_factory=dict)
    missed: tuple[str, ...] = ()


class Settled(Struct, frozen=True, kw_only=True):
    """The end of one unit, as observers, metrics and the log see it; ``lateness_s`` is event time to delivery."""

    unit: str
    destination: str
    event_id: str
    event_name: str
    source: str
    end: End
    reason: str | None = None
    lateness_s: float = 0.0
    is_test: bool = False
    maybe_twice: bool = False
    warning: str | None = None
