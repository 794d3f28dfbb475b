"""
``explain``: each step of one request, what would be sent and why; nothing is committed and nothing is sent.

A capture is a file with one request, in one of three forms: a step example (``{"hit": {...}}``, see
:mod:`gateway.testing.examples`), a recorded request (``{"request": {"method", "path", "headers"}, "body": ...}``), or
the bare body.
"""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import msgspec

from gateway.draft import outcome_of
from gateway.errors import ConfigError, Rejected
from gateway.event import Struct
from gateway.hit import Hit
from gateway.outcome import Outcome
from gateway.pipeline import Pipeline, Reply, Route
from gateway.urls import is_personal, strip_personal

_SHOWN_HASH = 6
#: 1 January 2100, Unix seconds.
_LAST_MOMENT = 4_102_444_800


class Step(Struct, frozen=True, kw_only=True):
    """One step: its name and what there was after it, identifiers masked."""

    name: str
    detail: Any


class Explanation(Struct, frozen=True, kw_only=True):
    """All steps, the would-be payloads by destination, and the outcome of each event."""

    steps: tuple[Step, ...]
    payloads: tuple[Any, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    error: str | None = None


def read_capture(content: bytes, route: Route, received_at: float) -> Hit:
    """
    Build the hit that a capture describes.

    Raises:
        ConfigError: The file holds no request.
    """
    try:
        value: Any = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Hit(source=route.source, body=content, received_at=received_at)
    if isinstance(value, dict) and isinstance(value.get("hit"), dict):
        request, body = value["hit"], value["hit"].get("raw", value["hit"].get("body"))
    elif isinstance(value, dict) and isinstance(value.get("request"), dict):
        request, body = value["request"], value.get("raw_body", value.get("body"))
    else:
        return Hit(source=route.source, body=content, received_at=received_at)
    headers = request.get("headers") or {}
    if not isinstance(headers, dict):
        raise ConfigError("The capture's 'headers' must be an object of texts.")
    peer, at = request.get("peer"), request.get("received_at") or received_at
    if not isinstance(peer, str | None):
        raise ConfigError("The capture's 'peer' must be the text of an address.")
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < _LAST_MOMENT:
        raise ConfigError("The capture's 'received_at' must be a time in Unix seconds.")
    parts = urlsplit(str(request.get("path") or ""))
    raw = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
    return Hit(
        source=route.source,
        method=str(request.get("method", "POST")).upper(),
        tail=str(request.get("tail") or parts.path),
        query=str(request.get("query") or parts.query),
        headers={str(name).lower(): str(content) for name, content in headers.items()},
        body=b"" if body is None else raw,
        peer=peer,
        received_at=float(at),
    )


async def explain(
    pipeline: Pipeline, route: Route, hit: Hit, *, verify: bool, reply: Reply | None = None
) -> Explanation:
    """
    Run one hit through every step short of admission.

    Args:
        pipeline: The current one. ``verify`` false leaves the proof of authenticity out.
        reply: What was answered to the hit when it came: its outcomes are told, and none are rehearsed.
    """
    steps: list[Step] = []
    payloads: list[Any] = []
    destinations = {destination.name: destination for destination in route.destinations}

    def trace(name: str, detail: object) -> None:
        steps.append(Step(name=name, detail=mask(msgspec.to_builtins(detail, enc_hook=repr))))
        if name.startswith("sealed for "):
            destination = destinations[name.removeprefix("sealed for ")]
            encoded = msgspec.to_builtins(destination.encode(detail))
            payloads.append({"destination": destination.name, "event": mask(encoded)})

    try:
        drafts = await pipeline.prepare(route, hit, trace, verify=verify)
    except Rejected as error:
        text = f"{error.status} {error.reason}: {error.message} {error.hint}".strip()
        return Explanation(steps=tuple(steps), error=f"{text} ({error.cause})" if error.cause else text)
    if reply is not None:
        told = tuple([outcome for outcomes in reply.items for outcome in outcomes])
        return Explanation(steps=tuple(steps), payloads=tuple(payloads), outcomes=told)
    outcomes = [outcome for draft in drafts for outcome in draft.outcomes]
    admissions = iter(await pipeline.rehearse(drafts))
    for draft in drafts:
        for event_id, unit, notes in draft.units:
            admission = next(admissions)
            outcome = outcome_of(event_id, unit, notes, admission)
            if admission.event is not None:
                name = unit.lane.destination
                joint = {"of": admission.of, "signals": outcome.signals}
                steps.append(Step(name=f"joined for {name} with an event that waits", detail=joint))
                encoded = msgspec.to_builtins(destinations[name].encode(admission.event))
                payloads = [one for one in payloads if not _is_of(one, name, unit.event.event_id)]
                payloads.append({"destination": name, "event": mask(encoded)})
            elif unit.hold_s and admission.fate == "accepted":
                held = {"hold_s": unit.hold_s, "until": "a browser's and a server's copy have met"}
                steps.append(Step(name=f"held for {unit.lane.destination}", detail=held))
            outcomes.append(outcome)
    return Explanation(steps=tuple(steps), payloads=tuple(payloads), outcomes=tuple(outcomes))


def _is_of(payload: dict[str, Any], destination: str, event_id: str) -> bool:
    return bool(payload["destination"] == destination and payload["event"].get("event_id") == event_id)


_RAW = frozenset(
    [
        "email",
        "phone",
        "first_name",
        "last_name",
        "gender",
        "birth_date",
        "city",
        "state",
        "postal_code",
        "country",
        "external_id",
        "mobile_ad_id",
    ]
)


#: How an address is shown: its network says which proxy or provider, and not who.
_NETWORKS = {4: 24, 6: 48}
_ADDRESSES = frozenset({"ip", "client_ip_address", "peer"})


def network_of(address: str) -> str | None:
    """Return the network of an IP address as text, None for what is no address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return None
    return str(ipaddress.ip_network((found, _NETWORKS[found.version]), strict=False))


def mask(value: Any, *, personal: bool = False) -> Any:
    """Shorten hashes to six digits, hide raw identifiers, shorten addresses; the shape stays."""
    if isinstance(value, dict):
        return {
            key: network_of(item) or item
            if key in _ADDRESSES and isinstance(item, str)
            else mask(item, personal=personal or key in _RAW)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [mask(item, personal=personal) for item in value]
    if isinstance(value, str):
        if len(value) == 64 and all(char in "0123456789abcdef" for char in value):
            return f"{value[:_SHOWN_HASH]}…"
        if value.startswith(("https://", "http://")):
            return strip_personal(value)
        if personal or is_personal(value):
            return f"({len(value)} characters)"
    return value
