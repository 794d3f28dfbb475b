"""Long lists of a source or sink for choosing from: read once, kept for a minute, searched here, and what is taken."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from gateway.audience import AudienceError, Group
from gateway.audiences import Status
from gateway.audiences.jobs import Tell
from gateway.audiences.wiring import Mirror
from gateway.event import Struct

_LIFE_S = 60.0
#: The longest that a page waits for a vendor; the reading goes on, and the page comes again.
_WAIT_S = 5.0
_MOST = 25
_MOST_LISTS = 32


class Choice(Struct, frozen=True, kw_only=True):
    """Something to choose; ``taken``: why it cannot be, "" when it can."""

    group: Group
    taken: str = ""


class Choices(Struct, frozen=True, kw_only=True):
    """
    What a search found: the first :data:`_MOST` of ``found``, of ``total`` there are. ``is_reading``: the vendor has
    not answered yet; ``problem``: it answered that it cannot.
    """

    shown: tuple[Choice, ...] = ()
    found: int = 0
    total: int = 0
    is_reading: bool = False
    problem: str = ""


class Lists:
    """
    The lists of one gateway.

    Args:
        mirror: Whose jobs read them, so that they end with the gateway.
        ticks: Monotonic seconds.
    """

    def __init__(self, mirror: Mirror, ticks: Callable[[], float] = time.monotonic) -> None:
        self._mirror = mirror
        self._ticks = ticks
        self._jobs: dict[tuple[str, ...], tuple[str, float]] = {}

    def forget(self) -> None:
        """Read everything anew: something was changed."""
        self._jobs.clear()

    async def groups(self, source: str) -> tuple[Sequence[Group] | None, str]:
        """Return a source's lists and segments (None: still being read), and what is wrong."""
        one = self._mirror.plugged.sources[source]
        return await self._read(("groups", source), one.groups)

    async def audiences(self, sink: str, account: str) -> tuple[Sequence[Group] | None, str]:
        """Return an account's audiences, as :meth:`groups`."""
        one = self._mirror.plugged.sinks[sink]
        return await self._read(("audiences", sink, account), lambda: one.groups(account))

    async def accounts(self, sink: str) -> tuple[Sequence[Group] | None, str]:
        """Return a sink's accounts, as :meth:`groups`."""
        return await self._read(("accounts", sink), self._mirror.plugged.sinks[sink].accounts)

    async def probe(self, side: str, name: str) -> tuple[str | None, str]:
        """Return "" when the credentials of one of ``sources`` or ``sinks`` work (None: being asked), what is wrong."""
        one = getattr(self._mirror.plugged, side)[name]

        async def ask() -> str:
            problem = await one.probe()
            if problem is not None:
                raise AudienceError(problem)
            return ""

        found, problem = await self._read(("probe", side, name), ask)
        return found, problem

    async def _read(self, key: tuple[str, ...], make: Callable[[], Awaitable[Any]]) -> tuple[Any, str]:
        job, until = self._jobs.get(key, ("", 0.0))
        jobs = self._mirror.jobs
        if not job or self._ticks() >= until:
            job = jobs.start(_worked(make))
            self._keep(key, job)
        try:
            state = await jobs.look(job, _WAIT_S)
        except ValueError:  # so many other jobs came since that its end is gone
            job = jobs.start(_worked(make))
            self._keep(key, job)
            state = await jobs.look(job, _WAIT_S)
        if state.state == "failed":
            self._jobs.pop(key, None)
        return state.result, state.error

    def _keep(self, key: tuple[str, ...], job: str) -> None:
        if len(self._jobs) >= _MOST_LISTS:
            self._jobs.clear()
        self._jobs[key] = job, self._ticks() + _LIFE_S


def _worked(make: Callable[[], Awaitable[Any]]) -> Callable[[Tell], Awaitable[Any]]:
    async def work(_tell: Tell) -> Any:
        return await make()

    return work


def chosen_from(
    groups: Sequence[Group] | None, problem: str, search: str, taken: Callable[[Group], str], first: str = ""
) -> Choices:
    """
    Return what a search (without case, by name or id) found; the group with the id ``first`` stands at the top.

    Args:
        groups: None while they are read.
        taken: Says why a group cannot be chosen.
    """
    if problem or groups is None:
        return Choices(is_reading=not problem, problem=problem)
    wanted = search.strip().casefold()
    found = [one for one in groups if wanted in one.name.casefold() or wanted == one.id.casefold()]
    found.sort(key=lambda one: (one.id != first, one.name.casefold(), one.id))
    shown = [Choice(group=one, taken=taken(one)) for one in found[:_MOST]]
    return Choices(shown=tuple(shown), found=len(found), total=len(groups))


def source_taken(connections: Sequence[Status], source: str) -> Callable[[Group], str]:
    """Return what says why a list or segment of a source cannot be connected: one list feeds one audience."""
    by_group = {(one.kind, one.group): one for one in connections if one.source == source}

    def taken(group: Group) -> str:
        one = by_group.get((group.kind, group.id))
        if one is not None:
            return f'feeds the audience "{one.audience_name or one.audience}" already (connection {one.id})'
        return group.refusal

    return taken


def sink_taken(connections: Sequence[Status], sink: str, account: str) -> Callable[[Group], str]:
    """Return what says why an audience cannot be connected: one list feeds it; those with one feed count as one."""
    own = [one for one in connections if one.sink == sink and one.account == account]

    def taken(group: Group) -> str:
        for one in own:
            if one.audience == group.id or (group.feed and one.feed == group.feed):
                return f'is fed by the {one.kind or "list"} "{one.group_name}" already (connection {one.id})'
        return group.refusal

    return taken
