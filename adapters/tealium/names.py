"""Tealium's event names, and what each is at Pinterest."""

from adapters.tealium.variables import Variables
from gateway import STANDARD_NAMES, coerce

#: ``purchase``, ``cart_add``, ``search`` and ``page_view`` are in Tealium's documents of its Shopify app and HTTP API;
#: the others are its usual names, which customers rename: ``event_names`` overrides each. "" has no counterpart.
NAMES = {
    "purchase": "checkout",
    "orders_create": "checkout",
    "orders_paid": "checkout",
    "cart_add": "add_to_cart",
    "checkout": "initiate_checkout",
    "checkout_start": "initiate_checkout",
    "search": "search",
    "page_view": "page_visit",
    "screen_view": "page_visit",
    "view": "page_visit",
    "product_view": "page_visit",
    "category_view": "view_category",
    "user_register": "signup",
    "wishlist_add": "add_to_wishlist",
    "cart_view": "",
    "cart_remove": "",
    "cart_empty": "",
    "cart_update": "",
    "wishlist_remove": "",
    "link": "",
    "user_login": "",
    "user_logout": "",
    "user_update": "",
    "grant_consent": "",
    "decline_consent": "",
    "grant_full_consent": "",
    "grant_partial_consent": "",
    "update_consent_cookie": "",
    "remote_api": "",
    "launch": "",
    "wake": "",
    "sleep": "",
}
_SEPARATORS = str.maketrans("/- ", "___")


def source_name_of(variables: Variables) -> str | None:
    """
    Return the event's own name, None when nothing tells it.

    Without ``tealium_event``: the Shopify topic, else what utag was called with: ``view`` is a purchase when the
    e-commerce extension's ``_corder`` is filled, else a page view.
    """
    given = variables.udo.get("tealium_event")
    found = coerce.text(given)
    if found is not None:
        return given if isinstance(given, str) else found
    topic = variables.text("shopify_topic")
    if topic is not None:
        return topic
    call = variables.text("ut.event", "tealium_event_type", "page_view")
    if call == "view":
        return "purchase" if variables.text("_corder") else "page_view"
    return "link" if call == "link" else None


def canonical_name(source_name: str) -> str:
    """Return Pinterest's name, "" for a known event without one, the name itself for an unknown one."""
    trimmed = source_name.strip()
    folded = trimmed.lower().translate(_SEPARATORS)
    known = NAMES.get(folded)
    if known is not None:
        return known
    return folded if folded in STANDARD_NAMES else trimmed
