"""What a hit holds, by its content: GA4 parameters, event data as JSON, or a Data Client's query."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import unquote_plus

from adapters.gtm.collect import is_collect, shared
from adapters.gtm.nesting import nested
from gateway import Hit, Invalid, Rejected, json_body

MAX_EVENTS = 1_000
_MAX_PARAMETERS = 500
#: stape's Data Client: base64 JSON, or plain JSON, in the query of a GET.
_ENCODED, _PLAIN = "dtdc", "dtcd"

EventData = Mapping[str, Any] | Invalid


def event_data(hit: Hit) -> Sequence[EventData]:
    """
    Return the event data of each event of the hit, nested and with "_" for "-" in its "x-" keys.

    Raises:
        Rejected: Nothing in the hit is an event, or there are more than 1,000.
    """
    query = _parameters(hit.query)
    body = hit.body.strip()
    if not body:
        return _from_query(query)
    if body.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] not in (b"{", b"["):
        lines = _lines(body)
        if lines and (is_collect(query) or is_collect(_parameters(lines[0]))):
            return _from_lines(query, lines)
    return _from_json(hit.body, query)


def _parameters(query: str) -> dict[str, str]:
    """Return the first of each parameter; names without "=" count as empty."""
    parts = query.split("&")
    if len(parts) > _MAX_PARAMETERS:
        raise Rejected(
            "too_complex",
            f"The query or a line of the body has more than {_MAX_PARAMETERS} parameters.",
            hint="Send fewer event parameters.",
        )
    found: dict[str, str] = {}
    for part in parts:
        name, _, value = part.partition("=")
        name = _unquoted(name)
        if name and name not in found:
            found[name] = _unquoted(value)
    return found


def _unquoted(text: str) -> str:
    return unquote_plus(text, errors="replace") if "%" in text or "+" in text else text


def _lines(body: bytes) -> list[str]:
    return [line.strip() for line in body.decode("utf-8", "replace").split("\n") if line.strip()]


def _from_query(query: Mapping[str, str]) -> Sequence[EventData]:
    for name in (_ENCODED, _PLAIN):
        if name in query:
            value = json_body(_decoded(query[name]) if name == _ENCODED else query[name].encode("utf-8", "replace"))
            rest = {key: text for key, text in query.items() if key not in (_ENCODED, _PLAIN)}
            return _events(value, rest)
    if is_collect(query):
        return [nested(shared(query))]
    raise Rejected(
        "missing_event",
        "The request holds no event.",
        hint="POST event data as JSON, or send a GA4 hit (tid, cid, en) or a Data Client hit (dtdc, dtcd).",
    )


def _decoded(text: str) -> bytes:
    """Decode base64, standard or URL-safe, padded or not; "+" may have become a space on the way."""
    plain = text.strip().replace(" ", "+").replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        _malformed(f"The query parameter {_ENCODED} is not base64.")


def _malformed(message: str) -> NoReturn:
    raise Rejected("malformed_json", message, hint="Send JSON of one event in UTF-8, encoded as base64.")


def _from_lines(query: Mapping[str, str], lines: Sequence[str]) -> Sequence[EventData]:
    """Read GA4's POST: shared parameters in the query, one event in each line of the body."""
    _bounded(len(lines))
    found: list[EventData] = []
    for line in lines:
        try:
            own = _parameters(line)
        except Rejected as rejected:
            found.append(Invalid(reason=rejected.reason, message=rejected.message))
        else:
            found.append(nested(shared({**query, **own})))
    return found


def _from_json(body: bytes, query: Mapping[str, str]) -> Sequence[EventData]:
    # stape's Data Tag names the event in the query, too
    name = query.get("event_name")
    return _events(json_body(body), {"event_name": name} if name else {})


def _events(value: Any, defaults: Mapping[str, str]) -> Sequence[EventData]:
    if isinstance(value, dict):
        return [nested({**defaults, **value} if defaults else value)]
    if not isinstance(value, list):
        raise Rejected(
            "not_an_event",
            "The JSON is not an object, nor an array of objects.",
            hint="Send the event data of one event, or an array of such objects.",
        )
    if not value:
        raise Rejected("empty_batch", "The array has no events.", hint="Send at least one event.")
    _bounded(len(value))
    return [
        nested({**defaults, **item} if defaults else item)
        if isinstance(item, dict)
        else Invalid(reason="not_an_object", message="An event must be a JSON object.")
        for item in value
    ]


def _bounded(count: int) -> None:
    if count > MAX_EVENTS:
        raise Rejected(
            "too_many_events",
            f"The request holds more than {MAX_EVENTS} events.",
            status=413,
            hint=f"Send at most {MAX_EVENTS} events in one request.",
        )
