"""Identifiers of a person, normalised as the Pinterest Conversions API describes them in prose, and SHA-256.

One function per identifier turns a text into its normal form (not hashed) or raises `Unusable`; `digest`
gives what is sent. Source of every rule: the descriptions of ``user_data`` in Pinterest's OpenAPI document,
5.23.0. Its *example hashes* contradict them (they are of "US", "male", "99999") and are not followed.

Every text is brought to Unicode NFC and trimmed of white space, control and invisible characters. What
stands for "no value" ("null", "{{Email}}", U+FFFD from a wrong decoding) is refused: its hash would join
strangers to one person. Nothing raises anything but `Unusable`, whose reason never contains the text.
"""

from collections.abc import Callable, Mapping
from typing import Final

from gateway.identifiers.address import city, country, postal_code, state
from gateway.identifiers.birthday import birth_date
from gateway.identifiers.connection import MAX_USER_AGENT, ip, user_agent
from gateway.identifiers.person import email, external_id, gender, mobile_ad_id, name
from gateway.identifiers.phone_number import ALREADY_HASHED_E164, phone
from gateway.identifiers.places import load
from gateway.identifiers.text import MAX_TEXT, Unusable, digest, hashed, sha256

__all__ = [
    "ALREADY_HASHED_E164",
    "COUNTRY_FIELDS",
    "FIELDS",
    "MAX_TEXT",
    "MAX_USER_AGENT",
    "Unusable",
    "birth_date",
    "city",
    "country",
    "digest",
    "email",
    "external_id",
    "gender",
    "hashed",
    "ip",
    "load",
    "mobile_ad_id",
    "name",
    "phone",
    "postal_code",
    "sha256",
    "state",
    "user_agent",
]

FIELDS: Final[Mapping[str, Callable[[str], str]]] = {
    "email": email,
    "first_name": name,
    "last_name": name,
    "gender": gender,
    "birth_date": birth_date,
    "city": city,
    "country": country,
    "external_id": external_id,
    "mobile_ad_id": mobile_ad_id,
}
"""Canonical user fields whose normal form depends on the text alone."""

COUNTRY_FIELDS: Final[Mapping[str, Callable[[str, str | None], str]]] = {
    "phone": phone,
    "state": state,
    "postal_code": postal_code,
}
"""Canonical user fields whose normal form depends on the country of the address, too."""
