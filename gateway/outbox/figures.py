"""What the store tells of itself."""

from typing import Literal

from gateway.event import Struct

#: Events of one destination that may share a call: live ones, offline ones (never deduplicated by vendors), test ones.
Kind = Literal["live", "offline", "test"]


class LaneCount(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """How full one lane is; ``oldest_at`` is the acceptance time of its oldest waiting unit."""

    destination: str
    kind: Kind
    waiting: int = 0
    leased: int = 0
    dead: int = 0
    maybe_twice: int = 0
    oldest_at: float | None = None


class Counts(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """What the store holds."""

    lanes: tuple[LaneCount, ...]
    file_bytes: int = 0
    wal_bytes: int = 0
    disk_free_bytes: int = 0


class Salvaged(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    What became of a damaged store: events ``read`` are ``queued``, ``dead``, ``duplicates`` or ``erased``.

    ``unreadable`` counts rows, and ranges of keys, that could not be read. ``is_comparable``: its keys and those of the
    current store are the same; without that no duplicate can be told.
    """

    read: int = 0
    queued: int = 0
    dead: int = 0
    duplicates: int = 0
    erased: int = 0
    unreadable: int = 0
    marks: int = 0
    erasures: int = 0
    memories: int = 0
    is_comparable: bool = True
