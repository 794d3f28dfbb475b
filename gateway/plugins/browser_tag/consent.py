"""What the person chose, in the tag's JSON."""

from typing import Any

from gateway import Consent, coerce
from gateway.plugins.browser_tag.reader import SILENT, Reader

_WORDS = {"granted": True, "denied": False}


def consent_of(event: Reader) -> Consent:
    """
    Read ``consent``; unknown keys are ignored.

    Google's ``ad_storage`` and ``ad_user_data`` count as marketing, ``analytics_storage`` as analytics,
    ``ad_personalization`` as sale of data. One denial is a denial.
    """
    given = event.object("consent")
    if given is None:
        return SILENT.consent
    return Consent(
        marketing=_all(given, "marketing", "ad_storage", "ad_user_data"),
        analytics=_all(given, "analytics", "analytics_storage"),
        sale_of_data=_sale(given),
        gpc=_choice(given, "gpc"),
        us_privacy=given.text("us_privacy"),
        gpp=given.read("gpp", _gpp),
        gpp_sid=given.read("gpp_sid", _sections),
    )


def _all(given: Reader, *names: str) -> bool | None:
    choices = [choice for choice in (_choice(given, name) for name in names) if choice is not None]
    return all(choices) if choices else None


def _sale(given: Reader) -> bool | None:
    said = _choice(given, "sale_of_data")
    return False if _choice(given, "ad_personalization") is False else said


def _choice(given: Reader, name: str) -> bool | None:
    return given.read(name, _granted, complaint="not_a_choice")


def _granted(value: Any) -> bool | None:
    if isinstance(value, str):
        word = _WORDS.get(value.strip().lower())
        if word is not None:
            return word
    return coerce.boolean(value)


def _gpp(value: Any) -> str | None:
    """Return the string, which may have the length of a URL: it holds a section for each law."""
    return coerce.text(value, coerce.MAX_URL)


def _sections(value: Any) -> str | None:
    """Return section ids as one text; the CMP API gives them as a list of numbers."""
    return ",".join(coerce.texts(value)) or None
