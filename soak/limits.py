"""What a run does not show, and why: it stands in every report."""

from typing import Final

from gateway.event import Struct


class NotTested(Struct, frozen=True, kw_only=True):
    """One thing that the figures do not speak of."""

    what: str
    why: str


NOT_TESTED: Final = (
    NotTested(
        what="Loss of power, or a disk that lies about fsync",
        why="kill -9 leaves what the system has in memory. That a sync precedes each acknowledged write is tested by"
        " strace (tests/test_sync.py); a file system that forgets unsynced pages (LazyFS) needs FUSE and privileges.",
    ),
    NotTested(
        what="Several gateways on one store", why="There is no distributed store yet: one process holds the file."
    ),
    NotTested(
        what="Redis or another shared store", why="It is not built; nothing here can be carried over to it."
    ),
    NotTested(
        what="The real Pinterest and the real Klaviyo",
        why="The vendor is a local stand-in made after their published descriptions. What they do beyond these,"
        " their limits and their own deduplication are not seen.",
    ),
    NotTested(
        what="Several machines and a real network",
        why="All is on loopback: no packet loss, no slow links, no proxy in between, no TLS.",
    ),
    NotTested(
        what="Runs of hours or days",
        why="Half an hour cannot show a leak below some MB an hour, nor what happens at the 48 h and 30 day windows;"
        " the run shortens the windows to 15 minutes, tests with a frozen clock look at their edges.",
    ),
    NotTested(
        what="Full disks, locked or damaged files, clock jumps",
        why="They are tested one by one (tests/test_disk.py, test_locked.py, test_damage.py, test_clock.py),"
        " not mixed with kills here.",
    ),
    NotTested(
        what="More load than the machine takes",
        why="Clients, vendor and gateway share its cores, so that clients slow down with the gateway;"
        " overload is tested by itself (tests/test_overload.py).",
    ),
    NotTested(
        what="Strangers' plugins", why="Only the adapters of this repository run; see tests/test_plugins_at_fault.py."
    ),
    NotTested(what="Audiences", why="No list is synced during the run; their tests have kills of their own."),
    NotTested(
        what="Other systems than Linux", why="Memory and descriptors are read from /proc; the run was on one machine."
    ),
)  # fmt: skip
