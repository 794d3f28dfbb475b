"""
Subjects: the gateway's own keyed hashes of a person, by which an erasure finds everything kept of them.

Independent of destinations, scoped to the site, and the same for a plain value and for its SHA-256.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from gateway import identifiers
from gateway.event import User

Digest = Callable[..., bytes]


class Person(NamedTuple):
    """The subjects of one person, by what they were made of; ``ids`` are external ids and a source's own."""

    emails: tuple[bytes, ...] = ()
    phones: tuple[bytes, ...] = ()
    ids: tuple[bytes, ...] = ()

    @property
    def all(self) -> tuple[bytes, ...]:
        """Every subject."""
        return self.emails + self.phones + self.ids


NOBODY = Person()


@lru_cache(256)
def site_subjects(digest: Digest, site: str) -> tuple[bytes, ...]:
    """Return the subject that stands for everything of a site."""
    return (digest("subject", site, "site"),)


def person_of(digest: Digest, site: str, user: User, country: str | None, customer_id: str | None = None) -> Person:
    """Return the subjects of a person: e-mail, phone, external id (and the source's own id of a customer)."""
    ids = (*user.external_id, customer_id) if customer_id else user.external_id
    if not (user.email or user.phone or ids):
        return NOBODY
    country = user.country[0] if user.country else country
    return Person(
        tuple([digest("subject", site, "email", _email(value)) for value in user.email]),
        tuple([digest("subject", site, "phone", _phone(value, country)) for value in user.phone]),
        tuple([digest("subject", site, "id", _external_id(value)) for value in ids]),
    )


def _email(value: str) -> str:
    try:
        return identifiers.digest(identifiers.email, value)
    except identifiers.Unusable:
        return value


def _phone(value: str, country: str | None) -> str:
    try:
        return identifiers.digest(identifiers.phone, value, country)
    except identifiers.Unusable:
        return value


def _external_id(value: str) -> str:
    try:
        return identifiers.digest(identifiers.external_id, value)
    except identifiers.Unusable:
        return value
