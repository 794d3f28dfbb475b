"""``/api/events``: the last events, and a stream of new ones."""

from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.livestream import MOST_ROWS, Choice, EventStream
from gateway.runtime import Gateway

Handler = Callable[[Request], Awaitable[Response]]
_MOST_DIGITS = 18


class EventsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which events: of a source, a name, a fate or end; ``after``: with a serial over this one."""

    source: str = ""
    name: str = ""
    fate: str = ""
    after: str = ""
    limit: str = "100"

    @property
    def choice(self) -> Choice:
        """What rows are chosen by."""
        return Choice(source=self.source, name=self.name, fate=self.fate)


def serial_of(text: str) -> int | None:
    """
    Return a serial, None for an empty text.

    Raises:
        ValueError: It is no whole number.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise ValueError("after must be a serial of an earlier answer.")
    return int(text)


def event_routes(gateway: Gateway, guarded: Callable[[Handler], Handler]) -> list[Route]:
    """Return the routes; ``guarded`` turns errors into answers."""

    async def show(request: Request) -> Response:
        query = msgspec.convert(dict(request.query_params), EventsQuery)
        limit = query.limit
        if not (limit.isascii() and limit.isdigit() and len(limit) < 6 and 1 <= int(limit) <= MOST_ROWS):
            raise ValueError(f"limit must be a whole number from 1 to {MOST_ROWS}.")
        rows = gateway.live.rows(query.choice, after=serial_of(query.after) or 0, limit=int(limit))
        content = msgspec.json.encode({"events": rows, "last": gateway.recent.last, "now": gateway.clock()})
        return Response(content, 200, {"Cache-Control": "no-store"}, "application/json")

    async def stream(request: Request) -> Response:
        query = msgspec.convert(dict(request.query_params), EventsQuery)
        after = serial_of(request.headers.get("last-event-id", "") or query.after)
        return EventStream(gateway.live, query.choice, after=after)

    return [
        Route("/api/events", guarded(show), methods=["GET"]),
        Route("/api/events/stream", guarded(stream), methods=["GET"]),
    ]
