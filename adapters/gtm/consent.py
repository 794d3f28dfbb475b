"""What the shopper chose: Google's consent signals, stape's ``consent_state``, and the IAB's strings."""

import re
from collections.abc import Mapping
from typing import Any

from gateway import Consent, coerce

#: ``G1xy``: x is ad_storage, y analytics_storage; 1 granted, 0 denied, "-" not asked.
_GCS = re.compile(r"G1([01-])([01-])", re.ASCII)
#: Where Google's tag says that ads are not to be personalised, and the value that says so. Source: Google, "Disable
#: privacy features with the Google tag" (``npa`` and ``rdp`` are their parameters in a hit), read 2026-11.
_NOT_PERSONAL = {
    "allow_ad_personalization_signals": False,
    "restricted_data_processing": True,
    "npa": True,
    "x_ga_npa": True,
    "rdp": True,
    "x_ga_rdp": True,
}
_NAMES = frozenset({"consent_state", "x_ga_gcs", "gcs", "gpc", "us_privacy", "gpp", "gpp_sid", *_NOT_PERSONAL})
_SILENT = Consent()
_GRANTED = {"0": False, "1": True}


def consent_of(data: Mapping[str, Any]) -> Consent:
    """
    Return the choices, None for what is not said.

    ``consent_state`` wins over ``x-ga-gcs``. Marketing is allowed where ad_storage is granted and
    ad_user_data is not denied, and denied where either is. No personalised ads (``ad_personalization``
    denied, restricted data processing) is an opt-out of sale or sharing. ``x-ga-gcd`` is not read: the meaning of its
    letters is not published, and a wrong guess would either lose events or send what was refused.
    """
    if _NAMES.isdisjoint(data):
        return _SILENT
    state = coerce.mapping(data.get("consent_state"))
    ad_storage, analytics = _gcs(data.get("x_ga_gcs", data.get("gcs")))
    ad_storage = _told(state.get("ad_storage"), ad_storage)
    ad_user_data = _told(state.get("ad_user_data"), None)
    return Consent(
        marketing=False if ad_user_data is False else ad_storage,
        analytics=_told(state.get("analytics_storage"), analytics),
        sale_of_data=False if _is_not_personal(data, state) else None,
        gpc=coerce.boolean(data.get("gpc")),
        us_privacy=coerce.text(data.get("us_privacy")),
        gpp=coerce.text(data.get("gpp"), coerce.MAX_URL),
        gpp_sid=",".join(coerce.texts(data.get("gpp_sid"))) or None,
    )


def _is_not_personal(data: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    if _told(state.get("ad_personalization"), None) is False:
        return True
    return any(coerce.boolean(data.get(name)) is said for name, said in _NOT_PERSONAL.items())


def _gcs(value: Any) -> tuple[bool | None, bool | None]:
    match = _GCS.match(value.strip().upper()) if isinstance(value, str) else None
    return (_GRANTED.get(match[1]), _GRANTED.get(match[2])) if match else (None, None)


def _told(value: Any, otherwise: bool | None) -> bool | None:
    """Return what a boolean or "granted"/"denied" says, ``otherwise`` when it says neither."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("granted", "denied"):
            return word == "granted"
    told = coerce.boolean(value)
    return otherwise if told is None else told
