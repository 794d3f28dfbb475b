"""Who the person is, and what the person chose."""

import re

from adapters.tealium.variables import Variables
from gateway import Consent, Event, User, coerce

_IDENTIFIERS: dict[str, tuple[str, ...]] = {
    "email": ("customer_email", "email_address", "user_email", "email"),
    "phone": ("customer_phone", "customer_phone_number", "phone_number", "user_phone", "phone"),
    "first_name": ("customer_first_name", "first_name"),
    "last_name": ("customer_last_name", "last_name"),
    "gender": ("customer_gender", "gender"),
    "birth_date": ("customer_birth_date", "customer_birthdate", "date_of_birth", "birth_date"),
    "city": ("customer_city", "_ccity"),
    "state": ("customer_state", "_cstate"),
    "postal_code": ("customer_zip", "customer_postal_code", "_czip"),
    "country": ("customer_country_code", "customer_country", "_ccountry"),
    "external_id": ("customer_id", "_ccustid", "customer_number", "user_id", "external_id"),
    "mobile_ad_id": ("device_advertising_id", "google_adid", "mobile_ad_id"),
}
_IDENTIFYING = frozenset(name for names in _IDENTIFIERS.values() for name in names)
_CHOICES = frozenset(
    {
        "consent_status", "consent_categories", "do_not_sell", "gpc", "global_privacy_control", "us_privacy", "gpp",
        "gpp_string", "gpp_sid",
    }
)  # fmt: skip
_SILENT = Event(name="")
_WORDS = re.compile(r"[a-z_]+")
#: The consent manager's category of advertising tags; the other one that matters here is ``analytics``.
_ADVERTISING = "display_ads"


def user_of(variables: Variables) -> User:
    """Return the raw identifiers; of several variables for one identifier the first that has any text."""
    if _IDENTIFYING.isdisjoint(variables.udo):
        return _SILENT.user
    found = {field: variables.texts(*names) for field, names in _IDENTIFIERS.items()}
    return User(**{field: texts for field, texts in found.items() if texts})


def consent_of(variables: Variables) -> Consent:
    """
    Return what the person chose, as far as a variable says it without doubt.

    ``consent_status`` and ``consent_categories`` are the mobile consent manager's, ``do_not_sell`` its CCPA policy's.
    An e-mail subscription is no consent to measuring.
    """
    if _CHOICES.isdisjoint(variables.udo):
        return _SILENT.consent
    marketing = analytics = None
    status = (variables.text("consent_status") or "").lower()
    categories = _WORDS.findall(" ".join(variables.texts("consent_categories")).lower())
    if status == "notconsented":
        marketing = analytics = False
    elif status == "consented" and categories:
        marketing, analytics = _ADVERTISING in categories, "analytics" in categories
    sold = variables.flag("do_not_sell")
    return Consent(
        marketing=marketing,
        analytics=analytics,
        sale_of_data=None if sold is None else not sold,
        gpc=variables.flag("gpc", "global_privacy_control"),
        us_privacy=variables.text("us_privacy"),
        gpp=variables.text("gpp", "gpp_string"),
        gpp_sid=",".join(variables.texts("gpp_sid")) or None,
    )


def limited_data_of(variables: Variables) -> bool | None:
    """Return the explicit limited-data flag: ``opt_out_type`` with LDP, or ``limited_data``."""
    flags = variables.text("opt_out_type")
    if flags is not None and "LDP" in (flag.strip().upper() for flag in flags.split(",")):
        return True
    return variables.flag("limited_data")


def opt_out_of(variables: Variables) -> bool | None:
    """Return the opt-out, for apps the phone's "limit ad tracking"."""
    said = variables.flag("opt_out", "google_limit_ad_tracking", "limit_ad_tracking")
    if said is not None:
        return said
    allowed = variables.read(coerce.boolean, "not_a_boolean", "device_advertising_enabled")
    return None if allowed is None else not allowed
