"""Which signals of a hit are opt-outs of sale, sharing or targeted advertising."""

from typing import NamedTuple

from gateway import Consent
from gateway.plugins.privacy import gpp, us_privacy


class Signals(NamedTuple):
    """The names of the signals that opt out, as fields of :class:`gateway.Consent`, and what could not be read."""

    opt_outs: tuple[str, ...]
    notes: tuple[str, ...]


def of(consent: Consent) -> Signals:
    """
    Return every opt-out. A string that is there but cannot be read counts as one: it was sent for a reason.
    """
    opt_outs: list[str] = []
    notes: list[str] = []
    if consent.sale_of_data is False:
        opt_outs.append("sale_of_data")
    if consent.gpc is True:
        opt_outs.append("gpc")
    if consent.us_privacy:
        answer = us_privacy.is_opt_out(consent.us_privacy)
        if answer is not False:
            opt_outs.append("us_privacy")
        if answer is None:
            notes.append("us_privacy: unreadable")
    if consent.gpp:
        answer = gpp.is_opt_out(consent.gpp, consent.gpp_sid)
        if answer is not False:
            opt_outs.append("gpp")
        if answer is None:
            notes.append("gpp: unreadable")
    return Signals(tuple(opt_outs), tuple(notes))
