"""Event data → canonical event."""

from collections.abc import Mapping
from typing import Any

from adapters.gtm.consent import consent_of
from adapters.gtm.envelope import EventData
from adapters.gtm.names import canonical
from adapters.gtm.options import Options
from adapters.gtm.purchase import purchase_of
from adapters.gtm.reading import Fact, Table
from adapters.gtm.user import click_ids_of, client_of, user_of
from gateway import (
    ACTION_SOURCES,
    App,
    Content,
    Device,
    Event,
    Invalid,
    Key,
    Normalized,
    Purchase,
    Skipped,
    Source,
    coerce,
)

#: Tag Manager loads pages under this address to check scripts. Source: stape-io/pinterest-capi-tag, 2026-11.
_SCRIPT_CHECK = "https://gtm-msr.appspot.com/"


def normalized(data: EventData, source: Source) -> Normalized:
    """Return the canonical event of one event's data, or why there is none."""
    if isinstance(data, Invalid):
        return data
    given = next((data[key] for key in ("event_name", "eventName", "event") if coerce.text(data.get(key))), None)
    if not isinstance(given, str):
        message = "The event has no name. Send event_name (GA4 hits: en)."
        event_id = coerce.text(data.get("event_id"))
        return Invalid(reason="missing_event_name", message=message, field="event_name", event_id=event_id)
    url = data.get("page_location")
    if isinstance(url, str) and url.startswith(_SCRIPT_CHECK):
        return Skipped(reason="bot", source_name=given)
    return _event(given, data, source)


def _exact(value: Any) -> str | None:
    """Return a text byte for byte, or a number as text."""
    found = coerce.text(value)
    return value if found is not None and isinstance(value, str) else found


def _action_source(value: Any) -> str | None:
    word = (coerce.text(value) or "").lower()
    return word if word in ACTION_SOURCES else None


def _limited_data(value: Any) -> bool | None:
    """Return True for ``LDP`` among the comma-separated flags of ``opt_out_type``, or what a boolean says."""
    flags = (coerce.text(value) or "").upper().split(",")
    return True if any(flag.strip() == "LDP" for flag in flags) else coerce.boolean(value)


_EVENT = Table(
    {
        "id": Fact(_exact, "event_id: not_a_text", (("event_id",),)),
        "time": Fact(coerce.unix_time, "event_time: not_a_time", (("event_time", "timestamp"),)),
        "action_source": Fact(_action_source, "action_source: unknown", (("action_source",),)),
        "source_url": Fact(
            coerce.url,
            "event_source_url: not_a_url",
            (("event_source_url", "page_location", "pageLocation", "url", "href"),),
        ),
        "client_id": Fact(coerce.text, None, (("client_id", "dtclid"),)),
        "search_string": Fact(coerce.text, "search_string: not_a_text", (("search_string", "search_term"),)),
        "opt_out": Fact(coerce.boolean, "opt_out: not_a_boolean", (("opt_out",),)),
        "limited_data": Fact(_limited_data, None, (("opt_out_type", "limited_data"),)),
        "partner_id": Fact(coerce.text, None, (("partner_id",),)),
        "language": Fact(coerce.language, "language: not_a_code", (("language",),)),
    }
)


def _told(**names: str) -> Table:
    return Table({field: Fact(coerce.text, None, ((name,),)) for field, name in names.items()})


#: Flat names of Pinterest's own template.
_CONTENT = _told(name="content_name", category="content_category", brand="content_brand")
_APP = _told(id="app_id", name="app_name", version="app_version")
_DEVICE = _told(
    brand="device_brand",
    model="device_model",
    type="device_type",
    carrier="device_carrier",
    os_version="os_version",
)
_RARE = _CONTENT.names | _APP.names | _DEVICE.names | {"wifi"}


def _event(source_name: str, data: Mapping[str, Any], source: Source) -> Event:
    notes: list[str] = []
    name = canonical(source_name, source.options or Options())
    facts = _EVENT.read(notes, data)
    purchase = purchase_of(data, notes)
    keys = _keys(source.event_names.get(source_name, name), data, purchase)
    if "id" not in facts:
        facts["id"] = _spare_id(data, keys)
    if not _RARE.isdisjoint(data):
        facts |= _rare(data)
    return Event(
        name=name,
        source_name=source_name,
        keys=keys,
        user=user_of(data, notes),
        client=client_of(data, notes),
        click_ids=click_ids_of(data),
        purchase=purchase,
        consent=consent_of(data),
        test=_is_test(data),
        notes=tuple(notes),
        **facts,
    )


def _keys(name: str, data: Mapping[str, Any], purchase: Purchase) -> tuple[Key, ...]:
    """Return the business keys: an order on a checkout only, a checkout token also where it began."""
    keys: list[Key] = []
    if name == "checkout" and purchase.order_id is not None:
        keys.append(Key(kind="order", value=purchase.order_id))
    if name in ("checkout", "initiate_checkout") and (token := coerce.text(data.get("checkout_token"))):
        keys.append(Key(kind="checkout", value=token))
    return tuple(keys)


def _spare_id(data: Mapping[str, Any], keys: tuple[Key, ...]) -> str | None:
    """
    Return the Data Client's ``unique_event_id``, which stands in for a missing ``event_id``.

    No other tag can know it, and it is new on every load of the page: where an order says better which
    conversion this is, it is not used.
    """
    if "unique_event_id" not in data or any(key.kind == "order" for key in keys):
        return None
    return _exact(data["unique_event_id"])


def _is_test(data: Mapping[str, Any]) -> bool:
    """Whether this is preview or debug traffic of Tag Manager or GA4, or says of itself that it is a test."""
    system = data.get("x_ga_system_properties")
    flags = [data[key] for key in ("debug_mode", "test_event", "test") if key in data]
    if isinstance(system, dict):
        flags.append(system.get("dbg"))
    return any(coerce.boolean(flag) is True for flag in flags)


def _rare(data: Mapping[str, Any]) -> dict[str, Any]:
    device = _DEVICE.read([], data)
    return {
        "content": Content(**_CONTENT.read([], data)),
        "app": App(**_APP.read([], data)),
        "device": Device(wifi=coerce.boolean(data.get("wifi")), **device),
    }
