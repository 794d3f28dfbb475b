"""The seal: nothing personal in clear gets past it."""

import hashlib

import pytest

from gateway.errors import Unavailable
from gateway.event import Client, Content, Event, Item, Purchase, SealedEvent, User
from gateway.identity import Identity
from gateway.interfaces import Identifiers
from gateway.seal import Facts, seal

HASH = hashlib.sha256(b"jo@example.com").hexdigest()
FACTS = Facts(
    name="checkout", identity=Identity(event_id="e1", explicit=True, is_keyless=False), event_time=1_795_305_600,
    accepted_at=1_795_305_601.5, source="tag", site="shop", is_server=False, notes=("event_time: clamped_to_now",),
)  # fmt: skip


def sealed(event: Event, fields: dict[str, tuple[str, ...]] | None = None, notes: tuple[str, ...] = ()) -> SealedEvent:
    return seal(event, FACTS, "checkout", Identifiers(fields=fields or {}, notes=notes), "pinterest")


@pytest.mark.parametrize(
    "value",
    [
        "jo@example.com",
        "",
        HASH[:-1],
        HASH + "0",
        HASH.upper(),
        "g" * 64,
        "é" * 64,
        HASH[:63] + "\n",
        HASH * 2,
        " " * 64,
    ],
)
@pytest.mark.parametrize("before", [(), (HASH,)])
def test_an_unhashed_identifier_is_refused(value: str, before: tuple[str, ...]) -> None:
    """One identifier that is no lower-case SHA-256 stops everything, and the message does not repeat it."""
    with pytest.raises(Unavailable) as caught:
        sealed(Event(name="checkout"), {"em": (*before, value)})
    assert caught.value.reason == "plugin_failed"
    assert "pinterest" in caught.value.message
    assert not value.strip() or value not in caught.value.message


def test_lengths_that_add_up_are_no_excuse() -> None:
    """Two values of wrong length that together look like two hashes are refused."""
    with pytest.raises(Unavailable):
        sealed(Event(name="checkout"), {"em": (HASH[:32], HASH + HASH[:32])})


def test_hashes_pass() -> None:
    """Any number of hashes in any field is kept as it is."""
    fields = {"em": (HASH, HASH), "ph": (HASH,)}
    assert sealed(Event(name="checkout"), fields).user == fields
    assert sealed(Event(name="checkout")).user == {}


def test_raw_identifiers_do_not_come_along() -> None:
    """The sealed event holds what the destination hashed, and no trace of the raw person."""
    raw = User(email=("jo@example.com",), phone=("+14155552671",), first_name=("Johanna",))
    found = sealed(Event(name="checkout", user=raw, source_name="orders/paid"), {"em": (HASH,)})
    text = repr(found)
    assert not any(value in text for value in ("jo@example.com", "4155552671", "Johanna"))


def test_free_texts_with_an_address_are_dropped_with_a_note() -> None:
    """A search for somebody's address and a page named by one are not kept; other texts are."""
    event = Event(
        name="search",
        search_string="orders of jo@example.com",
        content=Content(name="Hi jo%40example.com", category="mail", brand="b"),
    )
    found = sealed(event, notes=("email: not_an_email",))
    assert found.search_string is None
    assert found.content == Content(category="mail", brand="b")
    assert found.notes == (
        "event_time: clamped_to_now", "email: not_an_email", "search_string: personal", "content_name: personal",
    )  # fmt: skip
    kept = sealed(Event(name="search", search_string="red shoes @ home", content=Content(name="Shoes")))
    assert (kept.search_string, kept.content.name) == ("red shoes @ home", "Shoes")


@pytest.mark.parametrize(
    "content", [Content(category="jo@example.com"), Content(brand="jo@example.com")], ids=["category", "brand"]
)
def test_an_address_in_category_or_brand_is_dropped(content: Content) -> None:
    """No free text of the page carries an address into the store."""
    assert "jo@example.com" not in repr(sealed(Event(name="page_visit", content=content)))


def test_an_address_in_an_items_text_is_dropped() -> None:
    """A personalised product's name ("Mug for jo@example.com") carries no address into the store."""
    items = (Item(id="1", name="Mug for jo@example.com"),)
    assert "jo@example.com" not in repr(sealed(Event(name="checkout", purchase=Purchase(items=items))))


def test_the_url_is_stripped() -> None:
    """The URL loses what points to a person and keeps the rest."""
    event = Event(name="page_visit", source_url="https://jo:pw@shop.example/p?email=jo@example.com&x=1#frag")
    assert sealed(event).source_url == "https://shop.example/p?x=1"
    assert sealed(Event(name="page_visit")).source_url is None


def test_facts_and_flags() -> None:
    """What the pipeline decided is in the event; silence about limited data is no limit."""
    found = sealed(Event(name="checkout", test=True, tag=True, client=Client(ip="8.8.8.8"), opt_out=False))
    assert (found.event_id, found.explicit_id, found.event_time) == ("e1", True, 1_795_305_600)
    assert (found.source, found.site, found.born, found.accepted_at) == ("tag", "shop", "browser", 1_795_305_601.5)
    assert (found.limited_data, found.opt_out, found.test, found.tag, found.client.ip) == (
        False,
        False,
        True,
        True,
        "8.8.8.8",
    )
    assert sealed(Event(name="checkout", limited_data=True)).limited_data is True
