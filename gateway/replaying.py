"""Between the pipeline and the quarantine: what is kept, what is read again, and what an erasure takes away."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec

from gateway.errors import PluginFailed, Rejected, Unavailable, Unreadable
from gateway.event import Event, Struct
from gateway.hit import Hit
from gateway.outcome import FATES
from gateway.pipeline import Pipeline, Reply, Route
from gateway.quarantine import Quarantine
from gateway.subjects import Digest, person_of, site_subjects
from gateway.vault import Content

Routes = Callable[[], Mapping[str, Route]]


class Replayed(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    What came of one replay.

    ``what``: ``replayed`` (and gone from the quarantine, with ``counts`` of its events by fate), or why it stays:
    ``failed`` (still not readable, or the gateway cannot take it now), ``refused`` (answered 4xx), ``damaged``,
    ``another_key``, ``unknown_source``; ``gone``: somebody else ended it. ``error`` is a short code or a type's name.
    """

    id: str
    source: str
    what: str
    error: str = ""
    where: str = ""
    counts: dict[str, int] = msgspec.field(default_factory=dict)


async def take(pipeline: Pipeline, quarantine: Quarantine | None, route: Route, hit: Hit) -> Reply:
    """
    Take one hit in; one that cannot be read is kept, and its reply says so.

    Raises:
        Rejected: See :meth:`Pipeline.handle`.
        Unavailable: Nothing was accepted and nothing is kept.
    """
    if quarantine is None:
        return await pipeline.handle(route, hit)
    try:
        reply = await pipeline.handle(route, hit)
    except Unreadable as failure:
        await quarantine.keep(hit, failure)
        return Reply(quarantined=True)
    quarantine.succeeded(route.adapter.name)
    return reply


class Replays:
    """Reads quarantined hits again; ``routes`` and ``pipeline`` return the current ones."""

    def __init__(
        self, quarantine: Quarantine, routes: Routes, pipeline: Callable[[], Pipeline], digest: Digest
    ) -> None:
        self._quarantine = quarantine
        self._routes = routes
        self._pipeline = pipeline
        self._digest = digest
        self._one_at_a_time = asyncio.Lock()
        self._tasks: set[asyncio.Task[int]] = set()

    async def replay(self, name: str) -> Replayed:
        """
        Take one hit in as it came then, its proof left out: it was given before the hit was kept.

        A crash between the commit and the end of the file is harmless: the ids of the second time are the first's.
        """
        async with self._one_at_a_time:
            found = self._quarantine.listing(ids=(name,))
            if not found:
                return Replayed(id=name, source="", what="gone")
            source = found[0].source
            route = self._routes().get(source)
            content = await self._quarantine.open(name) if route is not None else None
            if route is None or content is None:
                left = self._quarantine.listing(ids=(name,))
                state = left[0].state if left else "gone"
                unknown = route is None and state in ("kept", "refused")
                return Replayed(id=name, source=source, what="unknown_source" if unknown else state)
            return await self._take(route, name, found[0].received_at, content)

    async def _take(self, route: Route, name: str, received_at: float, content: Content) -> Replayed:
        source = route.source.name
        try:
            reply = await self._pipeline().handle(route, _hit(route, content, received_at), replay=name)
        except PluginFailed as error:
            await self._quarantine.renew(name, content, error=error.error, where=error.where, refused=False)
            return Replayed(id=name, source=source, what="failed", error=error.error, where=error.where)
        except Rejected as error:
            await self._quarantine.renew(name, content, error=error.reason, where="", refused=True)
            return Replayed(id=name, source=source, what="refused", error=error.reason)
        except Unavailable as error:
            return Replayed(id=name, source=source, what="failed", error=error.reason)
        if reply.is_refused:
            reason = reply.items[0][0].reason or "rejected"
            await self._quarantine.renew(name, content, error=reason, where="", refused=True)
            return Replayed(id=name, source=source, what="refused", error=reason)
        await self._quarantine.remove((name,), "replayed")
        self._quarantine.succeeded(route.adapter.name)
        counts: dict[str, int] = {fate: reply.count(fate) for fate in FATES if reply.count(fate)}
        return Replayed(id=name, source=source, what="replayed", counts=counts)

    # -- erasure

    def erased(self, subjects: Sequence[bytes]) -> None:
        """Begin :meth:`erase`; :meth:`close` waits for it."""
        if self._quarantine.counts():
            task = asyncio.create_task(self.erase(subjects))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def erase(self, subjects: Sequence[bytes]) -> int:
        """
        Delete the hits that tell of nobody but the erased, as far as they can be read by now; returns how many.

        The others go with their time; what is replayed of them is dropped as ``erased``. A stranger's adapter is not
        asked: it may hang on each of them.
        """
        wanted, gone = set(subjects), []
        for kept in self._quarantine.listing():
            route = self._routes().get(kept.source)
            if route is None:
                continue
            if wanted.issuperset(site_subjects(self._digest, route.source.site)):
                gone.append(kept.id)
            elif route.inline and (content := await self._quarantine.open(kept.id)) is not None:
                hit = _hit(route, content, kept.received_at)
                if self._tells_only_of(wanted, route, hit):
                    gone.append(kept.id)
        return await self._quarantine.remove(gone, "erased")

    def _tells_only_of(self, wanted: set[bytes], route: Route, hit: Hit) -> bool:
        source, items = route.source, self._pipeline().peek(route, hit)
        people = [
            person_of(self._digest, source.site, item.user, source.default_country).all
            for item in items
            if isinstance(item, Event)
        ]
        return bool(items) and len(people) == len(items) and all(not wanted.isdisjoint(one) for one in people)

    async def close(self) -> None:
        """Finish what erasures began."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _hit(route: Route, content: Content, received_at: float) -> Hit:
    return Hit(
        source=route.source, method=content.method, tail=content.tail, query=content.query, headers=content.headers,
        body=content.body, peer=content.peer, received_at=received_at,
    )  # fmt: skip
