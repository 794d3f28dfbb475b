"""
Time that does not jump: for delays, windows and expiry, where the wall clock can be set at any moment.

Three clocks:

* wall time (``time.time``): what events and people mean. It may be set forward, back, or stand.
* the store's time (:meth:`Steady.now`): starts as wall time and then advances as the machine's uptime does. What was
  written with it is compared with it alone (due times, leases, windows), so where it starts does not matter. It is
  kept with the store: a restart on the same boot goes on exactly, after a reboot it advances by what wall time did.
* the judging time (:meth:`Steady.guarded`): wall time, but not ahead of the store's time, until wall time has been
  ahead for :data:`BELIEVED_S`. By it things are deleted and called too old: a clock that is set forward by mistake
  deletes nothing early.
"""

import time
from collections.abc import Callable
from pathlib import Path

from gateway.event import Struct

Seconds = Callable[[], float]
#: A clock that was set forward is believed after so long: the window in which event ids are duplicates.
BELIEVED_S = 172_800.0
#: Less than this is drift, not a jump.
_DRIFT_S = 60.0


class Anchor(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    Wall time, uptime and the store's time of one moment, in seconds.

    ``boot`` names the boot that ``uptime`` counts from. ``lead`` is by how much wall time was ahead of the store's
    time, ``since`` the store's time at which it became so.
    """

    wall: float
    uptime: float
    store: float
    boot: str
    lead: float = 0.0
    since: float = 0.0


def uptime() -> float:
    """Return seconds since boot, those asleep included where the system counts them."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def boot_id() -> str:
    """Return what names this boot of the machine, empty where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Steady:
    """
    The store's time and the judging time.

    Args:
        wall: Wall time, Unix seconds.
        up: Uptime in seconds. None: the machine's, or ``wall`` itself where a test gave a clock of its own.
        boot: Names the boot; None: the machine's.
    """

    def __init__(self, wall: Seconds = time.time, up: Seconds | None = None, boot: str | None = None) -> None:
        self._wall = wall
        is_real = wall is time.time
        self._up: Seconds = up or (uptime if is_real else wall)
        self._boot = boot if boot is not None else boot_id() if is_real else "test"
        self._anchor = Anchor(wall=wall(), uptime=self._up(), store=wall(), boot=self._boot)

    def resume(self, saved: Anchor) -> None:
        """Go on from an anchor that was kept: exactly on the same boot, else by what wall time says."""
        wall, up = self._wall(), self._up()
        if saved.boot and saved.boot == self._boot and up >= saved.uptime:
            store = saved.store + up - saved.uptime
        else:
            store = saved.store + max(0.0, wall - saved.wall)
        lead, since = saved.lead, saved.since
        self._anchor = Anchor(wall=wall, uptime=up, store=store, boot=self._boot, lead=lead, since=since)

    def now(self) -> float:
        """Return the store's time, in seconds near Unix time."""
        anchor = self._anchor
        return anchor.store + max(0.0, self._up() - anchor.uptime)

    def guarded(self) -> float:
        """Return the judging time, Unix seconds."""
        store, wall = self.now(), self._wall()
        if wall <= store:
            return wall
        anchor = self._anchor
        is_believed = abs(wall - store - anchor.lead) <= _DRIFT_S and store - anchor.since >= BELIEVED_S
        return wall if is_believed else store

    def anchor(self) -> Anchor:
        """Return this moment, to be kept; note when wall time became ahead. Call it every minute or so."""
        wall, up, store = self._wall(), self._up(), self.now()
        lead, since = self._anchor.lead, self._anchor.since
        if abs(max(0.0, wall - store) - lead) > _DRIFT_S:
            lead, since = max(0.0, wall - store), store
        self._anchor = Anchor(wall=wall, uptime=up, store=store, boot=self._boot, lead=lead, since=since)
        return self._anchor
