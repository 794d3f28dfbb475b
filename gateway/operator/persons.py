"""One person, named by an operator: whose data to look for, to export, to erase."""

import msgspec

from gateway.event import Struct, User
from gateway.runtime import Gateway
from gateway.subjects import person_of


class PersonQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Whose data, at all sites or one."""

    email: str | None = None
    phone: str | None = None
    external_id: str | None = None
    site: str | None = None

    def __repr__(self) -> str:
        """Names nobody."""
        return f"{type(self).__name__}(…)"

    def user(self) -> User:
        """Return the person."""
        return User(
            email=(self.email,) if self.email else (),
            phone=(self.phone,) if self.phone else (),
            external_id=(self.external_id,) if self.external_id else (),
        )


class Holdings(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """How much is kept of a person; ``erased_before`` (Unix s) is from an earlier erasure."""

    waiting: int
    dead: int
    memories: int
    erased_before: float | None


def subjects_of(gateway: Gateway, query: PersonQuery) -> list[bytes]:
    """
    Return the person's subjects at the sites that are meant.

    Raises:
        ValueError: Nobody is named, or the site is none.
    """
    user = query.user()
    if user == User():
        raise ValueError("Name the person by email, phone or external_id.")
    sites = {route.source.site for route in gateway.parts.routes.values()}
    if query.site is not None and query.site not in sites:
        raise ValueError(f"site: there is no site '{query.site}'; known are {', '.join(sorted(sites))}.")
    subjects: list[bytes] = []
    for route in gateway.parts.routes.values():
        if query.site in (None, route.source.site):
            country = route.source.default_country
            subjects += person_of(gateway.outbox.digest, route.source.site, user, country).all
    return list(dict.fromkeys(subjects))


async def holdings_of(gateway: Gateway, query: PersonQuery) -> Holdings:
    """
    Count what an erasure would erase.

    Raises:
        ValueError: As :func:`subjects_of`. Unavailable: the store cannot be read.
    """
    kept = await gateway.outbox.of_subjects(subjects_of(gateway, query))
    dead = sum(one.is_dead for one in kept.units)
    return Holdings(
        waiting=len(kept.units) - dead, dead=dead, memories=len(kept.memories), erased_before=kept.erased_before
    )


async def erase(gateway: Gateway, query: PersonQuery) -> int:
    """
    Erase what is kept of a person; returns how many events.

    Raises:
        ValueError: As :func:`subjects_of`. Unavailable: the store cannot be written.
    """
    subjects = subjects_of(gateway, query)
    ended = await gateway.memory.erase(subjects, requested_at=gateway.clock())
    for one in ended:
        gateway.sender.settled(one)
    await gateway.replays.erase(subjects)
    gateway.forget_shown()
    if query.email:
        await gateway.audiences.bar(query.email)
    return len(ended)
