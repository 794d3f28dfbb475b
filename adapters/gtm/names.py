"""Event names: Google's recommended and automatic events, and what Pinterest calls them."""

from adapters.gtm.options import Options
from gateway import STANDARD_NAMES

#: Source: GA4 recommended events (developers.google.com/analytics, gtag.js reference, read 2026-11) against
#: Pinterest's own server template pinterest/ss-gtm-template (2026-05).
_COUNTERPARTS = {
    "page_view": "page_visit",
    "gtm.dom": "page_visit",
    "view_item_list": "view_category",
    "begin_checkout": "initiate_checkout",
    "purchase": "checkout",
    "buy": "checkout",
    "pay": "checkout",
    "payment": "checkout",
    "generate_lead": "lead",
    "sign_up": "signup",
    # the Pinterest tag's spelling, lower-cased
    "addtocart": "add_to_cart",
    "completeregistration": "signup",
    "pageview": "page_visit",
    "pagevisit": "page_visit",
    "viewcategory": "view_category",
    "viewcontent": "view_content",
    "watchvideo": "watch_video",
}

#: Known events without a counterpart: steps that Pinterest does not measure, and what GA4 collects by itself.
_NONE = frozenset(
    {
        "add_shipping_info", "refund", "remove_from_cart", "select_item", "select_promotion", "view_cart",
        "view_promotion",
        "click", "file_download", "first_visit", "form_start", "form_submit", "scroll", "session_start",
        "user_engagement", "video_complete", "video_progress", "video_start",
    }
)  # fmt: skip


def canonical(source_name: str, options: Options) -> str:
    """Return the canonical name, the source's own when no table knows it, "" without a counterpart."""
    name = source_name.strip()
    key = name.lower()
    if key == "view_item":
        return options.view_item
    if key in _COUNTERPARTS:
        return _COUNTERPARTS[key]
    if key in STANDARD_NAMES:
        return key
    # gtm.js, gtm.load, gtm.click …: the container's own triggers
    if key in _NONE or key.startswith("gtm.") or options.unknown == "drop":
        return ""
    return name
