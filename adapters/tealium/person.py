"""Who the person is, and the flags that limit what may be done with it."""

from adapters.tealium.variables import Variables
from gateway import Event, User, coerce

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
_SILENT = Event(name="")


def user_of(variables: Variables) -> User:
    """Return the raw identifiers; of several variables for one identifier the first that has any text."""
    if _IDENTIFYING.isdisjoint(variables.udo):
        return _SILENT.user
    found = {field: variables.texts(*names) for field, names in _IDENTIFIERS.items()}
    return User(**{field: texts for field, texts in found.items() if texts})


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
