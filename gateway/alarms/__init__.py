"""
Alarms: what is wrong now, in words, with what to do about it.

:class:`Alarms` holds them, :mod:`gateway.alarms.watch` finds them, :mod:`gateway.alarms.webhook` tells of them. They
are kept in a small file beside the store, so that a restart neither forgets one nor tells of it again. No alarm holds
a payload, an identifier or a secret.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from gateway.alarms.journal import Alarm as Alarm
from gateway.alarms.journal import Journal, Told
from gateway.alarms.kinds import kind_of

#: What happened stays for so long when nobody acknowledges it.
LASTS_S = 7 * 86_400
#: So many of those are held; the oldest go first.
MOST_LASTING = 200
_LONGEST = 500


class Alarms:
    """
    The alarms of one gateway; all methods are called on the event loop.

    Args:
        clock: Wall time, Unix seconds.
        file: Where they are kept over a restart, None: nowhere.
    """

    def __init__(self, clock: Callable[[], float], file: Path | None = None) -> None:
        self._clock = clock
        self._file = file
        found = Journal.read(file) if file is not None else Journal()
        self._up = {one.id: one for one in found.alarms if kind_of(one.kind).lasts}
        #: States of before the restart: one that is found again goes on.
        self._earlier = {one.id: one for one in found.alarms if one.id not in self._up}
        #: What the receiver of ``[alerts]`` was told.
        self.told: dict[str, Told] = {one.alarm.id: one for one in found.told}
        #: Whether something has to be saved.
        self.is_changed = False
        self._listeners: list[Callable[[], None]] = []
        self._hints: list[Callable[[], None]] = []

    # -- looking

    def active(self) -> list[Alarm]:
        """Return the alarms that are up, newest first."""
        end = self._clock() - LASTS_S
        for old in [one for one in self._up.values() if one.since <= end and kind_of(one.kind).lasts]:
            self._drop(old.id)
        return sorted(self._up.values(), key=lambda one: (-one.since, one.id))

    # -- raising and clearing

    def raise_(self, kind: str, where: str = "-", detail: str = "", remedy: str | None = None) -> Alarm:
        """
        Raise an alarm, or bring the words of one that is up to date.

        Args:
            where: What it is about: a source, destination, plugin or connection, "-" for the gateway.
            remedy: What to do, instead of what the kind says.
        """
        about = kind_of(kind)
        detail = detail[:_LONGEST]
        name = _id_of(kind, where, detail if about.lasts else "")
        known = self._up.get(name) or self._earlier.pop(name, None)
        alarm = Alarm(
            id=name, kind=kind, title=about.title, where=where, since=known.since if known else self._clock(),
            detail=detail, remedy=about.remedy if remedy is None else remedy,
            acknowledged=known is not None and known.acknowledged,
        )  # fmt: skip
        is_new = name not in self._up
        self._up[name] = alarm
        if is_new:
            self._bound()
            self._change()
        return alarm

    def clear(self, kind: str, where: str = "-") -> None:
        """End an alarm; harmless when it is not up."""
        for one in [one for one in self._up.values() if one.kind == kind and one.where == where]:
            self._drop(one.id)

    def settle(self, kind: str, found: Mapping[str, str]) -> None:
        """Raise a kind where it was found, with its detail, and clear it everywhere else."""
        for where, detail in found.items():
            self.raise_(kind, where, detail)
        for one in [one for one in self._up.values() if one.kind == kind and one.where not in found]:
            self._drop(one.id)

    def heard(self, reason: str, message: str, where: str) -> None:
        """Take what a part of the gateway or a plugin reports: raised if it lasts, otherwise looked at soon."""
        if kind_of(reason).lasts:
            self.raise_(reason, where, message)
        else:
            self.hint()

    def acknowledge(self, name: str) -> bool:
        """
        Take note of an alarm by its id; returns whether it is up.

        What happened goes; a state stays until it is over, but nobody is told of it again.
        """
        found = self._up.get(name)
        if found is None:
            return False
        if kind_of(found.kind).lasts:
            self._drop(name)
        elif not found.acknowledged:
            self._up[name] = found.noted()
            self._change()
        return True

    def looked(self) -> None:
        """Forget the states of before the restart: by now each was looked for."""
        self._earlier.clear()

    # -- who wants to know

    def subscribe(self, changed: Callable[[], None], hinted: Callable[[], None]) -> None:
        """Call ``changed`` when an alarm came or went, ``hinted`` when it is time to look."""
        self._listeners.append(changed)
        self._hints.append(hinted)

    def hint(self) -> None:
        """Have the states looked at soon."""
        for hinted in self._hints:
            hinted()

    def journal(self) -> bytes | None:
        """Return what is to be saved, None when nothing changed or there is no file."""
        if not self.is_changed or self._file is None:
            return None
        self.is_changed = False
        kept = (*self._up.values(), *self._earlier.values())
        return Journal(alarms=kept, told=tuple(self.told.values())).encoded()

    def write(self, content: bytes) -> None:
        """Write the file, on any thread; a disk that takes none is said in the log."""
        if self._file is not None:
            Journal.write(self._file, content)

    def _drop(self, name: str) -> None:
        if self._up.pop(name, None) is not None:
            self._change()

    def _bound(self) -> None:
        lasting = sorted((one for one in self._up.values() if kind_of(one.kind).lasts), key=lambda one: one.since)
        for one in lasting[:-MOST_LASTING]:
            del self._up[one.id]

    def _change(self) -> None:
        self.is_changed = True
        for changed in self._listeners:
            changed()


def _id_of(kind: str, where: str, detail: str) -> str:
    """Return the id: two things that happened at one place are two alarms."""
    mark = f":{hashlib.sha256(detail.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}" if detail else ""
    return f"{kind}:{where}{mark}"
