"""Ids, keys, times and addresses of an event."""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from adapters.tealium.variables import Variables, is_blank, scalar
from gateway import STANDARD_NAMES, Client, Key, coerce

_MAX_ID = 512
#: Source: Tealium's documentation of its Pinterest tag: ``pinterest_event_id_{EVENT}_{TAG_UID}``.
_TAG_PREFIX = "pinterest_event_id_"
_TAG_EVENTS = {name.replace("_", ""): name for name in STANDARD_NAMES}
#: The mobile libraries run utag in a hidden web view of this host: no page that anybody visited.
_WEBVIEW_HOST = "tags.tiqcdn.com"
_OWN_TIMES = (
    "tealium_timestamp_epoch", "tealium_timestamp_epoch_milliseconds", "tealium_timestamp_utc",
    "timestamp_unix_milliseconds", "timestamp_unix",
)  # fmt: skip


def tag_event_id(variables: Variables, name: str) -> str | None:
    """
    Return the id that Tealium's Pinterest tag used on the page for this very event.

    A variable of another standard event is not taken: utag keeps the ids of earlier events, and three additions to a
    cart under the page visit's id would be one. A name of the customer's own is taken when no better one is there.
    """
    fallback = None
    # a name that Pinterest does not know is sent as custom
    wanted = name if name in STANDARD_NAMES else "custom"
    for key, given in variables.udo.items():
        if not key.startswith(_TAG_PREFIX):
            continue
        event_id = _id_text(scalar(given))
        event, _, tag = key[len(_TAG_PREFIX) :].rpartition("_")
        if not tag.isdigit():
            event = key[len(_TAG_PREFIX) :]
        standard = _TAG_EVENTS.get(event.replace("_", "").lower())
        if event_id is None:
            if not is_blank(given):
                variables.note(f"{_TAG_PREFIX[:-1]}: not_an_id")
        elif standard == wanted:
            return event_id
        elif standard is None and fallback is None:
            fallback = event_id
    return fallback


def own_event_id(variables: Variables) -> str | None:
    """Return Tealium's own id of the event: one for each hit."""
    udo = variables.udo
    if variables.is_nested:
        candidates = (variables.envelope.get("event_id"), udo.get("tealium_event_id"))
    else:
        candidates = (udo.get("tealium_event_id"), udo.get("event_id"))
    for value in candidates:
        found = _id_text(scalar(value))
        if found is not None:
            return found
        if not is_blank(value):
            variables.note("event_id: not_an_id")
    return None


def _id_text(value: Any) -> str | None:
    """Return an id byte for byte, None for blanks and placeholders such as ``undefined``."""
    if isinstance(value, str):
        return value if len(value) <= _MAX_ID and coerce.text(value) is not None else None
    return coerce.text(value) if isinstance(value, int) else None


def keys_of(variables: Variables, name: str, order_id: str | None) -> tuple[Key, ...]:
    """Return the order of a checkout, and the checkout token of a checkout or its start."""
    keys = []
    if name == "checkout" and order_id is not None:
        keys.append(Key(kind="order", value=order_id))
    token = variables.text("checkout_token") if name in ("checkout", "initiate_checkout") else None
    if token is not None:
        keys.append(Key(kind="checkout", value=token))
    return tuple(keys)


def times_of(variables: Variables, name: str) -> tuple[float | None, float | None]:
    """Return the event's own time and the envelope's, in Unix seconds; seconds, ms and float texts by magnitude."""
    posted = coerce.unix_time(variables.outer("post_time"))
    own = variables.read(coerce.unix_time, "not_a_time", *_OWN_TIMES)
    if own is None and name == "checkout":
        own = variables.read(coerce.unix_time, "not_a_time", "order_created_at")
    return (posted if own is None else own), posted


def url_of(variables: Variables) -> str | None:
    """Return the page's URL, None for the mobile libraries' hidden web view."""
    candidates = (variables.of_dom("url"), variables.envelope.get("page_url"), variables.udo.get("page_url"))
    for value in candidates:
        found = coerce.url(scalar(value))
        if found is not None:
            return None if f"//{_WEBVIEW_HOST}/" in found[:40].lower() else found
    return None


def client_of(variables: Variables) -> Client:
    """Return the shopper's address and browser as the payload has them."""
    ip = coerce.text(variables.outer("client_ip")) or variables.text("client_ip", "client_ip_address", "ip_address")
    agent = coerce.text(variables.outer("useragent")) or variables.text("useragent", "user_agent", "client_user_agent")
    return Client(ip=ip, user_agent=agent)


def click_id_of(variables: Variables) -> str | None:
    """
    Return Pinterest's click id: of the page's query, the cookie, a variable, or the visit's landing page.

    A URL of the event itself is left to the gateway.
    """
    return (
        coerce.text(variables.udo.get("qp.epik"))
        or _epik(variables.of_dom("query_string"))
        or variables.cookie("_epik")
        or variables.text("_epik", "epik", "click_id")
        or _epik_of_path(variables.udo.get("landing_site"))
    )


def _epik(query: Any) -> str | None:
    if not isinstance(query, str) or "epik" not in query.lower():
        return None
    try:
        pairs = parse_qsl(query.lstrip("?"), max_num_fields=500, errors="replace")
    except ValueError:
        return None
    return next((coerce.text(value) for key, value in pairs if key.lower() == "epik"), None)


def _epik_of_path(path: Any) -> str | None:
    if not isinstance(path, str) or len(path) > coerce.MAX_URL:
        return None
    try:
        return _epik(urlsplit(path).query)
    except ValueError:
        return None
