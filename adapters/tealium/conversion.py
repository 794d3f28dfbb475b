"""One of Tealium's events as a canonical event."""

from typing import Any

from adapters.tealium import identity
from adapters.tealium.consent import consent_of
from adapters.tealium.envelope import is_profile
from adapters.tealium.goods import purchase_of
from adapters.tealium.names import canonical_name, source_name_of
from adapters.tealium.options import options_of
from adapters.tealium.person import limited_data_of, opt_out_of, user_of
from adapters.tealium.variables import Variables
from gateway import (
    ACTION_SOURCES,
    PAGE_EVENTS,
    App,
    Content,
    Device,
    Event,
    Invalid,
    Normalized,
    Purchase,
    Skipped,
    Source,
    coerce,
)

_PLATFORMS = {"ios": "app_ios", "android": "app_android"}
_PARTS = ("user", "client", "purchase", "content", "app", "device", "consent")
_SILENT = Event(name="")


def item_of(body: Any, source: Source) -> Normalized:
    """Return the event of one JSON object, or why there is none."""
    if not isinstance(body, dict):
        return Invalid(reason="not_an_object", message="An event must be a JSON object.")
    variables = Variables(body)
    source_name = source_name_of(variables)
    if source_name is None:
        if is_profile(body):
            return Skipped(reason="visitor_profile")
        return Invalid(
            reason="missing_event_name",
            message="tealium_event is missing; add the Tealium Events extension or set tealium_event.",
            field="tealium_event",
            event_id=identity.own_event_id(variables),
        )
    return _event(variables, source_name, source)


def _event(variables: Variables, source_name: str, source: Source) -> Event:
    name = canonical_name(source_name)
    meant = source.event_names.get(source_name, name)
    goods = purchase_of(variables, options_of(source))
    time, posted = identity.times_of(variables, meant)
    url = identity.url_of(variables)
    action_source = _action_source(variables, url)
    tag_id = identity.tag_event_id(variables, meant)
    click_id = identity.click_id_of(variables)
    is_app = action_source.startswith("app_")
    parts = {
        "user": user_of(variables),
        "client": identity.client_of(variables),
        "purchase": goods,
        "content": _content(variables, meant, goods),
        "app": _app(variables) if is_app else _SILENT.app,
        "device": _device(variables) if is_app else _SILENT.device,
        "consent": consent_of(variables),
    }
    fields: dict[str, Any] = {part: value for part, value in parts.items() if value != getattr(_SILENT, part)}
    return Event(
        name=name,
        source_name=source_name,
        id=identity.own_event_id(variables) if tag_id is None else tag_id,
        keys=identity.keys_of(variables, meant, goods.order_id),
        time=time,
        fallback_time=posted,
        action_source=action_source,  # type: ignore[arg-type]
        source_url=url,
        client_id=_visitor(variables),
        click_ids={} if click_id is None else {"epik": click_id},
        search_string=variables.text("search_keyword", "search_term", "search_query", "search_string"),
        limited_data=limited_data_of(variables),
        opt_out=opt_out_of(variables),
        language=variables.read(coerce.language, "not_a_language", "language_code", "page_language", "device_language"),
        tag=tag_id is not None,
        notes=tuple(variables.notes),
        **fields,
    )


def _visitor(variables: Variables) -> str | None:
    return (
        coerce.text(variables.outer("visitor_id", "tealium_visitor_id"))
        or variables.text("tealium_visitor_id", "ut.visitor_id")
        or variables.cookie("utag_main_v_id")
    )


def _action_source(variables: Variables, url: str | None) -> str:
    """Return the variable ``action_source``, else the mobile library's platform, else web."""
    told = (variables.text("action_source") or "").lower()
    if told in ACTION_SOURCES:
        return told
    if told:
        variables.note("action_source: unknown")
    app = _PLATFORMS.get((variables.text("platform") or "").lower())
    # a page may have a variable "platform" too: an app has no page, or says its name
    return app if app is not None and (url is None or variables.text("app_name", "app_rdns")) else "web"


def _content(variables: Variables, name: str, goods: Purchase) -> Content:
    """Return the page of a page event, the product where there is only one."""
    only = goods.items[0] if len(goods.items) == 1 else None
    page = name in PAGE_EVENTS
    return Content(
        name=(only.name if only else None) or (variables.text("page_name", "screen_title") if page else None),
        category=(only.category if only else None)
        or (variables.text("category_name", "page_category") if page else None),
        brand=only.brand if only else None,
    )


def _app(variables: Variables) -> App:
    return App(
        id=variables.text("app_id"),
        name=variables.text("app_name"),
        version=variables.text("app_version"),
        package_name=variables.text("app_rdns", "app_package_name"),
    )


def _device(variables: Variables) -> Device:
    return Device(
        brand=variables.text("device_manufacturer"),
        model=variables.text("device_model", "device"),
        carrier=variables.text("carrier"),
        os_name=variables.text("os_name", "platform"),
        os_version=variables.text("device_os_version", "os_version"),
    )
