"""
What the person chose: Tealium's consent managers, and the signals of US privacy laws.

Sources, read 2026-11: Tealium, "Consent change event specifications" (categories and their order, ``do_not_sell``),
"GDPR Functions" (the consent cookie and its ``dns``), "Server-side Global Privacy Control"
(``global_privacy_control_opt_out``); the cookie's form (``c1:1|c3:0|ts:…|consent:true``) as in public pages.
"""

import re
from urllib.parse import unquote

from adapters.tealium.variables import Variables, is_blank
from gateway import Consent, coerce

_COOKIE = "CONSENTMGR"
_CHOICES = frozenset(
    {
        "consent_status", "consent_categories", "do_not_sell", "gpc", "global_privacy_control",
        "global_privacy_control_opt_out", "us_privacy", "gpp", "gpp_string", "gpp_sid", f"cp.{_COOKIE}",
    }
)  # fmt: skip
_SILENT = Consent()
_WORDS = re.compile(r"[a-z_]+")
#: The consent manager's category of advertising tags; the other one that matters here is ``analytics``.
_ADVERTISING = "display_ads"
#: Categories stand in the cookie by their place in Tealium's list: ``analytics`` first, ``display_ads`` third.
_ANALYTICS_KEY, _ADVERTISING_KEY = "c1", "c3"


def consent_of(variables: Variables) -> Consent:
    """
    Return what the person chose, as far as a variable says it without doubt; of two answers the denial counts.

    ``consent_status`` and ``consent_categories`` are the mobile consent manager's, ``do_not_sell`` its CCPA policy's;
    the cookie ``CONSENTMGR`` is the web's. An e-mail subscription is no consent to measuring.
    """
    if _CHOICES.isdisjoint(variables.udo) and _COOKIE not in variables.cookies:
        return _SILENT
    marketing, analytics = _mobile(variables)
    web = _cookie(variables)
    return Consent(
        marketing=_stricter(marketing, _web(web, _ADVERTISING_KEY)),
        analytics=_stricter(analytics, _web(web, _ANALYTICS_KEY)),
        sale_of_data=_negated(_opted_out(variables), coerce.boolean(web.get("dns"))),
        gpc=variables.flag("gpc", "global_privacy_control", "global_privacy_control_opt_out"),
        us_privacy=variables.text("us_privacy"),
        gpp=variables.read(lambda value: coerce.text(value, coerce.MAX_URL), "unreadable", "gpp", "gpp_string"),
        gpp_sid=",".join(variables.texts("gpp_sid")) or None,
    )


def _mobile(variables: Variables) -> tuple[bool | None, bool | None]:
    status = (variables.text("consent_status") or "").lower()
    categories = _WORDS.findall(" ".join(variables.texts("consent_categories")).lower())
    if status == "notconsented":
        return False, False
    if status == "consented" and categories:
        return _ADVERTISING in categories, "analytics" in categories
    return None, None


def _cookie(variables: Variables) -> dict[str, str]:
    pairs = (part.partition(":") for part in unquote(variables.cookie(_COOKIE) or "").split("|"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def _web(cookie: dict[str, str], category: str) -> bool | None:
    """Return the choice for a category: all are denied by ``consent:false``; without categories all are one choice."""
    consent = coerce.boolean(cookie.get("consent"))
    return coerce.boolean(cookie.get(category)) if consent is True and category in cookie else consent


def _opted_out(variables: Variables) -> bool | None:
    """Return ``do_not_sell``: a truth value, or the list of the tags that may not sell."""
    given = variables.udo.get("do_not_sell")
    if not isinstance(given, list):
        return variables.flag("do_not_sell")
    said = [coerce.boolean(item) for item in given if not is_blank(item)]
    return None if not said else any(item is not False for item in said)


def _stricter(*answers: bool | None) -> bool | None:
    said = [answer for answer in answers if answer is not None]
    return all(said) if said else None


def _negated(*opt_outs: bool | None) -> bool | None:
    return _stricter(*(None if answer is None else not answer for answer in opt_outs))
