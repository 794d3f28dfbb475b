"""The page *Live events*: the latest events, a stream of new ones, and the steps of one."""

import time
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.event import STANDARD_NAMES
from gateway.livestream import MOST_ROWS, SHOWN, Choice, EventStream, Row, row
from gateway.operator.events import serial_of
from gateway.operator.pages.framework import Pages
from gateway.operator.pages.stages import payload_text, stages_of
from gateway.recent import Entry
from gateway.steps import steps_of

#: Shown before a stream adds to them.
FIRST = 100
#: What is kept in memory: :class:`gateway.recent.Recent`.
KEPT = 10_000
_MOST_NAME = 120
_BLANK = Row(
    serial=0, at=0.0, time="", clock="", source="", event_name="", event_id="", destination="", fate="", shown="",
    kind="neutral", reason="", of="", warning="", note="", is_test=False, ended_at=0.0,
)  # fmt: skip


class Live:
    """The handlers."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._gateway = pages.gateway

    async def show(self, request: Request) -> Response:
        """Show the latest events."""
        choice = choice_of(request)
        query = urlencode({key: value for key, value in msgspec.structs.asdict(choice).items() if value})
        last = self._gateway.recent.last
        stream = urlencode({**msgspec.structs.asdict(choice), "after": last})
        return await self._pages.render(
            request,
            "live.html",
            rows=self._gateway.live.rows(choice, limit=FIRST),
            blank=_BLANK,
            choice=choice,
            is_filtered=bool(query),
            address=f"/live?{query}" if query else "/live",
            stream=f"/live/stream?{stream}",
            last=last,
            most=MOST_ROWS,
            kept=KEPT,
            sources=_with(sorted(self._gateway.parts.routes), choice.source),
            names=_with(sorted(STANDARD_NAMES), choice.name),
            fates=list(SHOWN),
        )

    async def stream(self, request: Request) -> Response:
        """Stream new rows and changed ones."""
        after = request.headers.get("last-event-id", "") or request.query_params.get("after", "")
        return EventStream(self._gateway.live, choice_of(request), after=serial_of(after))

    async def one(self, request: Request) -> Response:
        """Show the steps of one event."""
        given = request.path_params["serial"]
        serial = int(given) if given.isascii() and given.isdigit() and len(given) <= 18 else 0
        entry = self._gateway.recent.get(serial)
        if entry is None:
            remedy = f"It is not in memory any more: the latest {KEPT:,} outcomes since the start are kept."
            return await self._pages.problem(request, 404, "There is no such event", remedy)
        return await self._pages.render(
            request,
            "live_event.html",
            one=row(entry),
            found=stages_of(steps_of(entry)),
            answer=answer_of(entry),
            sent=self._sent(entry),
            letter=f"/deliveries/dead/{entry.unit}" if entry.end == "dead" and entry.unit else "",
        )

    def _sent(self, entry: Entry) -> list[tuple[str, str]]:
        """Return what is or was sent; of a copy nothing is."""
        destination = self._gateway.parts.destinations.get(entry.destination or "")
        if destination is None or entry.event is None or entry.fate not in ("accepted", "merged"):
            return []
        return [(destination.name, payload_text(msgspec.to_builtins(destination.encode(entry.event))))]


def answer_of(entry: Entry) -> str:
    """Return in words what the destination answered."""
    when = time.strftime("%H:%M:%S UTC", time.gmtime(entry.ended_at)) if entry.ended_at is not None else ""
    if entry.end == "delivered":
        return f"taken at {when}"
    if entry.end == "dead":
        return f"none, or a refusal; given up at {when}"
    if entry.end is not None:
        return "it was not sent"
    return "not yet: it waits" if entry.fate in ("accepted", "merged") else "it is not sent"


def choice_of(request: Request) -> Choice:
    """Return which rows the address asks for."""
    given = {key: request.query_params.get(key, "")[:_MOST_NAME] for key in ("source", "name", "fate")}
    return Choice(**given)


def _with(known: list[str], chosen: str) -> list[str]:
    return known if not chosen or chosen in known else [*known, chosen]


def routes(pages: Pages) -> list[Route]:
    """Return the page's routes."""
    live = Live(pages)
    return [
        pages.route("/live", live.show),
        pages.route("/live/stream", live.stream),
        pages.route("/live/{serial}", live.one),
    ]
