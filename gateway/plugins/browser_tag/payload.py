"""The tag's JSON, as the README's contract has it, to canonical events."""

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from gateway import (
    ACTION_SOURCES,
    Client,
    Content,
    Event,
    Hit,
    Invalid,
    Key,
    Rejected,
    Source,
    User,
    coerce,
    json_body,
)
from gateway.plugins.browser_tag import purchase
from gateway.plugins.browser_tag.consent import consent_of
from gateway.plugins.browser_tag.device import app_of, device_of
from gateway.plugins.browser_tag.names import canonical_name
from gateway.plugins.browser_tag.reader import SILENT, Reader

MAX_EVENTS = 1_000
_MAX_ID = 512
_MAX_UNKNOWN = 10

#: Our names of identifiers, and the Conversions API's.
USER_ALIASES = {
    "email": "em", "phone": "ph", "first_name": "fn", "last_name": "ln", "gender": "ge", "birth_date": "db",
    "city": "ct", "state": "st", "postal_code": "zp", "country": "", "external_id": "",
    "mobile_ad_id": "hashed_maids",
}  # fmt: skip
_IDENTIFIERS = {key: name for name, alias in USER_ALIASES.items() for key in (name, alias) if key}
_CONTENT_FIELDS = frozenset({"content_name", "content_category", "content_brand"})
FIELDS = purchase.FIELDS | _CONTENT_FIELDS | {
    "event_name", "event_id", "event_time", "action_source", "event_source_url", "click_id", "client_id",
    "user", "search_string", "checkout_token", "language", "partner_id", "opt_out", "limited_data", "consent",
    "client", "app", "device", "sent_at", "tag", "test",
}  # fmt: skip
#: Only what looks like a field's name may stand in a note: a key can be a value put in the wrong place.
_FIELD_NAME = re.compile(r"[A-Za-z](?:[A-Za-z_.-]|(?<!\d)\d{1,3}(?!\d)){0,39}\Z")


def payload_of(hit: Hit) -> Any:
    """
    Return the hit's JSON: the body, or for GET the parameter ``d``, base64 of either alphabet, padded or not.

    Raises:
        Rejected: 400, there is no payload, or it is not JSON.
    """
    if hit.method != "GET":
        return json_body(hit.body)
    hint = "Send ?d= with the base64url text of one event's JSON."
    # a "+" of the standard alphabet arrives as a space
    given = hit.params().get("d", "").strip().replace(" ", "+").rstrip("=")
    if not given:
        raise Rejected("missing_payload", "The query parameter d is missing.", hint=hint)
    try:
        standard = given.replace("-", "+").replace("_", "/").encode("ascii")
        body = base64.b64decode(standard + b"=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Rejected("malformed_base64", "The query parameter d is not base64url.", hint=hint) from None
    return json_body(body)


def items_of(payload: Any, source: Source) -> list[Event | Invalid]:
    """
    Return one item for each event of the payload.

    Raises:
        Rejected: 400, the payload is no object or array, or is empty; 413, it has more than 1,000 events.
    """
    if isinstance(payload, dict):
        return [_event(payload, source)]
    if not isinstance(payload, list):
        raise Rejected(
            "not_an_event",
            "The body is no JSON object or array.",
            hint="Send one event, or an array of events.",
        )
    if not payload:
        raise Rejected("empty_batch", "The array has no events.", hint="Send at least one event.")
    if len(payload) > MAX_EVENTS:
        raise Rejected(
            "too_many_events",
            f"The array has more than {MAX_EVENTS} events.",
            status=413,
            hint="Split the batch.",
        )
    return [_event(item, source) for item in payload]


def _event(body: Any, source: Source) -> Event | Invalid:
    if not isinstance(body, dict):
        return Invalid(reason="not_an_object", message="An event must be a JSON object.")
    notes: list[str] = []
    event = Reader(body, notes)
    event_id = event.read("event_id", _event_id, complaint="not_an_id")
    given_name = coerce.text(body.get("event_name"))
    if given_name is None:
        return Invalid(
            reason="missing_event_name",
            message="event_name is missing or not a text; send one such as page_visit or checkout.",
            field="event_name",
            event_id=event_id,
        )
    name = canonical_name(given_name)
    source_name = body["event_name"] if isinstance(body["event_name"], str) else given_name
    goods = purchase.purchase_of(event)
    fields: dict[str, Any] = {}
    for key in body:
        if key not in _PLAIN:
            continue
        attribute, convert, complaint = _PLAIN[key]
        found = event.read(key, convert, complaint=complaint)
        if found is not None:
            fields[attribute] = found
    return Event(
        name=name,
        source_name=source_name,
        id=event_id,
        keys=_keys(source.event_names.get(source_name, name), goods.order_id, event),
        purchase=goods,
        user=_user(event),
        client=_client(event),
        content=_content(event),
        app=app_of(event),
        device=device_of(event),
        consent=consent_of(event),
        test=_is_test(event, source),
        notes=_with_unknown(body, notes),
        **fields,
    )


def _event_id(value: Any) -> str | None:
    """Return the id byte for byte; None for blanks and placeholders (``undefined``), which many share."""
    if isinstance(value, str):
        return value if len(value) <= _MAX_ID and coerce.text(value) is not None else None
    return coerce.text(value) if isinstance(value, int) else None


def _action_source(value: Any) -> str | None:
    word = value.strip().lower() if isinstance(value, str) else ""
    return word if word in ACTION_SOURCES else None


def _click_ids(value: Any) -> dict[str, str] | None:
    found = coerce.text(value)
    return None if found is None else {"epik": found}


#: Fields that are one value: the event's own name of it, how it is read, and what is noted when it cannot be.
_PLAIN: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "event_time": ("time", coerce.unix_time, "not_a_time"),
    "sent_at": ("sent_at", coerce.unix_time, "not_a_time"),
    "action_source": ("action_source", _action_source, "unknown"),
    "event_source_url": ("source_url", coerce.url, "not_a_url"),
    "click_id": ("click_ids", _click_ids, "unreadable"),
    "client_id": ("client_id", coerce.text, "unreadable"),
    "search_string": ("search_string", coerce.text, "unreadable"),
    "partner_id": ("partner_id", coerce.text, "unreadable"),
    "language": ("language", coerce.language, "not_a_language"),
    "limited_data": ("limited_data", coerce.boolean, "not_a_boolean"),
    "opt_out": ("opt_out", coerce.boolean, "not_a_boolean"),
    "tag": ("tag", coerce.boolean, "not_a_boolean"),
}


def _keys(name: str, order_id: str | None, event: Reader) -> tuple[Key, ...]:
    if name not in ("checkout", "initiate_checkout"):
        return ()
    keys = []
    if name == "checkout" and order_id is not None:
        keys.append(Key(kind="order", value=order_id))
    token = event.text("checkout_token")
    if token is not None:
        keys.append(Key(kind="checkout", value=token))
    return tuple(keys)


def _user(event: Reader) -> User:
    given = event.object("user")
    if given is None:
        return SILENT.user
    # notes name an identifier alone ("email: …"), as those of a destination do
    reader = Reader(given.values, event.notes)
    named = [_IDENTIFIERS[key] for key in given.values if key in _IDENTIFIERS]
    return User(**{name: reader.texts(name, USER_ALIASES[name]) for name in dict.fromkeys(named)})


def _client(event: Reader) -> Client:
    given = event.object("client")
    return SILENT.client if given is None else Client(ip=given.text("ip"), user_agent=given.text("user_agent"))


def _content(event: Reader) -> Content:
    if not event.values.keys() & _CONTENT_FIELDS:
        return SILENT.content
    return Content(
        name=event.text("content_name"),
        category=event.text("content_category"),
        brand=event.text("content_brand"),
    )


def _is_test(event: Reader, source: Source) -> bool:
    wanted = "test" in event.values and event.flag("test") is True
    if wanted and not source.is_server:
        event.note("test", "server_sources_only")
        return False
    return wanted


def _with_unknown(body: dict[str, Any], notes: list[str]) -> tuple[str, ...]:
    unknown = body.keys() - FIELDS
    if not unknown:
        return tuple(notes)
    named = [name if _FIELD_NAME.match(name) else "(other)" for name in body if name in unknown]
    return (*notes, *(f"{name}: unknown_field" for name in list(dict.fromkeys(named))[:_MAX_UNKNOWN]))
