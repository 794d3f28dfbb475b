"""The identity of an event: its id, its marks, its time."""

from decimal import Decimal

import msgspec
import pytest

from gateway.event import Client, Event, Item, Key, Purchase, User
from gateway.identity import CLAMP_S, Identity, Windows, identify, marks_of, moment
from gateway.outbox import Mark

TEMPLATE = "{site}-{order_id}"
WINDOWS = Windows(dedup_s=100, business_s=1000)
NOW = 1_795_305_600.0
PLAIN = Event(name="page_visit", time=NOW, client_id="c1", source_url="https://shop.example/p")


def digest(*parts: str) -> bytes:
    return "|".join(parts).encode()


def marks(event: Event, identity: Identity, destination: str = "p", site: str = "shop") -> tuple[Mark, ...]:
    return marks_of(digest, destination, event.name, identity, event, site, WINDOWS)


def test_an_explicit_id_is_kept_byte_for_byte() -> None:
    """White space, case and strange characters of an explicit id stay as they are."""
    for given in ("  Ab c ", "é\u0301", "0", "x" * 512):
        found = identify(Event(name="checkout", id=given, keys=(Key(kind="order", value="7"),)), "shop", TEMPLATE)
        assert (found.event_id, found.explicit, found.is_keyless) == (given, True, False)


def test_an_order_gives_a_readable_id() -> None:
    """Without an id the order names the event, by the site's template; a checkout token does not."""
    keys = (Key(kind="checkout", value="tok"), Key(kind="order", value="1001"))
    assert identify(Event(name="checkout", keys=keys), "shop", TEMPLATE).event_id == "shop-1001"
    assert identify(Event(name="checkout", keys=keys), "shop", "order_{order_id}").event_id == "order_1001"
    assert not identify(Event(name="checkout", keys=keys), "shop", TEMPLATE).explicit


def test_an_order_id_that_looks_like_the_template_is_not_expanded_twice() -> None:
    """A payload cannot use the template's own words to change the id's shape."""
    keys = (Key(kind="order", value="{site}"),)
    assert identify(Event(name="checkout", keys=keys), "shop", TEMPLATE).event_id == "shop-{site}"


def test_a_hash_is_stable_and_short() -> None:
    """The same event gives the same id in every process, far below Pinterest's limit of an id's length."""
    found = identify(PLAIN, "shop", TEMPLATE)
    assert found == identify(msgspec.structs.replace(PLAIN), "shop", TEMPLATE)
    assert len(found.event_id) == 32
    assert not found.is_keyless


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": "c2"},
        {"time": NOW + 0.5},
        {"source_url": "https://shop.example/q"},
        {"source_name": "other"},
        {"search_string": "shoes"},
        {"purchase": Purchase(value=Decimal(5))},
        {"purchase": Purchase(items=(Item(id="a"),))},
        {"purchase": Purchase(content_ids=("a",))},
    ],
)
def test_what_makes_an_event_another_one(change: dict[str, object]) -> None:
    """Person, time, page, name, goods and value each tell two events apart."""
    other = msgspec.structs.replace(PLAIN, **change)
    assert identify(other, "shop", TEMPLATE).event_id != identify(PLAIN, "shop", TEMPLATE).event_id
    assert identify(PLAIN, "other", TEMPLATE).event_id != identify(PLAIN, "shop", TEMPLATE).event_id


def test_a_number_written_otherwise_is_the_same_number() -> None:
    """1.10 and 1.1, 100 and 1e2 are one amount: a copy that was read another way must get the same id."""
    for one, other in (("1.10", "1.1"), ("100", "1E+2"), ("0", "0.00")):
        ids = {
            identify(msgspec.structs.replace(PLAIN, purchase=purchase), "shop", TEMPLATE).event_id
            for text in (one, other)
            for purchase in (Purchase(value=Decimal(text), items=(Item(id="a", price=Decimal(text)),)),)
        }
        assert len(ids) == 1, (one, other)


def test_two_people_without_a_client_id_are_two_events() -> None:
    """Without a client id the person or the connection tells events apart; other identifiers do not change the id."""
    alone = msgspec.structs.replace(PLAIN, client_id=None)
    ids = {
        identify(msgspec.structs.replace(alone, **change), "shop", TEMPLATE).event_id
        for change in (
            {"user": User(email=("a@example.com",))},
            {"user": User(email=("b@example.com",))},
            {"user": User(external_id=("7",))},
            {"client": Client(ip="192.0.2.1")},
            {"client": Client(ip="192.0.2.2")},
        )
    }
    assert len(ids) == 5


def test_without_an_own_time_the_id_is_random_and_marks_nothing() -> None:
    """Two events that cannot be told apart must both be kept."""
    timeless = msgspec.structs.replace(PLAIN, time=None)
    first, second = (identify(timeless, "shop", TEMPLATE) for _ in range(2))
    assert first.is_keyless
    assert first.event_id != second.event_id
    assert marks(timeless, first) == ()


def test_the_mark_of_an_id_counts_across_sources_and_sites() -> None:
    """As at Pinterest an id is unique for destination and event name alone; business keys are the site's own."""
    event = Event(name="checkout", id="e1", keys=(Key(kind="order", value="7"),))
    identity = identify(event, "shop", TEMPLATE)
    here, there = marks(event, identity), marks(event, identity, site="other")
    assert here[0] == there[0]
    assert here[1] != there[1]
    assert marks(event, identity, destination="q")[0] != here[0]
    renamed = msgspec.structs.replace(event, name="lead")
    assert marks(renamed, identity)[0] != here[0]


def test_lifetimes() -> None:
    """An id lives for the vendor's window, a business key for its own, and an offline event's id for the longer one."""
    event = Event(name="checkout", id="e1", keys=(Key(kind="order", value="7"), Key(kind="checkout", value="t")))
    identity = identify(event, "shop", TEMPLATE)
    assert [(mark.lifetime_s, mark.business) for mark in marks(event, identity)] == [
        (100, False),
        (1000, True),
        (1000, True),
    ]
    offline = msgspec.structs.replace(event, action_source="offline")
    assert [mark.lifetime_s for mark in marks(offline, identity)] == [1000, 1000, 1000]


def test_a_test_event_shares_no_mark_with_a_live_one() -> None:
    """A test with a live order's id must not swallow the order."""
    event = Event(name="checkout", id="e1", keys=(Key(kind="order", value="7"),))
    identity = identify(event, "shop", TEMPLATE)
    live = {mark.digest for mark in marks(event, identity)}
    test = {mark.digest for mark in marks(msgspec.structs.replace(event, test=True), identity)}
    assert not live & test


@pytest.mark.parametrize(
    ("given", "expected", "note"),
    [
        ({"time": NOW - 10.9}, NOW - 11, None),
        ({"time": NOW}, NOW, None),
        ({}, NOW, None),
        ({"fallback_time": NOW - 60}, NOW - 60, None),
        ({"fallback_time": NOW + 60}, NOW, None),
        ({"time": NOW + 1}, NOW, "event_time: clamped_to_now"),
        ({"time": NOW + CLAMP_S}, NOW, "event_time: clamped_to_now"),
        ({"time": NOW + CLAMP_S + 1}, NOW, "event_time: in_the_future"),
        ({"time": NOW + 9999, "fallback_time": NOW - 60}, NOW - 60, "event_time: in_the_future"),
        ({"time": NOW + 9999, "fallback_time": NOW + 60}, NOW, "event_time: in_the_future"),
        ({"time": NOW + 3600, "sent_at": NOW + 3610}, NOW - 10, "event_time: clock_offset_corrected"),
        ({"time": NOW + 3600, "sent_at": NOW + 3600}, NOW, "event_time: clock_offset_corrected"),
        ({"time": NOW + 3600, "sent_at": NOW + 10}, NOW, "event_time: in_the_future"),
        ({"time": NOW + 60, "sent_at": NOW - 10}, NOW, "event_time: clamped_to_now"),
        ({"time": NOW - 60, "sent_at": NOW + 3600}, NOW - 60, None),
    ],
)
def test_moment(given: dict[str, float], expected: float, note: str | None) -> None:
    """A future time is corrected, clamped or replaced, never refused; the result is whole seconds, never ahead."""
    found, said = moment(Event(name="checkout", **given), NOW)  # type: ignore[arg-type]
    assert (found, said) == (int(expected), note)
    assert isinstance(found, int)
    assert found <= NOW
