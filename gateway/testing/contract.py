"""
The contract of an adapter, as checks.

Each can be called alone; :func:`check_adapter` runs all of them on an adapter and its examples. They raise
AssertionError with a message that says what was sent, what happened, and what should have.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec

from gateway.errors import Rejected
from gateway.event import Alarm, Erasure, Event, Invalid, Normalized, Skipped
from gateway.hit import Hit, Secret, Source
from gateway.identity import identify
from gateway.interfaces import API, Adapter, Destination
from gateway.testing import examples, hostile
from gateway.testing.doubles import RecordingDestination
from gateway.testing.privacy import check_private

T = TypeVar("T")
Sign = Callable[[Hit], Hit]
#: The deadline of a stranger's adapter, in seconds.
LIMIT_S = 1.0
_OTHER = Secret(value="quite-another-secret")
_REFUSALS = (401, 403)


def check_adapter(
    adapter: Adapter,
    given: Path | Sequence[Path | Hit],
    *,
    signs_body: bool = False,
    sign: Sign | None = None,
    destination: Destination | None = None,
) -> None:
    """
    Check an adapter with its examples.

    Args:
        adapter: One object, as ``register_adapters`` returns it.
        given: The folder of example files (see :mod:`gateway.testing.examples`), or a list of files or good hits.
        signs_body: The platform signs the body: an altered one must be refused.
        sign: Returns a hit with the right signature of its body, so that hostile bodies come past ``verify``.
        destination: Seals the events; by default one that hashes identifiers plainly.

    Raises:
        AssertionError: The first check that fails, and on which example.
    """
    check_declaration(adapter)
    if isinstance(given, Path):
        folder, given = given, examples.files(given)
        _demand(given, f"{folder} holds no example: write at least one *.json, it is test and documentation at once.")
    hits = []
    for number, one in enumerate(given, 1):
        if isinstance(one, Hit):
            hits.append((f"hit {number}", one))
            continue
        examples.check(one, adapter)
        example = examples.load(one)
        if example.rejected is None:
            hits.append((one.name, examples.hit_of(example, adapter)))
    _demand(hits, "There is no example of a hit that is accepted.")
    weighed: set[str] = set()
    for name, hit in hits:
        try:
            check_hit(adapter, hit, signs_body=signs_body, sign=sign, destination=destination)
            if hit.method not in weighed:
                weighed.add(hit.method)
                check_masses(adapter, hit, sign)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def check_hit(
    adapter: Adapter,
    hit: Hit,
    *,
    signs_body: bool = False,
    sign: Sign | None = None,
    destination: Destination | None = None,
) -> None:
    """Run every check that one good hit allows; see :func:`check_adapter`."""
    _demand(hit.method in adapter.methods, f"{hit.method} is not one of the adapter's methods.")
    if hit.source.is_server:
        check_proof(adapter, hit, signs_body=signs_body)
    else:
        check_origin(adapter, hit)
    check_repeatable(adapter, hit)
    check_hostile(adapter, hit, sign)
    check_private(adapter, hit, destination or RecordingDestination())


def check_declaration(adapter: Adapter) -> None:
    """Check what the class says of itself."""
    kind = type(adapter).__name__
    name = getattr(adapter, "name", None)
    _demand(isinstance(name, str) and name, f"{kind} has no 'name'.")
    _demand(adapter.api == API, f"{kind} declares api = {adapter.api}; this gateway speaks {API}.")
    _demand(adapter.side in ("server", "public", "either"), f"{kind}.side must be server, public or either.")
    _demand(adapter.methods, f"{kind}.methods is empty: it would take no request.")
    _demand(adapter.methods <= {"GET", "POST", "PUT"}, f"{kind}.methods: only GET, POST and PUT bring hits.")
    config = adapter.Options.__struct_config__
    _demand(
        config.forbid_unknown_fields, f"{kind}.Options needs forbid_unknown_fields=True: a misspelt key is an error."
    )
    _demand(config.frozen, f"{kind}.Options needs frozen=True: all hits share it.")


def check_proof(adapter: Adapter, hit: Hit, *, signs_body: bool = False) -> None:
    """Check that a server source takes only authentic hits: unsigned, altered and wrongly signed ones are refused."""
    _demand_passes(adapter, hit, "the hit itself")
    bare = msgspec.structs.replace(hit, headers={}, query="")
    _demand_refused(adapter, bare, "a hit without headers and query")
    for what, lacking, altered in _proofs(hit):
        if _refusal(adapter, lacking, f"a hit without {what}") in _REFUSALS:
            for spoilt in altered:
                _demand_refused(adapter, spoilt, f"a hit with an altered {what}")
    _demand_refused(adapter, _with_secrets(hit, _OTHER), "a hit that was signed with another secret")
    _demand_passes(
        adapter, _with_secrets(hit, _OTHER, *hit.source.secrets), "a hit under the older of two live secrets"
    )
    _demand_passes(
        adapter, _with_secrets(hit, *hit.source.secrets, _OTHER), "a hit under the newer of two live secrets"
    )
    if adapter.side == "server":
        _demand_refused(adapter, _with_secrets(hit), "a hit to a source without any secret")
    if signs_body:
        _check_signature(adapter, hit)


def _check_signature(adapter: Adapter, hit: Hit) -> None:
    body = hit.body
    _demand(body, "An example of an adapter that signs bodies needs a body.")
    for place in sorted({0, len(body) // 2, len(body) - 1}):
        altered = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        _demand_refused(adapter, msgspec.structs.replace(hit, body=altered), f"a body with its byte {place} altered")
    for what, altered in (("an empty body", b""), ("a longer body", body + b" "), ("a shorter body", body[:-1])):
        _demand_refused(adapter, msgspec.structs.replace(hit, body=altered), f"{what} under the same signature")


def _proofs(hit: Hit) -> Iterator[tuple[str, Hit, list[Hit]]]:
    """Yield each header and query parameter: the hit without it, and hits with it altered."""
    for name, value in hit.headers.items():
        others = {key: kept for key, kept in hit.headers.items() if key != name}
        spoilt = ("", "x", "é", value[:-1], f"{value}x")
        altered = [msgspec.structs.replace(hit, headers={**others, name: bad}) for bad in spoilt]
        yield f"header {name}", msgspec.structs.replace(hit, headers=others), altered
    for index, (name, value) in enumerate(parse_qsl(hit.query, keep_blank_values=True)):
        rest = hostile.without_parameter(hit.query, index)
        altered = [msgspec.structs.replace(hit, query=f"{rest}&{name}={bad}") for bad in ("", "x", value[:-1])]
        yield f"query parameter {name}", msgspec.structs.replace(hit, query=rest), altered


def check_origin(adapter: Adapter, hit: Hit) -> None:
    """Check that a public source refuses hits of other pages with 403."""
    _demand_passes(adapter, hit, "the hit itself")
    allowed = hit.source.allowed_origins
    _demand(allowed, "A public source needs allowed_origins, a server source secrets.")
    foreign = ["https://elsewhere.example", "null", "https://", "x"]
    for origin in allowed:
        if origin != "null":
            host = origin.partition("://")[2]
            foreign += [f"{origin}.elsewhere.example", f"{origin}:8443", f"ftp://{host}", f"https://not-{host}"]
    for origin in foreign:
        if origin not in allowed:
            for header, value in (("origin", origin), ("referer", f"{origin}/page")):
                headers = {key: kept for key, kept in hit.headers.items() if key not in ("origin", "referer")}
                spoilt = msgspec.structs.replace(hit, headers={**headers, header: value})
                _demand_refused(adapter, spoilt, f"a hit with {header.capitalize()}: {value}", (403,))


def check_repeatable(adapter: Adapter, hit: Hit) -> None:
    """Check that the same hit gives the same items, and a later delivery of it the same event ids."""
    headers = dict(hit.headers)
    first = _accepted(adapter, hit, "the hit itself")
    _demand(
        _accepted(adapter, hit, "the same hit again") == first,
        "normalize gave something else for the same hit. It must be pure: no clock, no random value, no state.",
    )
    _demand(hit.headers == headers, "normalize changed the hit's headers: other plugins read them after it.")
    later = msgspec.structs.replace(hit, received_at=hit.received_at + 90.0, peer="203.0.113.9")
    again = _accepted(adapter, later, "the same hit, delivered 90 s later,")
    _demand(
        _ids(first, hit.source) == _ids(again, hit.source),
        "a later delivery of the same hit has other event ids, and would be counted twice. Leave time and id to the "
        "pipeline when the payload has none: received_at is no time of an event.",
    )


def _ids(items: Sequence[Normalized], source: Source) -> list[str]:
    """Return the ids of the events that have one of their own, an order, or a time."""
    found = [identify(item, source.site, "{site}-{order_id}") for item in items if isinstance(item, Event)]
    return [identity.event_id for identity in found if not identity.is_keyless]


def check_hostile(adapter: Adapter, hit: Hit, sign: Sign | None = None) -> None:
    """Check that nothing but Rejected leaves the adapter, whatever is sent, and that what it returns can be written."""
    for what, spoilt in _spoilt(hit):
        _survives(adapter, spoilt if sign is None else sign(spoilt), what)


def check_masses(adapter: Adapter, hit: Hit, sign: Sign | None = None) -> None:
    """Check the same with bodies near the size limits."""
    for what, body in hostile.masses():
        spoilt = msgspec.structs.replace(hit, body=body)
        _survives(adapter, spoilt if sign is None else sign(spoilt), what)


def _spoilt(hit: Hit) -> Iterator[tuple[str, Hit]]:
    for make in (hostile.truncations, hostile.corruptions, hostile.mutations):
        for what, body in make(hit.body):
            yield what, msgspec.structs.replace(hit, body=body)
    for what, body in hostile.texts():
        yield what, msgspec.structs.replace(hit, body=body)
    for what, query in hostile.queries(hit.query):
        yield what, msgspec.structs.replace(hit, query=query)
    for name in hit.headers:
        for value in hostile.HEADER_VALUES:
            yield f"header {name} = {value[:20]!a}", msgspec.structs.replace(hit, headers={**hit.headers, name: value})
    for tail in ("/", "/../..", "/%00", "/" + "x" * 8_000):
        yield f"the path's end {tail[:20]}", msgspec.structs.replace(hit, tail=tail)


def _survives(adapter: Adapter, hit: Hit, what: str) -> None:
    _refusal(adapter, hit, what)
    items = _normalized(adapter, hit, what)
    if not isinstance(items, Rejected):
        check_items(items, what)


def check_items(items: object, what: str = "the hit") -> None:
    """Check that these are items that the pipeline can take: right types, finite numbers, no empty id or key."""
    kinds = (Event, Skipped, Invalid, Erasure, Alarm)
    if not isinstance(items, Sequence):
        raise AssertionError(f"{what}: normalize returned a {type(items).__name__}, not a sequence.")  # noqa: TRY004
    for item in items:
        kind = type(item).__name__
        _demand(isinstance(item, kinds), f"{what}: normalize returned a {kind}, not an Event or another item.")
        try:
            copy = msgspec.json.decode(msgspec.json.encode(item), type=type(item))
        except (msgspec.ValidationError, msgspec.EncodeError, ValueError, TypeError, OverflowError) as error:
            raise AssertionError(f"{what}: a field of {kind} has a wrong type or cannot be written: {error}") from error
        _demand(copy == item, f"{what}: a field of {kind} changes when it is written (a list, a float for money, NaN).")
        if isinstance(item, Event):
            _demand(item.id != "", f"{what}: an empty id: every event with it would be one. Use None.")
            for key in item.keys:
                _demand(key.value.strip(), f"{what}: an empty {key.kind} key: every event with it would be one.")


def _accepted(adapter: Adapter, hit: Hit, what: str) -> Sequence[Normalized]:
    items = _normalized(adapter, hit, what)
    if isinstance(items, Rejected):
        raise AssertionError(f"{what} is refused: {items.reason}: {items.message}")  # noqa: TRY004
    check_items(items, what)
    return items


def _normalized(adapter: Adapter, hit: Hit, what: str) -> Sequence[Normalized] | Rejected:
    def call() -> Sequence[Normalized] | Rejected:
        try:
            return adapter.normalize(hit)
        except Rejected as rejected:
            return rejected

    return _timed(call, f"{what}: normalize")


def _refusal(adapter: Adapter, hit: Hit, what: str) -> int | None:
    """Return the status that verify refuses with, None when it passes."""

    def call() -> int | None:
        try:
            adapter.verify(hit)
        except Rejected as rejected:
            return rejected.status
        return None

    return _timed(call, f"{what}: verify")


def _timed(call: Callable[[], T], what: str) -> T:
    """Call; what takes too long is tried twice more, because a busy machine is no fault of the adapter."""
    for _ in range(3):
        started = time.perf_counter()
        try:
            result = call()
        except Exception as error:
            raise AssertionError(
                f"{what} raised {type(error).__name__}; only Rejected may leave an adapter."
            ) from error
        if time.perf_counter() - started < LIMIT_S:
            return result
    raise AssertionError(f"{what} took longer than {LIMIT_S:g} s three times.")


def _demand_passes(adapter: Adapter, hit: Hit, what: str) -> None:
    status = _refusal(adapter, hit, what)
    _demand(status is None, f"{what} is refused with {status}, and should pass.")


def _demand_refused(adapter: Adapter, hit: Hit, what: str, statuses: tuple[int, ...] = _REFUSALS) -> None:
    status = _refusal(adapter, hit, what)
    wanted = " or ".join(map(str, statuses))
    _demand(status is not None, f"{what} passes, and should be refused with {wanted}.")
    _demand(status in statuses, f"{what} is refused with {status}, and should be with {wanted}.")


def _demand(condition: object, message: str) -> None:
    """Assert; spelt out, because ``python -O`` leaves assert statements out."""
    if not condition:
        raise AssertionError(message)


def _with_secrets(hit: Hit, *secrets: Secret) -> Hit:
    return msgspec.structs.replace(hit, source=msgspec.structs.replace(hit.source, secrets=secrets))
