"""
One captured request sent as a test: the destination judges its events, and nobody keeps anything of it.

The batch goes to the destination at once and past the outbox: it leaves no mark, no memory and no count, and what the
destination says is there to be shown. A live lane is not touched by the answer.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from gateway.event import SealedEvent, Struct
from gateway.hit import Hit
from gateway.interfaces import Batch, Delivered, Destination, Paused, Refused, Retry, Unclear, Verdict
from gateway.isolation import Guard
from gateway.pipeline import Pipeline, Route

#: Events of one request that are sent as a test.
MOST_EVENTS = 20
_LIMIT_S = 30.0


#: ``taken``, ``refused``, ``later`` (it may pass), ``unclear`` (the call was refused without saying why this event),
#: ``paused`` (the account's credentials do not work).
Judgement = Literal["taken", "refused", "later", "unclear", "paused"]
_JUDGEMENTS: dict[type, Judgement] = {Refused: "refused", Retry: "later", Unclear: "unclear", Paused: "paused"}


class Tried(Struct, frozen=True, kw_only=True):
    """What a destination answered to one event that was sent as a test; ``words`` are its own."""

    destination: str
    event_id: str
    event_name: str
    result: Judgement
    words: str = ""


class Left(Struct, frozen=True, kw_only=True):
    """An event that is not sent, and why: ``no_identity``, ``consent``, ``bot``."""

    event_name: str
    event_id: str | None
    destination: str | None
    reason: str


class Result(Struct, frozen=True, kw_only=True):
    """Answers by event, what was not sent, and how many events were too many for one test."""

    tried: tuple[Tried, ...] = ()
    left: tuple[Left, ...] = ()
    beyond: int = 0


class Trials:
    """
    Sends tests, one at a time.

    Args:
        guard: Isolates the destinations. ``pipeline`` returns the current one.
    """

    def __init__(self, guard: Guard, pipeline: Callable[[], Pipeline]) -> None:
        self._guard = guard
        self._pipeline = pipeline
        self._one_at_a_time = asyncio.Lock()

    async def run(self, route: Route, hit: Hit, *, verify: bool) -> Result:
        """
        Send the events of a hit as a test.

        Raises:
            Rejected: The hit cannot be read, or is not authentic and ``verify`` asks for it.
            Unavailable: A plugin failed.
        """
        async with self._one_at_a_time:
            # with a trace nothing is judged, remembered or carried out
            drafts = await self._pipeline().prepare(route, hit, lambda _name, _detail: None, verify=verify)
            ready: dict[str, list[SealedEvent]] = {}
            left: list[Left] = []
            for draft in drafts:
                for event_id, unit, _notes in draft.units:
                    where = unit.lane.destination
                    reason = "consent" if unit.consent == "denied" else unit.refusal
                    if reason is None:
                        ready.setdefault(where, []).append(msgspec.structs.replace(unit.event, test=True))
                    else:
                        name = unit.event.event_name
                        left.append(Left(event_name=name, event_id=event_id, destination=where, reason=reason))
                left += [
                    Left(
                        event_name=one.event_name, event_id=one.event_id, destination=one.destination,
                        reason=one.reason or one.fate,
                    )
                    for one in draft.outcomes
                ]  # fmt: skip
            return await self._send(route, ready, tuple(left))

    async def _send(self, route: Route, ready: dict[str, list[SealedEvent]], left: tuple[Left, ...]) -> Result:
        tried: list[Tried] = []
        beyond = 0
        for destination in route.destinations:
            events = ready.get(destination.name, [])
            beyond += max(0, len(events) - MOST_EVENTS)
            for is_offline in (False, True):
                part = tuple([one for one in events[:MOST_EVENTS] if one.is_offline is is_offline])
                if part:
                    tried += await self._call(destination, Batch(events=part, test=True, offline=is_offline))
        return Result(tried=tuple(tried), left=left, beyond=beyond)

    async def _call(self, destination: Destination, batch: Batch) -> list[Tried]:
        verdict = await self._guard.sent(destination, batch, _LIMIT_S)
        return [tried(destination.name, event, verdict, index) for index, event in enumerate(batch.events)]


def tried(destination: str, event: SealedEvent, verdict: Verdict, index: int) -> Tried:
    """Return what a verdict says of one event of its batch."""
    one = verdict[index] if isinstance(verdict, Sequence) else verdict
    result = _JUDGEMENTS.get(type(one), "taken")
    words = (one.warning or "") if isinstance(one, Delivered) else one.reason
    return Tried(
        destination=destination, event_id=event.event_id, event_name=event.event_name, result=result, words=words
    )
