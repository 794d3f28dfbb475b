"""
The outbox: what is accepted is here until it has a fate.

This module is the interface; an engine (:mod:`gateway.outbox.sqlite`) implements it. The outbox keeps sealed events and
knows no vendor. One *unit* is one (event, destination) with an opaque text id.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from gateway.event import SealedEvent, Struct
from gateway.history import By, Cells, Rolled
from gateway.outbox.figures import Counts as Counts
from gateway.outbox.figures import Kind as Kind
from gateway.outbox.figures import LaneCount as LaneCount
from gateway.outbox.figures import Salvaged as Salvaged
from gateway.outbox.remembered import ALLOWED as ALLOWED
from gateway.outbox.remembered import LIMITED as LIMITED
from gateway.outbox.remembered import OPTED_OUT as OPTED_OUT
from gateway.outbox.remembered import Memorandum as Memorandum
from gateway.outbox.remembered import Remembered as Remembered
from gateway.outcome import Fate, Settled
from gateway.steady import Steady


class Lane(Struct, frozen=True, kw_only=True):
    """What one call can carry: one destination, one kind."""

    destination: str
    kind: Kind


def kind_of(event: SealedEvent) -> Kind:
    """Return the kind of lane that an event travels in."""
    if event.test:
        return "test"
    return "offline" if event.is_offline else "live"


class Mark(Struct, frozen=True, kw_only=True):
    """
    One deduplication key of a unit.

    ``digest`` comes from :meth:`Outbox.digest`; ``lifetime_s`` counts from acceptance. ``business`` keys (order,
    checkout) remember the event id they stand for, so that a duplicate under another id can name it.
    """

    digest: bytes
    lifetime_s: int
    business: bool = False


class Unit(Struct, frozen=True, kw_only=True):
    """
    One event for one destination, ready to be admitted.

    ``marks`` are its deduplication keys, none for a keyless event; ``subjects`` keyed hashes of the person and the
    site, for erasure; ``hold_s`` how long it waits for its other half. ``consent`` is the person's explicit choice in
    this event, if any: "denied" admits nothing, withdraws a waiting copy and leaves a tombstone. ``refusal`` is why the
    event cannot be sent by itself: it is dropped for that reason unless it meets a copy that it completes, or waits for
    one. ``memories`` is what the event leaves for later ones, committed with it.
    """

    lane: Lane
    event: SealedEvent
    marks: tuple[Mark, ...] = ()
    subjects: tuple[bytes, ...] = ()
    hold_s: float = 0.0
    consent: Literal["denied", "granted"] | None = None
    refusal: str | None = None
    memories: tuple[Memorandum, ...] = ()


#: Merges a copy into the event it met: ``join(kept, copy, frozen)``; pure. ``frozen``: id, name and time may not change
#: any more.
Join = Callable[[SealedEvent, SealedEvent, bool], SealedEvent]


class Admission(Struct, frozen=True, kw_only=True):
    """
    What became of one unit; ``of`` is the event id of the one it met, ``ended`` the units that this admission ended.

    ``event`` is the joint event of a merged copy. ``missed`` names what a duplicate has and the event that was sent
    had not, as far as that is still known.
    """

    fate: Fate
    unit: str | None = None
    of: str | None = None
    reason: str | None = None
    ended: tuple[Settled, ...] = ()
    event: SealedEvent | None = None
    missed: tuple[str, ...] = ()


class Claimed(Struct, frozen=True, kw_only=True):
    """
    One leased unit.

    ``accepted_at`` (Unix s) is when its retry life began: acceptance, or its replay. ``attempts`` counts earlier
    attempts, ``maybe_twice`` says that an earlier one may have got through.
    """

    unit: str
    event: SealedEvent
    accepted_at: float = 0.0
    attempts: int = 0
    maybe_twice: bool = False


class Lease(Struct, frozen=True, kw_only=True):
    """Units that one sender holds until it settles them or ``deadline`` (Unix s) passes."""

    token: str
    lane: Lane
    units: tuple[Claimed, ...]
    deadline: float


class Settlement(Struct, frozen=True, kw_only=True):
    """
    What a sender says of one leased unit.

    ``retry`` puts it back, not to be claimed before ``due``; with ``ambiguous`` an earlier copy may have arrived.
    """

    unit: str
    end: Literal["delivered", "dead", "dropped", "retry"]
    reason: str | None = None
    due: float = 0.0
    ambiguous: bool = False
    warning: str | None = None


class DeadLetter(Struct, frozen=True, kw_only=True):
    """One unit that will not be sent again by itself; it can be replayed or discarded."""

    unit: str
    destination: str
    event: SealedEvent
    reason: str
    died_at: float
    attempts: int
    maybe_twice: bool = False


class DeadFilter(Struct, frozen=True, kw_only=True):
    """
    Which dead letters: by unit ids, or by everything else that is given; nothing given is all of them.

    ``reason`` is the whole reason, ``code`` what stands before its colon; ``until`` (Unix s): none that died later.
    """

    units: tuple[str, ...] = ()
    destination: str | None = None
    reason: str | None = None
    code: str | None = None
    until: float | None = None
    event_name: str | None = None
    source: str | None = None


class Replayed(Struct, frozen=True, kw_only=True):
    """How many dead letters were queued again, and which stayed because one of their keys was delivered since."""

    queued: int
    duplicates: tuple[str, ...] = ()


class KeptUnit(Struct, frozen=True, kw_only=True):
    """One event that waits or is dead; ``until`` (Unix s) is when a dead one is deleted."""

    destination: str
    event: SealedEvent
    accepted_at: float
    attempts: int = 0
    is_dead: bool = False
    reason: str | None = None
    until: float | None = None


class Kept(NamedTuple):
    """
    What is kept of a person: events, what is remembered, and until when (Unix s) events are refused after an erasure.
    """

    units: tuple[KeptUnit, ...] = ()
    memories: tuple[Remembered, ...] = ()
    erased_before: float | None = None


class Outbox(ABC):
    """Keeps accepted events safe until each has a fate. All methods are called on the event loop."""

    #: Where files that belong to the store are written.
    folder: Path
    #: Erasures in force: subject → the time (Unix s) before which its events are refused.
    erasures: Mapping[bytes, float]
    #: The times by which it delays and deletes.
    steady: Steady
    #: Called once, on any thread, when the store turned out to be damaged or a write or sync of it failed: from then on
    #: it takes nothing, and the process must end, so that the next one checks the file.
    on_failure: Callable[[], None] | None = None

    @property
    def failure(self) -> str | None:
        """Why the store cannot be used any more."""
        return None

    @property
    def trouble(self) -> str | None:
        """Why hits are refused while what was accepted goes on; None: they are taken."""
        return None

    @property
    def room(self) -> float:
        """
        Room on the disk above the mark below which hits are refused: 1.0 is plenty (a quarter of the mark more), 0.0
        none. Hits that matter less may be refused while it is below 1.0.
        """
        return 1.0

    @property
    def damaged(self) -> Sequence[str]:
        """Stores that were moved aside and neither salvaged nor acknowledged, in words."""
        return ()

    @abstractmethod
    def digest(self, *parts: str) -> bytes:
        """
        Hash key material under the store's own secret; the same parts give the same digest in every process that shares
        the store.
        """

    @abstractmethod
    async def admit(
        self, units: Sequence[Unit], join: Join | None = None, memories: Sequence[Memorandum] = ()
    ) -> list[Admission]:
        """
        Decide and commit the units of one request together; returns after the durable commit. ``memories`` are those
        of events that have no unit.

        A unit that meets a waiting or dead one by any mark is merged with it by ``join`` (without ``join``, or when it
        adds nothing, it is its duplicate); one that meets a delivered one is its duplicate; either way its marks from
        then on stand for the one it met.

        Raises:
            Unavailable: Nothing of the request was accepted.
        """

    @abstractmethod
    async def rehearse(self, units: Sequence[Unit], join: Join | None = None) -> list[Admission]:
        """Decide as :meth:`admit` does, and commit nothing."""

    @abstractmethod
    async def recall(self, digests: Sequence[bytes]) -> dict[bytes, Remembered]:
        """
        Return what is remembered under these keys.

        Raises:
            Unavailable: The store cannot be read.
        """

    @abstractmethod
    def may_remember(self, digest: bytes) -> bool:
        """Whether :meth:`recall` may find something under the key; cheap, and never False when it does."""

    @property
    @abstractmethod
    def has_room(self) -> bool:
        """Whether new keys are remembered: beyond the limit only known ones are, until some expired."""

    @abstractmethod
    async def claim(self, lane: Lane, limit: int, now: float) -> Lease | None:
        """
        Lease up to ``limit`` due units: those of the last hour first, then the others oldest first. None when none is
        due.
        """

    @abstractmethod
    async def settle(self, lease: Lease, settlements: Sequence[Settlement]) -> list[Settled]:
        """
        End or put back every unit of a lease, in one commit; units not named go back as they were.

        Returns the units that ended. A lease that was lost (deadline passed, claimed by another) settles nothing.
        """

    @abstractmethod
    def waiting(self, lane: Lane) -> int:
        """Return how many units wait in the lane, due or not, leased ones not counted; cheap."""

    @abstractmethod
    async def next_due(self, lane: Lane) -> float | None:
        """Return when the earliest waiting unit may be claimed (Unix s), None when none waits."""

    @abstractmethod
    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back on the event loop after a commit that may have given senders work; returns what ends that."""

    @abstractmethod
    async def erase(self, subjects: Sequence[bytes], *, requested_at: float) -> list[Settled]:
        """
        Erase the waiting, leased and dead units that any subject matches (a person's, or a whole site's), and what is
        remembered of them, and refuse older copies for 30 days.

        Leased units are erased too: an answer that says "retry" ends them. Deduplication marks stay.
        """

    @abstractmethod
    async def of_subjects(self, subjects: Sequence[bytes]) -> Kept:
        """
        Return everything that is kept of these subjects, and nothing of anybody else.

        Raises:
            Unavailable: The store cannot be read.
        """

    @abstractmethod
    async def dead(self, which: DeadFilter, *, limit: int = 100, after: str | None = None) -> list[DeadLetter]:
        """Return dead letters, oldest first, a page at a time."""

    @abstractmethod
    async def replay(self, which: DeadFilter) -> Replayed:
        """Queue dead letters again, with their own id and time; their own marks are ignored and renewed."""

    @abstractmethod
    async def discard(self, which: DeadFilter) -> int:
        """Delete dead letters and their marks."""

    @abstractmethod
    def count(self, cells: Cells) -> None:
        """Add to the roll-ups what has no commit of its own; cheap, written with the next commit or within a second."""

    @abstractmethod
    async def history(
        self, since: float, until: float, *, by: By = "hour", whats: Collection[str] = (),
        source: str | None = None, destination: str | None = None, event: str | None = None,
    ) -> list[Rolled]:  # fmt: skip
        """
        Return the roll-ups of the hours (with ``by="day"`` the UTC days) that overlap ``since`` to ``until`` (Unix s),
        in order of time. ``whats`` and the names choose; none is all. See :mod:`gateway.history`.

        Raises:
            Unavailable: The store cannot be read.
        """

    @abstractmethod
    async def counts(self) -> Counts:
        """Return what the store holds, by lane."""

    @abstractmethod
    async def ping(self) -> None:
        """
        Commit nothing, durably.

        Raises:
            Unavailable: The store cannot be written.
        """

    @abstractmethod
    async def backup(self, path: str) -> int:
        """Write a consistent copy to a new file; returns its bytes."""

    @abstractmethod
    async def salvage(self, path: Path, *, acknowledge: bool = False) -> Salvaged:
        """
        Put what can be read of a damaged store into this one; harmless twice. ``acknowledge``: only stop telling of it.

        Raises:
            StoreError: Nothing of it can be read.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish what was handed over, then release the store."""
