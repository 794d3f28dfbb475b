"""Answers of the ingress: bodies, errors, CORS headers, and what the log's line says of a reply."""

import base64
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.types import Send

from gateway.assets import Header
from gateway.errors import Rejected, Unavailable
from gateway.hit import Hit, Source
from gateway.outcome import FATES, Outcome
from gateway.overload import Overloaded
from gateway.pipeline import Reply, Route
from gateway.ratelimit import TooManyHits

#: Status, body and headers.
Answer = tuple[int, bytes, list[Header]]

_GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
#: A line names at most so many event ids.
_LOGGED_IDS = 20
_AGAIN = "Send the same request again after the seconds in Retry-After."
_encoder = msgspec.json.Encoder()
#: The headers of every JSON answer.
JSON: list[Header] = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
_PIXEL: list[Header] = [(b"content-type", b"image/gif"), (b"cache-control", b"no-store, private")]


def cors_of(route: Route, headers: Mapping[str, str]) -> list[Header]:
    """Allow exactly the configured origins of a public source to read the answer."""
    if route.source.is_server:
        return []
    origin = headers.get("origin", "")
    if origin not in route.source.allowed_origins:
        return [(b"vary", b"Origin")]
    allowed = [(b"vary", b"Origin"), (b"access-control-allow-origin", origin.encode("latin-1"))]
    if origin != "null":
        allowed.append((b"access-control-allow-credentials", b"true"))
    return allowed


def preflight(route: Route, headers: Mapping[str, str]) -> Answer:
    """Answer OPTIONS."""
    methods = ", ".join(sorted({*route.adapter.methods, "OPTIONS"})).encode()
    if "access-control-request-method" not in headers:
        return 204, b"", [(b"allow", methods)]
    return 204, b"", [
        (b"access-control-allow-methods", methods),
        (b"access-control-allow-headers", b"content-type"),
        (b"access-control-max-age", b"86400"),
    ]  # fmt: skip


def answer(hit: Hit, reply: Reply) -> Answer:
    """Answer a hit that was dealt with."""
    if reply.is_refused:
        return 400, _encoder.encode({"error": _first_error(reply), **_body(reply, hit.source)}), JSON
    status = 202 if reply.quarantined else 200
    if hit.method == "GET":
        return status, _GIF, _PIXEL
    if reply.quarantined:
        return 202, _encoder.encode({**_body(reply, hit.source), "quarantined": 1}), JSON
    if len(reply.items) == 1 and len(reply.items[0]) == 1 and reply.fates[0] == "accepted":
        (outcome,) = reply.items[0]
        if not (outcome.notes or outcome.signals) and outcome.reason is None:
            return 200, b"%b%b%b" % (_ONE_ACCEPTED[0], _encoder.encode(outcome.event_id), _ONE_ACCEPTED[1]), JSON
    return 200, _encoder.encode(_body(reply, hit.source)), JSON


#: What most hits are answered, around the event id; the general way gives the same bytes.
_ONE_ACCEPTED = (
    b'{"accepted":1,"merged":0,"duplicate":0,"dropped":0,"rejected":0,"events":[{"event_id":',
    b',"outcome":"accepted","reason":null}]}',
)


def _body(reply: Reply, source: Source) -> dict[str, Any]:
    counts: dict[str, Any] = dict.fromkeys(FATES, 0)
    for fate in reply.fates:
        counts[fate] += 1
    counts["events"] = [
        _event(outcomes, fate, message, detailed=source.is_server)
        for outcomes, fate, message in zip(reply.items, reply.fates, reply.messages, strict=True)
    ]
    return counts


def _event(outcomes: tuple[Outcome, ...], fate: str, message: str, *, detailed: bool) -> dict[str, Any]:
    best = next((outcome for outcome in outcomes if outcome.fate == fate), outcomes[0])
    event: dict[str, Any] = {"event_id": best.event_id, "outcome": fate, "reason": best.reason}
    if best.of is not None:
        event["of"] = best.of
    if message:
        event["message"] = message
    if best.notes:
        event["notes"] = best.notes
    if detailed and best.signals:  # a page is not told what others know of its visitor
        event["signals"] = best.signals
    if detailed and best.missed:
        event["missed"] = best.missed
    if len(outcomes) > 1:
        event["destinations"] = [
            {"destination": one.destination, "outcome": one.fate, "reason": one.reason, "of": one.of}
            for one in outcomes
        ]
    return event


def _first_error(reply: Reply) -> dict[str, str]:
    outcome = reply.items[0][0]
    message = reply.messages[0] or "The event cannot be read."
    return {
        "code": outcome.reason or "invalid",
        "message": message,
        "hint": "See docs/event.md for the fields of an event.",
    }


def rejection(error: Rejected, route: Route | None) -> Answer:
    """Answer a hit that is not acceptable; no route: there is no such source."""
    headers = JSON
    if error.status == 405 and route is not None:
        headers = [*JSON, (b"allow", ", ".join(sorted({*route.adapter.methods, "OPTIONS"})).encode())]
    elif isinstance(error, TooManyHits):
        headers = [*JSON, retry_after(error.retry_after_s)]
    return error.status, error_body(error.reason, error.message, error.hint), headers


def unavailability(error: Unavailable) -> Answer:
    """Answer a hit that may succeed later."""
    is_certain = not isinstance(error, Overloaded) or error.is_certain
    hint = f"{'Nothing was accepted.' if is_certain else 'It may have been accepted.'} {_AGAIN}"
    return 503, error_body(error.reason, error.message, hint), [*JSON, retry_after(error.retry_after_s)]


def retry_after(seconds: int) -> Header:
    """Return the header."""
    return b"retry-after", b"%d" % seconds


def error_body(code: str, message: str, hint: str) -> bytes:
    """Return the body of an error."""
    return _encoder.encode({"error": {"code": code, "message": message, "hint": hint}})


def describe(line: dict[str, Any], reply: Reply) -> None:
    """Add to the log's line what became of the hit's events."""
    if len(reply.items) == 1 and len(reply.items[0]) == 1:
        (outcome,) = reply.items[0]
        line["events"], line[outcome.fate] = 1, 1
        line["ids"] = [outcome.event_id] if outcome.event_id else []
        if outcome.reason:
            line["reasons"] = [outcome.reason]
        return
    line["events"] = len(reply.items)
    if reply.quarantined:
        line["quarantined"] = 1
    ids: list[str] = []
    reasons: list[str] = []
    for outcomes, fate in zip(reply.items, reply.fates, strict=True):
        line[fate] = line.get(fate, 0) + 1
        for outcome in outcomes:
            if outcome.reason and outcome.reason not in reasons:
                reasons.append(outcome.reason)
        if outcomes and outcomes[0].event_id and len(ids) < _LOGGED_IDS:
            ids.append(outcomes[0].event_id)
    line["ids"] = ids
    if reasons:
        line["reasons"] = reasons


async def write(send: Send, status: int, headers: list[Header], body: bytes, *, without_body: bool) -> None:
    """Send an answer."""
    if status not in (204, 304):  # which have no content, and so no length: RFC 9110, 8.6
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if without_body else body})
