"""E-mail, name, gender and the ids of a person or device."""

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from gateway.identifiers import places
from gateway.identifiers.text import Unusable, cleaned, lowered

_MAX_EMAIL: Final = 320  # 64 before the @, 255 after it: RFC 5321 4.5.3.1
_ADDRESS: Final = re.compile(r"[^\s@<>()\[\],;:\"\\]+@(?:[a-z0-9_-]+\.)+[a-z0-9-]{2,}")
_IDN_LABEL: Final = r"[^\s@<>()\[\],;:\"\\.。]+"  # the ideographic full stop divides labels, too: RFC 3490 3.1
_IDN_ADDRESS: Final = re.compile(rf"[^\s@<>()\[\],;:\"\\]+@{_IDN_LABEL}(?:[.。]{_IDN_LABEL})+")


@lru_cache(16)
def email(text: str) -> str:
    """``em``: lower case. Dots and +tags stay: Pinterest does not ask to remove them.

    "mailto:" and a display name ("Zoë <zoe@example.com>") are taken off. Reasons: "not_an_email" (also for
    an MD5 or SHA-1 hash), "too_long", and those of every text.
    """
    text = lowered(text)
    if text.startswith("mailto:"):
        text = text[7:].partition("?")[0].strip()
    if text.endswith(">"):
        text = text[text.rfind("<") + 1 : -1].strip()
    if len(text) > _MAX_EMAIL:
        raise Unusable("too_long")
    if text.isascii():
        if not _ADDRESS.fullmatch(text):
            raise Unusable("not_an_email")
        return text
    text = unicodedata.normalize("NFC", text.replace("\u200c", "").replace("\u200d", ""))
    if not _IDN_ADDRESS.fullmatch(text):
        raise Unusable("not_an_email")
    return text


def name(text: str) -> str:
    """``fn`` and ``ln``: lower case. Punctuation stays; runs of white space inside become one space."""
    text = lowered(text)
    if text.isalpha():
        return text
    if not any(map(str.isalnum, text)):
        raise Unusable("empty")
    return " ".join(text.split())


_GENDERS: Final[Mapping[str, str]] = {
    word: letter
    for letter, words in (
        ("f", "f female woman girl femme mujer femenino femenina feminino feminin weiblich w"),
        ("m", "m male man boy homme hombre masculino masculin mannlich"),
        ("n", "n nonbinary nb enby x other diverse divers d genderqueer genderfluid agender neutral"),
    )
    for word in words.split()
}


def gender(text: str) -> str:
    """``ge``: "f", "m" or "n" (non-binary), from the letter or a word. Reason: "unknown_gender"."""
    letter = _GENDERS.get(places.key(cleaned(text)))
    if letter is None:
        raise Unusable("unknown_gender")
    return letter


_ZERO_ID: Final = re.compile(r"[0-]+")


def external_id(text: str, *, lower: bool = True) -> str:
    """``external_id``: trimmed and, unless ``lower`` is false, in lower case.

    Pinterest gives no rule: what counts is that the page's tag sends the same. "0" is a shop's guest, not a
    person: "zero_id".
    """
    text = lowered(text) if lower else cleaned(text)
    if _ZERO_ID.fullmatch(text):
        raise Unusable("zero_id")
    return text


_AD_ID: Final = re.compile(r"(?=[a-z-]*[0-9])[0-9a-z][0-9a-z-]{6,62}[0-9a-z]")


def mobile_ad_id(text: str) -> str:
    """``hashed_maids``: a GAID or IDFA in lower case, dashes kept.

    The all-zero id of a device that limits tracking is refused: "zero_id"; what no ad id looks like:
    "not_an_ad_id".
    """
    text = lowered(text)
    if _ZERO_ID.fullmatch(text):
        raise Unusable("zero_id")
    if not _AD_ID.fullmatch(text):
        raise Unusable("not_an_ad_id")
    return text
