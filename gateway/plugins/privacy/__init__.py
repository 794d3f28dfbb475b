"""
The ``privacy`` plugin: allow, limit, or drop, by what the person's signals say. ``docs/privacy.md`` has the table.

==================  ==================================================================
``enricher.py``     the decisions, in their order
``signals.py``      which signals of a hit are opt-outs
``us_privacy.py``   the IAB's US privacy string
``gpp.py``          the IAB's GPP string
``residence.py``    where the person lives: the event, a CDN's headers, a database
``place.py``        a country, and in the US a state
``geoip.py``        the optional MaxMind database
``states.py``       the states that have a privacy law, and since when
``options.py``      ``[plugins.privacy]``
==================  ==================================================================
"""

from datetime import UTC, datetime

from gateway import Context, Enricher, hookimpl, proxies
from gateway.plugins.privacy import geoip, options, states
from gateway.plugins.privacy.enricher import PrivacyEnricher
from gateway.plugins.privacy.residence import Residence

__all__ = ["PrivacyEnricher", "Residence", "register_enrichers"]


@hookimpl
def register_enrichers(context: Context) -> list[Enricher]:
    """Provide ``privacy``; a wrong ``[plugins.privacy]`` or an unusable database ends the start."""
    given = options.read(context.options.get("privacy", {}))
    today = datetime.fromtimestamp(context.clock(), UTC).date()
    limited = states.in_force(today) if given.limited_states is None else frozenset(given.limited_states)
    database = geoip.opened(context.folder / given.geoip) if given.geoip is not None else None
    return [PrivacyEnricher(Residence(limited, proxies.TrustedProxies(context.trusted_proxies), database))]
