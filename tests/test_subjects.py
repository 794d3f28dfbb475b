"""Subjects: an erasure finds a person in every form in which a source told them."""

import hashlib

import pytest

from gateway.event import User
from gateway.subjects import person_of, site_subjects


def digest(*parts: str) -> bytes:
    return "|".join(parts).encode()


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "given", [" Jo@Example.com ", "JO@EXAMPLE.COM", sha("jo@example.com"), sha("jo@example.com").upper()]
)
def test_an_email_in_any_form_is_one_subject(given: str) -> None:
    """Case, white space and hashing do not hide a person from an erasure."""
    plain = person_of(digest, "shop", User(email=("jo@example.com",)), None).all
    assert person_of(digest, "shop", User(email=(given,)), None).all == plain
    assert len(plain) == 1


def test_a_phone_number_with_and_without_its_country() -> None:
    """A national number is completed by the person's country, else by the site's."""
    full = person_of(digest, "shop", User(phone=("+1 415-555-2671",)), None).all
    assert person_of(digest, "shop", User(phone=("(415) 555-2671",)), "US").all == full
    assert person_of(digest, "shop", User(phone=("(415) 555-2671",), country=("US",)), "DE").all == full
    assert person_of(digest, "shop", User(phone=("(415) 555-2671",)), "DE").all != full


def test_the_sources_own_id_is_an_external_id() -> None:
    """An erasure that names a customer by id finds events that carry it as external_id."""
    told = person_of(digest, "shop", User(external_id=("7",)), None).all
    assert person_of(digest, "shop", User(), None, "7").all == told


def test_subjects_are_the_sites_own() -> None:
    """The same person at two sites is two subjects, and nobody is the subject of a whole site."""
    user = User(email=("jo@example.com",), external_id=("7",))
    here, there = (set(person_of(digest, site, user, None).all) for site in ("shop", "other"))
    assert not here & there
    assert site_subjects(digest, "shop") != site_subjects(digest, "other")
    assert not here & set(site_subjects(digest, "shop"))


def test_kinds_are_told_apart() -> None:
    """An external id that reads like someone's address is not that address."""
    email = person_of(digest, "shop", User(email=("jo@example.com",)), None).all
    assert person_of(digest, "shop", User(external_id=("jo@example.com",)), None).all != email


def test_what_cannot_be_read_is_still_a_subject() -> None:
    """An unusable identifier is looked up as it is, and a person without identifiers has none."""
    assert person_of(digest, "shop", User(email=("not an address",)), None).all == (
        b"subject|shop|email|not an address",
    )
    assert person_of(digest, "shop", User(first_name=("Jo",)), None).all == ()


def test_every_value_is_a_subject() -> None:
    """Two addresses of one person are both found."""
    assert len(person_of(digest, "shop", User(email=("a@example.com", "b@example.com")), None, "7").all) == 3
