"""What the engine tells and is told: all of it may be shown, none of it holds an e-mail address or a hash."""

from collections.abc import Callable, Mapping
from typing import Literal

from gateway.event import Struct

#: new: never synced. running: a pass is under way. ok: in step. creating: the audience waits for the vendor.
#: waiting: a side asked to try later, a pass goes on by itself. held: a guard stopped removals until ``confirm`` (or
#: until a full pass finds all well). attention: an operator must mend something. leaving: being disconnected.
State = Literal["new", "running", "ok", "creating", "waiting", "held", "attention", "leaving"]
#: What a pass is doing.
Phase = Literal["scan", "quick", "compare", "create", "add", "remove", "forget"]
#: Called with what happened (``read``, ``added``, ``removed``, ``failed``, ``passes``, ``errors``, ``held``), the id
#: of the connection, and how many.
Meter = Callable[[str, int, int], None]


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    ``[audiences]`` of gateway.toml.

    ``quick_every_s``, ``full_every_s``: seconds from the end of a pass to the next of its kind. ``max_removal``: a pass
    that would remove a larger share (0 to 1) of what the audience holds from this connection stops and waits for
    ``confirm``; so does a scan that ends with less than 1 - ``max_missing`` of the members that the source counts.
    ``small``: so many removals or missing members never stop a pass. ``include_suppressed``: mirror suppressed and
    unsubscribed people, too. ``overlap_s``: a quick pass asks for who joined so long before the last one, for clocks
    that differ and members that show late. ``tries``: calls of a side before a pass is put off. ``max_wait_s``: the
    longest wait between two tries. ``parallel``: connections that are synced at the same time. ``commit_every``: so
    many members are read at most before they are committed with the cursor (after two seconds in any case).
    """

    quick_every_s: float = 300.0
    full_every_s: float = 86_400.0
    max_removal: float = 0.2
    max_missing: float = 0.05
    small: int = 5
    include_suppressed: bool = False
    overlap_s: float = 900.0
    tries: int = 5
    max_wait_s: float = 120.0
    parallel: int = 4
    commit_every: int = 5_000


class Progress(Struct, frozen=True, kw_only=True):
    """How far a pass is: ``done`` of ``total`` (None: not known) members or records of the phase."""

    connection: int
    phase: Phase
    done: int
    total: int | None = None


class Outcome(Struct, frozen=True, kw_only=True):
    """
    What one pass did.

    ``state`` and ``message`` are the connection's after it. ``read``: members told by the source. ``to_add`` and
    ``to_remove``: what remained to do when both sides were compared (in a dry run: all of it); ``added``, ``removed``,
    ``failed``: records that the sink took, and records of chunks that it did not. ``ended_at``: Unix s.
    """

    connection: int
    kind: Literal["full", "quick", "none"]
    state: State
    message: str = ""
    read: int = 0
    to_add: int = 0
    to_remove: int = 0
    added: int = 0
    removed: int = 0
    failed: int = 0
    dry_run: bool = False
    ended_at: float = 0.0
    duration_s: float = 0.0


class Status(Struct, frozen=True, kw_only=True):
    """
    One connection as it is now.

    ``members``: at the source, by its own count (None: it does not tell). ``mirrored``: members that are wanted in the
    audience; ``skipped``: the others, by reason. ``in_audience``: distinct e-mails that this connection keeps there.
    ``added``, ``removed``: since it was connected. ``audience`` and ``feed`` are "" until they are created.
    ``audience_state`` and ``audience_size`` are the sink's own words. ``last``: the last pass that ended. Times are
    Unix s, None for never.
    """

    id: int
    source: str
    kind: str
    group: str
    group_name: str
    sink: str
    account: str
    audience: str
    audience_name: str
    feed: str
    remove: bool
    state: State
    message: str = ""
    group_state: str = ""
    members: int | None = None
    mirrored: int = 0
    in_audience: int = 0
    added: int = 0
    removed: int = 0
    skipped: Mapping[str, int] = {}
    audience_state: str = ""
    audience_size: int | None = None
    connected_at: float = 0.0
    last_quick_at: float | None = None
    last_full_at: float | None = None
    next_at: float | None = None
    last: Outcome | None = None


class Connected(Struct, frozen=True, kw_only=True):
    """A new connection (of a dry run: one that would be made, with id 0), and what its owner must know."""

    status: Status
    notes: tuple[str, ...] = ()
    dry_run: bool = False
