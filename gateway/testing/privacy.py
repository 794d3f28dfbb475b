"""
The check that nothing personal leaves an adapter in clear.

A marker is planted at each value of an example in turn. Where the adapter takes that value for an identifier of a
person, no trace of the marker may be left after the seal: not in the id, a URL, a text, a note or ``extra``.
"""

import base64
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from gateway.errors import Rejected
from gateway.event import Event, Invalid, Normalized, SealedEvent
from gateway.hit import Hit
from gateway.identity import identify, moment
from gateway.interfaces import Adapter, Destination
from gateway.seal import Facts, seal
from gateway.testing import hostile

#: One for each look that an identifier may have: text, e-mail, phone or number, date.
MARKERS = ("Zqmarker", "zqmarker@private.example", "14155557391", "1987-03-19")


def check_private(adapter: Adapter, hit: Hit, destination: Destination) -> None:
    """
    Check one good hit.

    Raises:
        AssertionError: An identifier would be written in clear, or a message repeats a value of the payload.
    """
    for event in _events(_items(adapter, hit)):
        sealed = sealed_as_written(event, hit, destination)
        for email in (value for value in event.user.email if "@" in value):
            _demand_absent(email, sealed, "the e-mail address")
    for where, marker, planted in _planted(hit):
        _check_planted(adapter, planted, destination, where, marker)


def sealed_as_written(event: Event, hit: Hit, destination: Destination) -> bytes:
    """Seal the event as the pipeline does; return what the store would hold."""
    source = hit.source
    event_time, _ = moment(event, hit.received_at)
    facts = Facts(
        name=event.name, identity=identify(event, source.site, "{site}-{order_id}"), event_time=event_time,
        accepted_at=hit.received_at, source=source.name, site=source.site, is_server=source.is_server,
        notes=event.notes,
    )  # fmt: skip
    identifiers = destination.identifiers(event.user, source.default_country)
    sealed: SealedEvent = seal(event, facts, event.name, identifiers, destination.name)
    return msgspec.json.encode(sealed)


def _check_planted(adapter: Adapter, hit: Hit, destination: Destination, where: str, marker: str) -> None:
    items = _items(adapter, hit)
    if isinstance(items, Rejected):
        _demand_absent(marker, f"{items.message} {items.hint}".encode(), f"{where}, in the message of Rejected,")
        return
    for item in items:
        if isinstance(item, Invalid):
            _demand_absent(marker, msgspec.json.encode([item.reason, item.message]), f"{where}, in Invalid,")
    events = _events(items)
    if any(_holds(event, marker) for event in events):
        for event in events:
            _demand_absent(marker, sealed_as_written(event, hit, destination), where)


def _items(adapter: Adapter, hit: Hit) -> Sequence[Normalized] | Rejected:
    try:
        return adapter.normalize(hit)
    except Rejected as rejected:
        return rejected


def _events(items: Sequence[Normalized] | Rejected) -> list[Event]:
    return [] if isinstance(items, Rejected) else [item for item in items if isinstance(item, Event)]


def _holds(event: Event, marker: str) -> bool:
    """Whether the adapter took the marker for an identifier."""
    sought = marker.lower()
    values = (value for field in event.user.__struct_fields__ for value in getattr(event.user, field))
    return any(sought in value.lower() for value in values)


def _demand_absent(value: str, written: bytes, where: str) -> None:
    text = written.decode("utf-8", "replace")
    lower = text.lower()
    for form, shape in _forms(value):
        if form in (text if shape == "base64" else lower):
            raise AssertionError(
                f"{where} is an identifier of a person, and stays in clear ({shape}) after the seal. "
                "Identifiers belong in Event.user only: not in ids, URLs, texts, notes, extra or messages."
            )


def _forms(value: str) -> Iterator[tuple[str, str]]:
    lower = value.lower()
    yield lower, "plain"
    yield quote(lower, safe="").lower(), "URL-encoded"
    yield value.encode().hex(), "hexadecimal"
    yield lower.encode().hex(), "hexadecimal"
    for spelling in {value, lower, value.upper()}:
        for shift in range(3):
            # the characters that depend on what stands before or after are left out
            encoded = base64.b64encode(b"\0" * shift + spelling.encode()).decode().rstrip("=")
            yield encoded[-(-shift * 8 // 6) : len(encoded) - 1], "base64"


def _planted(hit: Hit) -> Iterator[tuple[str, str, Hit]]:
    """Yield where the marker is, the marker, and the hit that holds it."""
    decoded = hostile.decode(hit.body)
    if decoded is not None:
        for at in hostile.paths(decoded):
            leaf = _at(decoded, at)
            if not isinstance(leaf, dict | list):
                for marker in MARKERS:
                    body = msgspec.json.encode(hostile.replaced(decoded, at, marker))
                    yield f"the value at {hostile.shown(at)}", marker, msgspec.structs.replace(hit, body=body)
    pairs = hit.query.split("&") if hit.query else []
    for index, pair in enumerate(pairs):
        name = pair.partition("=")[0]
        for marker in MARKERS:
            query = "&".join([*pairs[:index], f"{name}={quote(marker, safe='')}", *pairs[index + 1 :]])
            yield f"the query parameter {name}", marker, msgspec.structs.replace(hit, query=query)


def _at(value: Any, at: hostile.Path) -> Any:
    for part in at:
        value = value[part]
    return value
