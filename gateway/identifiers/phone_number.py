"""Phone numbers: digits with the country code, by way of the phonenumbers library."""

import re
from functools import lru_cache
from typing import Final

import phonenumbers
from phonenumbers import PhoneNumber, ValidationResult

from gateway.identifiers import places
from gateway.identifiers.text import Unusable, cleaned, western

ALREADY_HASHED_E164: Final = "already_hashed_e164"
"""Reason for adapters: a phone hashed by Google's rule (E.164 with "+") can never match digits."""

_MAX_PHONE: Final = 100  # characters, with extension and remarks
_EXTENSION: Final = re.compile(r"(?:;.*|[\s,]*(?:ext|extn|extension|x|#)[\s.:=]*\d{1,7}\s*)$", re.IGNORECASE)
_NOT_DIGITS: Final = re.compile(r"[^0-9]+")
_NORTH_AMERICAN: Final = re.compile(r"1?[2-9][0-9]{9}")


def phone(text: str, country: str | None = None) -> str:
    """``ph``: digits only, country code first, no leading zeros; extensions are cut off.

    The country code is the number's own ("+", "00", or digits that already carry it), else that of
    ``country`` (a code or a name; pass the address's country, else the site's default). A number that
    cannot be one of that country keeps its digits without a guessed code, if it has 7 to 15 of them.
    Reason: "not_a_phone".
    """
    text = western(cleaned(text))
    if "@" in text or len(text) > _MAX_PHONE:
        raise Unusable("not_a_phone")
    text = _EXTENSION.sub("", text)
    _, plus, after = text.partition("+")
    digits = _NOT_DIGITS.sub("", after if plus else text)
    found = None
    if plus or digits.startswith("00"):
        digits = digits.lstrip("0")
        found = _international(digits)
        if found is None and "(0)" in text:  # a trunk zero where the country has none
            found = _international(_NOT_DIGITS.sub("", (after or text).replace("(0)", "")).lstrip("0"))
    elif digits and (region := _region(country)):
        found = _national(digits, region)
    result = found or digits.lstrip("0")
    if not 7 <= len(result) <= 15:
        raise Unusable("not_a_phone")
    return result


def _region(country: str | None) -> str | None:
    code = places.country_code(country)
    region = code.upper() if code else None
    return region if region in phonenumbers.SUPPORTED_REGIONS else None


def _possible(number: str, region: str | None) -> PhoneNumber | None:
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None
    # is_possible_number would also take a number without its area code
    reason = phonenumbers.is_possible_number_with_reason(parsed)
    return parsed if reason == ValidationResult.IS_POSSIBLE else None


def _joined(number: PhoneNumber) -> str:
    return f"{number.country_code}{phonenumbers.national_significant_number(number)}"


#: Parsing is slow, and a number is read twice for each event: for the destination and for the person's subject. Small,
#: because raw numbers must not pile up in memory.
_RECENT: Final = 128


@lru_cache(_RECENT)
def _international(digits: str) -> str | None:
    if len(digits) == 11 and digits[0] == "1" and _NORTH_AMERICAN.fullmatch(digits):  # spares a 40 µs parse
        return digits
    number = _possible("+" + digits, None)
    return _joined(number) if number else None


@lru_cache(_RECENT)
def _national(digits: str, region: str) -> str | None:
    if region in ("US", "CA") and _NORTH_AMERICAN.fullmatch(digits):
        return digits if len(digits) == 11 else "1" + digits
    number = _possible(digits, region)
    if number is None:
        return None
    if digits[0] != "0" and not phonenumbers.is_valid_number(number):
        foreign = _possible("+" + digits, None)
        if foreign and phonenumbers.is_valid_number(foreign):
            number = foreign
    return _joined(number)
