"""Who the shopper is: identifiers, browser and click id, under all the names that templates use."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from adapters.gtm.reading import Fact, Table, first_of, object_of
from gateway import Client, User, coerce


def _maids(value: Any) -> tuple[str, ...]:
    """Return mobile ad ids; Pinterest's template takes several in one text, parted by commas."""
    return tuple(part.strip() for text in coerce.texts(value) for part in text.split(",") if part.strip())


def _texts(field: str, *names: tuple[str, ...]) -> Fact:
    return Fact(coerce.texts, f"{field}: not_a_text", names)


#: Names in ``user_data.address``, in ``user_data``, and at the top level of the event data.
#: Source: Google, common event data (developers.google.com/tag-platform/tag-manager/server-side); the server
#: templates pinterest/ss-gtm-template and stape-io/pinterest-capi-tag; stape-io/data-client. Read 2026-11.
_USER = Table(
    {
        "email": _texts("email", (), ("email_address", "email", "em"), ("email", "email_address", "userEmail", "mail")),
        "phone": _texts(
            "phone",
            (),
            ("phone_number", "phone", "ph"),
            ("phone", "phone_number", "phoneNumber", "userPhoneNumber"),
        ),
        "first_name": _texts(
            "first_name",
            ("first_name", "firstName"),
            ("first_name", "fn"),
            ("first_name", "firstName", "FirstName", "nameFirst", "userFirstName"),
        ),
        "last_name": _texts(
            "last_name",
            ("last_name", "lastName"),
            ("last_name", "ln"),
            ("last_name", "lastName", "LastName", "nameLast", "userLastName"),
        ),
        "city": _texts("city", ("city",), ("city", "ct"), ("city",)),
        "state": _texts("state", ("region", "state"), ("region", "state", "st"), ("state", "region")),
        "postal_code": _texts(
            "postal_code",
            ("postal_code", "zip"),
            ("postal_code", "zip", "zp"),
            ("zip", "postal_code", "postalCode"),
        ),
        "country": _texts("country", ("country",), ("country",), ("countryCode", "country")),
        "gender": _texts("gender", (), ("gender", "ge"), ("gender",)),
        "birth_date": _texts("birth_date", (), ("date_of_birth", "birth_date", "db"), ("date_of_birth", "db")),
        "mobile_ad_id": Fact(_maids, "mobile_ad_id: not_a_text", ((), ("hashed_maids",), ("hashed_maids",))),
        "external_id": _texts("external_id", (), ("external_id",), ("external_id", "user_id", "userId", "client_id")),
    }
)
_CLIENT = Table(
    {
        "ip": Fact(coerce.text, "ip: not_a_text", (("client_ip_address",), ("ip_override",))),
        "user_agent": Fact(coerce.text, "user_agent: not_a_text", (("client_user_agent",), ("user_agent",))),
    }
)
#: The cookie before the fields, as stape's template orders them.
_CLICK_ID = Table({"epik": Fact(coerce.text, None, (("_epik",), ("_epik", "epik", "click_id"), ("click_id",)))})
#: Hashes by Google's rules that equal Pinterest's: lower case and trimmed.
_HASHED = {
    "sha256_email_address": "email",
    "sha256_email": "email",
    "sha256_first_name": "first_name",
    "sha256_last_name": "last_name",
}
_HASHED_NAMES = frozenset({*_HASHED, "sha256_phone_number"})
_HEX = re.compile(r"[0-9A-Fa-f]{64}\Z")


def user_of(data: Mapping[str, Any], notes: list[str]) -> User:
    """Return the raw identifiers: of several names for a field the first readable, plain before hashed."""
    given = object_of(data.get("user_data"))
    address = object_of(given.get("address"))
    found = _USER.read(notes, address, given, data)
    for place in (address, given, data):
        _add_hashes(found, place, notes)
    return User(**found)


def _add_hashes(found: dict[str, Any], place: Mapping[str, Any], notes: list[str]) -> None:
    """Fill in what only a hash tells."""
    if _HASHED_NAMES.isdisjoint(place):
        return
    for name, value in place.items():
        field = _HASHED.get(name)
        if field is not None and field not in found:
            read = first_of(notes, f"{field}: not_a_hash", _digests, (value,))
            if read is not None:
                found[field] = read
        elif name == "sha256_phone_number" and "phone" not in found and coerce.texts(value):
            # Google hashes E.164 with its "+", Pinterest digits alone: the hashes never match
            notes.append("phone: hashed_with_plus")


def _digests(value: Any) -> tuple[str, ...]:
    return tuple(digest for text in coerce.texts(value) if (digest := _digest(text)) is not None)


def _digest(text: str) -> str | None:
    """Return 64 hex digits of a SHA-256 in hex or in base64 (either alphabet, padded or not)."""
    if _HEX.match(text):
        return text.lower()
    if len(text) not in (43, 44):
        return None
    try:
        raw = base64.b64decode(text.rstrip("=").translate(_URL_SAFE) + "=", validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw.hex() if len(raw) == 32 else None


_URL_SAFE = str.maketrans("-_", "+/")


def client_of(data: Mapping[str, Any], notes: list[str]) -> Client:
    """Return the shopper's address and browser as the payload says; the connection is never looked at."""
    return Client(**_CLIENT.read(notes, object_of(data.get("user_data")), data))


def click_ids_of(data: Mapping[str, Any]) -> dict[str, str]:
    """Return Pinterest's click id under ``epik``, byte for byte."""
    cookies, user_data = object_of(data.get("common_cookie")), object_of(data.get("user_data"))
    return _CLICK_ID.read([], cookies, data, user_data)
