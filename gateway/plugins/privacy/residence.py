"""
Where the person lives: what the event says, else what a CDN's headers say, else a database of addresses.

Sources of the headers, read 2026-11: Cloudflare, "Managed Transforms" (visitor location headers); Amazon CloudFront,
"Add CloudFront request headers" (viewer location); Vercel, "Request headers"; Google App Engine, "Request headers"
(country ``ZZ`` is unknown, the region in lower case).
"""

from collections.abc import Iterator, Set
from itertools import product
from string import ascii_lowercase
from typing import NamedTuple

import msgspec

from gateway import Event, Hit, User, identifiers, proxies
from gateway.plugins.privacy.geoip import GeoIp
from gateway.plugins.privacy.place import US, Place, place_of
from gateway.plugins.privacy.states import STATES

#: Country and region, of each CDN.
HEADERS = (
    ("cf-ipcountry", "cf-region-code"),
    ("cloudfront-viewer-country", "cloudfront-viewer-country-region"),
    ("x-vercel-ip-country", "x-vercel-ip-country-region"),
    ("x-appengine-country", "x-appengine-region"),
)
#: Sources may send codes hashed; there are few enough to know all hashes.
_COUNTRY_OF_HASH = {identifiers.sha256(code): code.upper() for code in map("".join, product(ascii_lowercase, repeat=2))}


class Told(NamedTuple):
    """What the event itself says, as codes; ``is_whole``: every state it names is one of the US."""

    countries: frozenset[str]
    states: frozenset[str]
    is_whole: bool


class Found(NamedTuple):
    """A place that was not told, and who knew it: ``headers`` or ``geoip``."""

    place: Place
    by: str


class Residence:
    """
    Decides who lives where an inferred opt-out limits.

    Args:
        limited: Codes of the states.
        trusted: The proxies whose headers are believed.
        database: Looked up last.
    """

    def __init__(self, limited: frozenset[str], trusted: proxies.TrustedProxies, database: GeoIp | None = None) -> None:
        self._limited = limited
        self._trusted = trusted
        self._database = database

    def is_outside(self, event: Event, hit: Hit) -> bool:
        """Whether the person certainly lives where nothing is limited; unknown is not outside."""
        told = _told(event.user)
        answer = self._judge(told.countries, told.states, told.is_whole)
        if answer is not None:
            return answer
        for found in self._found(event, hit):
            country, state = found.place
            if country is None or (told.countries and country not in told.countries):
                continue
            answer = self._judge({country}, {state} if state else set(), True)
            if answer is not None:
                return answer
        return False

    def filled(self, event: Event, hit: Hit) -> Event:
        """
        Return the event with state and country of the US where it lacks them and headers or database know them.

        Pinterest applies limited data by them. What the event says is never contradicted.
        """
        user = event.user
        if user.state and user.country:
            return event
        told = _told(user)
        fitting = [found for found in self._found(event, hit) if _fits(found.place, told, user)]
        if not fitting:
            return event
        best = next((found for found in fitting if found.place.state), fitting[0])
        state = (best.place.state,) if best.place.state else ()
        filled = msgspec.structs.replace(user, country=user.country or (US,), state=user.state or state)
        return msgspec.structs.replace(event, user=filled, notes=(*event.notes, f"privacy: residence by {best.by}"))

    def _judge(self, countries: Set[str], states: Set[str], whole: bool) -> bool | None:
        """Whether this is outside; None when it is not enough to tell."""
        if countries and US not in countries:
            return True
        if not states.isdisjoint(self._limited):
            return False
        return True if states and whole else None

    def _found(self, event: Event, hit: Hit) -> Iterator[Found]:
        if not hit.source.is_server and hit.peer is not None and self._trusted.trusts(hit.peer):
            for country, region in HEADERS:
                given = hit.headers.get(country)
                if given:
                    yield Found(place_of(given, hit.headers.get(region)), "headers")
        if self._database is not None and event.client.ip:
            yield Found(self._database.place(event.client.ip), "geoip")


def _fits(place: Place, told: Told, user: User) -> bool:
    """Whether a place says more than the event does, and nothing else."""
    if place.country != US or (told.countries and US not in told.countries):
        return False
    return place.state in told.states if user.state else place.state is not None or not user.country


def _told(user: User) -> Told:
    countries = {code for text in user.country if (code := _country(text))}
    codes = [_state(text) for text in user.state]
    states = frozenset(code for code in codes if code)
    return Told(frozenset(countries), states, None not in codes)


def _country(text: str) -> str | None:
    hashed = identifiers.hashed(text)
    if hashed is not None:
        return _COUNTRY_OF_HASH.get(hashed)
    try:
        return identifiers.country(text).upper()
    except identifiers.Unusable:
        return None


def _state(text: str) -> str | None:
    hashed = identifiers.hashed(text)
    if hashed is not None:
        code = _COUNTRY_OF_HASH.get(hashed)
    else:
        try:
            code = identifiers.state(text).upper()
        except identifiers.Unusable:
            return None
    return code if code in STATES else None
