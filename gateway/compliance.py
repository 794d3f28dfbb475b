"""
Compliance: what a source's message asks for a person or a site, an erasure or an export.

Such work is done to its end, also when the hit that asked for it had to be answered 503 meanwhile: it may take longer
than a hit may.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from gateway.event import Erasure
from gateway.exports import export
from gateway.hit import Source
from gateway.memory import Memory
from gateway.outbox import Outbox
from gateway.outcome import Settled
from gateway.subjects import person_of, site_subjects

#: So many requests that were carried out are remembered.
_REMEMBERED = 1_000


class Compliance:
    """
    Carries out requests.

    Args:
        outbox: Where events are. ``memory`` is what is remembered beside them.
        clock: Wall time, Unix seconds.
        alarm: Called with (reason, message, source) for what an operator must hear.
        settled: Called with each unit that was erased.
        erased: Called with the subjects of each erasure, once the outbox has none of them.
    """

    def __init__(
        self,
        outbox: Outbox,
        memory: Memory,
        clock: Callable[[], float],
        alarm: Callable[[str, str, str], None],
        settled: Callable[[Settled], None],
        erased: Callable[[Sequence[bytes]], None],
    ) -> None:
        self._outbox = outbox
        self._memory = memory
        self._clock = clock
        self._alarm = alarm
        self._settled = settled
        self._erased = erased
        self._known: dict[bytes, asyncio.Task[None]] = {}

    async def carry_out(self, source: Source, request: Erasure, received_at: float) -> None:
        """
        Return when it is done; a repeated request waits for the same work, or finds that it is done.

        One without a time of its own is not known again once it is done: it may be a new one.
        """
        key = self._outbox.digest("errand", source.name, str(msgspec.json.encode(request)))
        task = self._known.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._do(source, request, received_at))
            self._known[key] = task
            self._forget_oldest()

            def done(task: asyncio.Task[None]) -> None:
                # asking for the exception says that it was seen: perhaps nobody waits any longer
                failed = task.cancelled() or task.exception() is not None
                if (failed or request.requested_at is None) and self._known.get(key) is task:
                    del self._known[key]

            task.add_done_callback(done)
        await asyncio.shield(task)

    def _forget_oldest(self) -> None:
        if len(self._known) > _REMEMBERED:
            oldest = next((key for key, task in self._known.items() if task.done()), None)
            if oldest is not None:
                del self._known[oldest]

    async def _do(self, source: Source, request: Erasure, received_at: float) -> None:
        digest = self._outbox.digest
        if request.scope == "site":
            subjects = site_subjects(digest, source.site)
        else:
            person = person_of(digest, source.site, request.user, source.default_country, request.customer_id)
            subjects = person.all
        if request.scope == "export":
            await self._export(source, subjects)
        elif subjects:
            for ended in await self._memory.erase(subjects, requested_at=request.requested_at or received_at):
                self._settled(ended)
            self._erased(subjects)

    async def _export(self, source: Source, subjects: Sequence[bytes]) -> None:
        if subjects:
            written = await export(self._outbox, subjects, self._clock())
            what = f"what is kept is in {written.path} ({written.events} events, {written.memories} remembered)"
        else:
            what = "the request names no e-mail address, phone number or id, so nothing could be looked up"
        self._alarm("data_request", f"A customer asks for their data: {what}.", source.name)
