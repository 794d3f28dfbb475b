"""City, state, postal code and country."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

from gateway.identifiers import places
from gateway.identifiers.text import Unusable, cleaned, lowered, western

_PUNCTUATION: Final = bytes(code for code in range(128) if not chr(code).isalnum())


def city(text: str) -> str:
    """``ct``: lower case, letters (accents kept, any script) and digits only."""
    text = lowered(text)
    if text.isalnum():
        return text
    if text.isascii():
        text = text.encode().translate(None, _PUNCTUATION).decode()  # a third of the time of str.translate
    else:
        kept = (char for char in text if char.isalnum() or unicodedata.category(char)[0] == "M")
        text = unicodedata.normalize("NFC", "".join(kept))
    if not any(map(str.isalnum, text)):
        raise Unusable("empty")
    return text


def state(text: str, country: str | None = None) -> str:
    """``st``: the code of a state or province, lower case, from a code ("CA", "US-CA") or a name.

    Two letters where ISO 3166-2 has two; other codes as they are ("nsw"). An unknown code of up to three
    letters or digits is kept. ``country`` is a code or a name; without one names are those of the US and
    Canada. Reason: "unknown_state".
    """
    text = cleaned(text)
    code = places.subdivision_code(text, country)
    if code is None:
        code = places.key(text)
        if not (0 < len(code) <= 3 and code.isascii()):
            raise Unusable("unknown_state")
    return code


_VEHICLE_CODES: Final[Mapping[str, str]] = {"de": "d", "at": "a", "lu": "l", "fr": "f", "it": "i", "be": "b",
    "se": "s", "no": "n", "es": "e", "pt": "p", "li": "fl", "fi": "sf"}  # fmt: skip
_LETTERED: Final = re.compile(r"([a-z]{1,2})([0-9]{3,})")


def postal_code(text: str, country: str | None = None) -> str:
    """``zp``: "digits only" where codes are digits, all of them: ZIP+4 "94016-1234" gives "940161234".

    The rule in prose says digits and nothing of five, so a ZIP+4 is not cut. A code with letters (GB, CA,
    NL, ...) keeps them, in lower case without spaces: "po167gz", for "167" would be shared by a thousand
    towns. A country's own prefix before digits is taken off ("D-10115" with DE, "CA 94016" with US).
    Reason: "not_a_postal_code".
    """
    text = western(lowered(text)).lower()
    code = text if text.isalnum() else "".join(filter(str.isalnum, text))
    if not code.isdigit() and (prefixed := _LETTERED.fullmatch(code)):
        own = places.country_code(country)
        if own and (own == "us" or prefixed[1] in (own, _VEHICLE_CODES.get(own))):
            code = prefixed[2]
    if len(code) > 12 or not code.isascii() or not any(map(str.isdigit, code)):
        raise Unusable("not_a_postal_code")
    return code


def country(text: str) -> str:
    """``country``: ISO 3166-1 alpha-2, lower case, from a code or a name. Reason: "unknown_country"."""
    code = places.country_code(cleaned(text))
    if code is None:
        raise Unusable("unknown_country")
    return code
