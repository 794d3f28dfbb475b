"""
``POST /api/import/{source}``: rows of a file as events of the browser tag's JSON, through the same pipeline as hits.

Whoever may call it is the operator: no secret or origin is asked for, and the address and browser that a row names
are believed, as those of a server source. Rows go in slices, a commit each, so that hits do not wait for a batch.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import Rejected, Unavailable
from gateway.event import Event, Normalized, Struct
from gateway.hit import Hit, Secret
from gateway.interfaces import Adapter
from gateway.outbox import Outbox
from gateway.outcome import FATES, Fate, Outcome
from gateway.pipeline import Reply, Route
from gateway.runtime import Gateway

ADAPTER = "browser_tag"
MAX_ROWS = 1_000
MAX_BYTES = 16 << 20
_SLICE = 100
_MAX_NOTES = 100


class Row(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One event. ``mark`` tells the row from every other: it becomes the id of an event that has no id and no key."""

    event: msgspec.Raw
    mark: str = ""


class ImportQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows to take in; ``dry_run`` commits nothing, and so cannot know duplicates."""

    rows: tuple[Row, ...]
    dry_run: bool = False


class NotTaken(Struct, frozen=True, kw_only=True):
    """A row that was dropped or rejected: its position in the batch, why, and for a rejected one what is wrong."""

    row: int
    fate: Fate
    reason: str
    message: str = ""


class ImportAnswer(Struct, frozen=True, kw_only=True):
    """
    The fate of each row, as far as they were decided: with ``retry_after_s`` the rest was not looked at.

    ``notes`` counts what was corrected or left out, by field.
    """

    fates: tuple[Fate, ...]
    not_taken: tuple[NotTaken, ...] = ()
    notes: dict[str, int] = msgspec.field(default_factory=dict)
    retry_after_s: int | None = None


class Trusted(Adapter):
    """The browser tag for rows that the operator hands in."""

    name: ClassVar[str] = ADAPTER

    def __init__(self, inner: Adapter, marks: Sequence[str], outbox: Outbox) -> None:
        self._inner = inner
        self._marks = marks
        self._outbox = outbox

    def verify(self, hit: Hit) -> None:
        """Ask for nothing: the operator's listener has asked."""

    def normalize(self, hit: Hit) -> list[Normalized]:
        """Return the events; one without id and key gets an id from its row, the same whenever it is sent."""
        items = self._inner.normalize(hit)
        return [self._identified(item, mark) for item, mark in zip(items, self._marks, strict=True)]

    def _identified(self, item: Normalized, mark: str) -> Normalized:
        if not mark or not isinstance(item, Event) or item.id is not None or item.keys:
            return item
        return msgspec.structs.replace(item, id=f"import-{self._outbox.digest('import', mark).hex()[:32]}")


class Importer:
    """Takes the rows of one batch in."""

    def __init__(self, gateway: Gateway, route: Route, *, dry_run: bool) -> None:
        self._gateway = gateway
        source = route.source
        if not source.is_server:
            source = msgspec.structs.replace(source, secrets=(Secret(value="operator"),), allowed_origins=())
        self._route = msgspec.structs.replace(route, source=source)
        self._dry_run = dry_run
        self._fates: list[Fate] = []
        self._not_taken: list[NotTaken] = []
        self._notes: dict[str, int] = {}

    async def take(self, rows: Sequence[Row]) -> ImportAnswer:
        """
        Take rows in, in order; returns after what was accepted is committed.

        Raises:
            Unavailable: None of them could be taken now.
        """
        retry_after_s = None
        try:
            for start in range(0, len(rows), _SLICE):
                await self._slice(rows[start : start + _SLICE])
                await asyncio.sleep(0)
        except Unavailable as error:
            if not self._fates:
                raise
            retry_after_s = error.retry_after_s
        return ImportAnswer(
            fates=tuple(self._fates), not_taken=tuple(self._not_taken), notes=self._notes, retry_after_s=retry_after_s
        )

    async def _slice(self, rows: Sequence[Row]) -> None:
        hit = Hit(
            source=self._route.source,
            body=b"[" + b",".join([bytes(row.event) for row in rows]) + b"]",
            received_at=self._gateway.clock(),
        )
        adapter = Trusted(self._route.adapter, [row.mark for row in rows], self._gateway.outbox)
        route = msgspec.structs.replace(self._route, adapter=adapter)
        pipeline = self._gateway.pipeline
        try:
            reply = await (self._rehearse(route, hit) if self._dry_run else pipeline.handle(route, hit))
        except Rejected as error:
            if len(rows) > 1:  # one row alone is at fault
                for row in rows:
                    await self._slice([row])
                return
            self._refuse(error.reason, error.message)
            return
        for outcomes, fate, message in zip(reply.items, reply.fates, reply.messages, strict=True):
            self._row(outcomes, fate, message)

    async def _rehearse(self, route: Route, hit: Hit) -> Reply:
        """Do everything short of admission."""
        drafts = await self._gateway.pipeline.prepare(route, hit, lambda _name, _detail: None)
        for draft in drafts:
            for event_id, unit, notes in draft.units:
                reason = "consent" if unit.consent == "denied" else unit.refusal
                draft.outcomes.append(
                    Outcome(
                        fate="accepted" if reason is None else "dropped", event_id=event_id, reason=reason, notes=notes
                    )
                )
        return Reply(
            items=tuple([tuple(draft.outcomes) for draft in drafts]),
            fates=tuple([min((one.fate for one in draft.outcomes), key=FATES.index) for draft in drafts]),
            messages=tuple([draft.message for draft in drafts]),
        )

    def _row(self, outcomes: Sequence[Outcome], fate: Fate, message: str) -> None:
        best = next(outcome for outcome in outcomes if outcome.fate == fate)
        if fate in ("dropped", "rejected"):
            self._not_taken.append(NotTaken(row=len(self._fates), fate=fate, reason=best.reason or "", message=message))
        self._fates.append(fate)
        for note in best.notes:
            if note in self._notes or len(self._notes) < _MAX_NOTES:
                self._notes[note] = self._notes.get(note, 0) + 1

    def _refuse(self, reason: str, message: str) -> None:
        self._not_taken.append(NotTaken(row=len(self._fates), fate="rejected", reason=reason, message=message))
        self._fates.append("rejected")


def wrong_adapter(source: str, adapter: str) -> str:
    """Say that a source cannot be imported for, and what to do."""
    return (
        f"The source '{source}' has the adapter '{adapter}': rows of a file are events of {ADAPTER}. "
        f'Name a source with adapter = "{ADAPTER}", or add one of the same site.'
    )


async def import_rows(gateway: Gateway, request: Request) -> Response:
    """Answer ``POST /api/import/{source}``: see :class:`ImportQuery` and :class:`ImportAnswer`."""
    name = request.path_params["source"]
    route = gateway.parts.routes.get(name)
    if route is None:
        known = ", ".join(sorted(gateway.parts.routes))
        return _error(404, "unknown_source", f"There is no source '{name}'.", f"Known are {known}.")
    if route.source.adapter != ADAPTER:
        return _error(400, "wrong_adapter", wrong_adapter(name, route.source.adapter), "")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            return _error(413, "too_large", f"The batch is larger than {MAX_BYTES >> 20} MB.", "Send fewer rows.")
    query = msgspec.json.decode(body, type=ImportQuery)
    if len(query.rows) > MAX_ROWS:
        return _error(413, "too_many_rows", f"The batch has more than {MAX_ROWS} rows.", "Send fewer rows.")
    try:
        answer = await Importer(gateway, route, dry_run=query.dry_run).take(query.rows)
    except Unavailable as error:
        return _error(503, error.reason, error.message, "", retry_after_s=error.retry_after_s)
    return Response(msgspec.json.encode(answer), 200, {"Cache-Control": "no-store"}, "application/json")


def _error(status: int, code: str, message: str, hint: str, **more: Any) -> Response:
    headers = {"Cache-Control": "no-store"}
    if "retry_after_s" in more:
        headers["Retry-After"] = str(more["retry_after_s"])
    content = msgspec.json.encode({"error": {"code": code, "message": message, "hint": hint, **more}})
    return Response(content, status, headers, "application/json")
