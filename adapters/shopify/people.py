"""Who bought: names, places and ids from Shopify's addresses, spelt as in webhooks or as in pixel events."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gateway import Struct, User, coerce

_GID = re.compile(r"gid://shopify/\w+/(\d+)")


class Spelling(Struct, frozen=True, kw_only=True):
    """How one of Shopify's two interfaces names the parts of an address; the first readable name counts."""

    first_name: str
    last_name: str
    state: tuple[str, ...]
    country: tuple[str, ...]


WEBHOOK = Spelling(
    first_name="first_name",
    last_name="last_name",
    state=("province_code", "province"),
    country=("country_code", "country"),
)
PIXEL = Spelling(
    first_name="firstName",
    last_name="lastName",
    state=("provinceCode", "province"),
    country=("countryCode", "country"),
)


def plain_id(value: Any) -> str | None:
    """Return an id as text; of a global id (``gid://shopify/Order/1``) only its number."""
    found = coerce.text(value)
    if found is not None and found.startswith("gid://"):
        match = _GID.match(found)
        return match[1] if match else None
    return found


def person(
    addresses: Sequence[Mapping[str, Any]],
    owner: Mapping[str, Any],
    spelling: Spelling,
    *,
    email: tuple[str, ...],
    phones: Sequence[Any],
    external_id: tuple[str, ...],
) -> User:
    """
    Return the person of an order, a checkout or an account.

    Args:
        addresses: Best first: billing, shipping, the customer's default.
        owner: The customer, for a name that no address has.
        spelling: Of addresses and owner.
        email: Read already.
        phones: Candidates, best first.
        external_id: Read already.
    """
    first_name, last_name = _name((*addresses, owner), spelling)
    city, state, postal_code, country = _place(addresses, spelling)
    phone = coerce.first(phones)
    return User(
        email=email,
        phone=_tuple(phone),
        first_name=_tuple(first_name),
        last_name=_tuple(last_name),
        city=_tuple(city),
        state=_tuple(state),
        postal_code=_tuple(postal_code),
        country=_tuple(country),
        external_id=external_id,
    )


def _tuple(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)


def _name(sources: Sequence[Mapping[str, Any]], spelling: Spelling) -> tuple[str | None, str | None]:
    """Both names of one person: a first name of one and a last name of another would match nobody."""
    for source in sources:
        if source:
            first, last = (
                coerce.text(source.get(spelling.first_name)),
                coerce.text(source.get(spelling.last_name)),
            )
            if first is not None or last is not None:
                return first, last
    return None, None


def _place(addresses: Sequence[Mapping[str, Any]], spelling: Spelling) -> tuple[str | None, ...]:
    """City, state, postal code, country: gaps are filled from the next address of the same country only."""
    found: list[str | None] = [None, None, None, None]
    for address in addresses:
        if not address:
            continue
        here = (
            coerce.text(address.get("city")),
            coerce.first(address.get(name) for name in spelling.state),
            coerce.text(address.get("zip")),
            coerce.first(address.get(name) for name in spelling.country),
        )
        if found[3] and here[3] and found[3].lower() != here[3].lower():
            continue
        found = [old or new for old, new in zip(found, here, strict=True)]
        if all(found):
            break
    return tuple(found)
