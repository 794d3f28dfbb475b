"""Two copies of one conversion become one event: each rule by itself, and what holds for all copies."""

import itertools
from decimal import Decimal
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from gateway.event import App, Client, Content, Device, Item, Purchase, SealedEvent
from gateway.merge import join, origin_of, provenance, signals

NOW = 1_795_305_600
MUG, BOWL = Item(id="71", price=Decimal(20), quantity=2), Item(id="72", price=Decimal(9), quantity=1)
Born = Literal["browser", "server"]


def copy_of(born: Born, **more: Any) -> SealedEvent:
    """Return a copy as one side told it, with a derived id and nothing else."""
    told: dict[str, Any] = {
        "event_id": "shop-1001", "event_name": "checkout", "event_time": NOW, "accepted_at": float(NOW),
        "source": "tag" if born == "browser" else "hook", "site": "shop", "born": born, **more,
    }  # fmt: skip
    return SealedEvent(**told)


def browser(**more: Any) -> SealedEvent:
    return copy_of("browser", **more)


def server(**more: Any) -> SealedEvent:
    return copy_of("server", **more)


def look(event: SealedEvent, path: str) -> Any:
    """Return the value at a dotted path."""
    found: Any = event
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else getattr(found, part)
    return found


def bought(**purchase: Any) -> dict[str, Any]:
    return {"purchase": Purchase(**purchase)}


# Both sides say something else: (path, what the browser told, what the server told, whose value leaves).
CONFLICTS = [
    ("user.em", {"user": {"em": ("b",)}}, {"user": {"em": ("s",)}}, "server"),
    ("purchase.value", bought(value=Decimal(10), currency="EUR"), bought(value=Decimal(12), currency="USD"), "server"),
    ("purchase.currency", bought(value=Decimal(10), currency="EUR"), bought(value=Decimal(12), currency="USD"),
     "server"),
    ("purchase.currency", bought(currency="EUR"), bought(currency="USD"), "server"),
    ("purchase.items", bought(items=(MUG,)), bought(items=(BOWL,)), "server"),
    ("purchase.items", bought(content_ids=("71",)), bought(items=(BOWL,)), "server"),
    ("purchase.content_ids", bought(content_ids=("71",)), bought(content_ids=("72",)), "server"),
    ("purchase.num_items", bought(items=(MUG,), num_items=2), bought(items=(BOWL,), num_items=1), "server"),
    ("purchase.num_items", bought(num_items=2), bought(num_items=1), "server"),
    ("purchase.order_id", bought(order_id="B1"), bought(order_id="S1"), "server"),
    ("purchase.predicted_ltv", bought(predicted_ltv=Decimal(1)), bought(predicted_ltv=Decimal(2)), "server"),
    ("event_id", {"event_id": "b-1", "explicit_id": True}, {"event_id": "s-1", "explicit_id": True}, "browser"),
    ("event_time", {"event_time": NOW - 9}, {"event_time": NOW - 4}, "browser"),
    ("event_time", {"event_time": NOW - 4}, {"event_time": NOW - 9}, "browser"),
    ("source_url", {"source_url": "https://shop.example/thanks"}, {"source_url": "https://shop.example/"}, "browser"),
    ("client.ip", {"client": Client(ip="198.51.100.1")}, {"client": Client(ip="203.0.113.9")}, "browser"),
    ("client.user_agent", {"client": Client(user_agent="b")}, {"client": Client(user_agent="s")}, "browser"),
    ("click_ids.epik", {"click_ids": {"epik": "dj0yJnU9Yg"}}, {"click_ids": {"epik": "dj0yJnU9cw"}}, "browser"),
    ("language", {"language": "de"}, {"language": "en"}, "browser"),
    ("search_string", {"search_string": "mug"}, {"search_string": "cup"}, "browser"),
    ("partner_id", {"partner_id": "b"}, {"partner_id": "s"}, "browser"),
    ("content.name", {"content": Content(name="b")}, {"content": Content(name="s")}, "browser"),
    ("app.name", {"app": App(name="b")}, {"app": App(name="s")}, "browser"),
    ("device.model", {"device": Device(model="b")}, {"device": Device(model="s")}, "browser"),
    ("device.wifi", {"device": Device(wifi=False)}, {"device": Device(wifi=True)}, "browser"),
    ("extra.acme", {"extra": {"acme": "b"}}, {"extra": {"acme": "s"}}, "browser"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "told_by_browser", "told_by_server", "winner"), CONFLICTS)
def test_conflict(path: str, told_by_browser: Any, told_by_server: Any, winner: Born) -> None:
    """On conflict the side that knows better wins, whichever copy came first."""
    ours, theirs = browser(**told_by_browser), server(**told_by_server)
    assert look(ours, path) != look(theirs, path)
    wanted = look(ours if winner == "browser" else theirs, path)
    assert look(join(ours, theirs, False), path) == wanted
    assert look(join(theirs, ours, False), path) == wanted


@pytest.mark.parametrize(("path", "told_by_browser", "told_by_server", "winner"), CONFLICTS)
def test_missing_is_filled(path: str, told_by_browser: Any, told_by_server: Any, winner: Born) -> None:
    """What only one side told is kept, whichever side and order."""
    if path == "event_time":
        return
    for full, empty in ((browser(**told_by_browser), server()), (server(**told_by_server), browser())):
        assert look(join(full, empty, False), path) == look(full, path), winner
        assert look(join(empty, full, False), path) == look(full, path), winner


@pytest.mark.parametrize(("path", "told_by_browser", "told_by_server", "winner"), CONFLICTS)
def test_same_side_keeps_the_earlier(path: str, told_by_browser: Any, told_by_server: Any, winner: Born) -> None:
    """Two copies of one side: the first one's word stands."""
    first, second = server(**told_by_browser), server(**told_by_server)
    assert look(join(first, second, False), path) == look(first, path), winner


def test_amount_and_currency_stay_together() -> None:
    """The amount that wins brings its own currency; only one without takes the other's."""
    ours = browser(**bought(value=Decimal(10), currency="EUR"))
    theirs = server(**bought(value=Decimal(12), currency="USD"))
    for joint in (join(ours, theirs, False), join(theirs, ours, False)):
        assert (joint.purchase.value, joint.purchase.currency) == (Decimal(12), "USD")
    bare = server(**bought(value=Decimal(12)))
    for joint in (join(ours, bare, False), join(bare, ours, False)):
        assert (joint.purchase.value, joint.purchase.currency) == (Decimal(12), "EUR")
    foreign = server(**bought(currency="USD"))
    for joint in (join(ours, foreign, False), join(foreign, ours, False)):
        assert (joint.purchase.value, joint.purchase.currency) == (Decimal(10), "EUR")


def test_count_goes_with_the_items() -> None:
    """The items that win bring their own count; without one the other copy's is used."""
    ours = browser(**bought(items=(MUG,), num_items=2))
    theirs = server(**bought(items=(BOWL,)))
    for joint in (join(ours, theirs, False), join(theirs, ours, False)):
        assert (joint.purchase.items, joint.purchase.num_items) == ((BOWL,), 2)
    counted = server(**bought(num_items=7))
    for joint in (join(ours, counted, False), join(counted, ours, False)):
        assert (joint.purchase.items, joint.purchase.num_items) == ((MUG,), 2)


def explicit(born: Born, event_id: str, *, tag: bool = False) -> SealedEvent:
    return copy_of(born, event_id=event_id, explicit_id=True, tag=tag)


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (explicit("browser", "plain"), explicit("server", "fired", tag=True), "fired"),
        (explicit("server", "fired", tag=True), explicit("browser", "plain"), "fired"),
        (explicit("browser", "one", tag=True), explicit("server", "two", tag=True), "one"),
        (explicit("server", "one", tag=True), explicit("browser", "two", tag=True), "two"),
        (explicit("browser", "one"), explicit("server", "two"), "one"),
        (explicit("server", "one"), explicit("browser", "two"), "two"),
        (explicit("browser", "one"), explicit("browser", "two"), "one"),
        (explicit("server", "one"), explicit("server", "two"), "one"),
        (explicit("browser", "one", tag=True), explicit("browser", "two", tag=True), "one"),
        (browser(event_id="derived"), explicit("server", "given"), "given"),
        (explicit("server", "given"), browser(event_id="derived"), "given"),
        (browser(event_id="derived", tag=True), explicit("server", "given"), "given"),
        (server(event_id="derived"), explicit("browser", "given"), "given"),
    ],
)
def test_id(first: SealedEvent, second: SealedEvent, wanted: str) -> None:
    """The id of the page's tag wins, then the browser's, then the earlier; an explicit one beats a derived one."""
    joint = join(first, second, False)
    winner = first if first.event_id == wanted else second
    assert (joint.event_id, joint.explicit_id, joint.tag) == (wanted, winner.explicit_id, winner.tag)
    assert origin_of(joint, "event_id") == f"{winner.born}:{winner.source}"
    assert joint.event_name == "checkout"


REMEMBERED = [
    ("click_ids.epik", "epik", {"click_ids": {"epik": "old"}}, {"click_ids": {"epik": "told"}}),
    ("client.ip", "client_ip", {"client": Client(ip="198.51.100.1")}, {"client": Client(ip="198.51.100.2")}),
    ("client.user_agent", "client_user_agent", {"client": Client(user_agent="old")},
     {"client": Client(user_agent="told")}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "signal", "old", "told"), REMEMBERED)
@pytest.mark.parametrize("sides", list(itertools.product(["browser", "server"], repeat=2)))
def test_told_beats_remembered(path: str, signal: str, old: Any, told: Any, sides: tuple[Born, Born]) -> None:
    """What a memory filled in loses to what any copy told itself, and says so no longer."""
    remembered = copy_of(sides[0], origins={signal: "memory:client"}, **old)
    fresh = copy_of(sides[1], **told)
    for joint in (join(remembered, fresh, False), join(fresh, remembered, False)):
        assert look(joint, path) == look(fresh, path)
        assert origin_of(joint, signal) == f"{fresh.born}:{fresh.source}"
    filled = join(copy_of(sides[1]), remembered, False)
    assert look(filled, path) == look(remembered, path)
    assert origin_of(filled, signal) == "memory:client"


OPT_OUT = [
    (None, None, None), (None, False, False), (None, True, True), (False, None, False), (False, False, False),
    (False, True, True), (True, None, True), (True, False, True), (True, True, True),
]  # fmt: skip


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("sides", list(itertools.product(["browser", "server"], repeat=2)))
def test_stricter_privacy(sides: tuple[Born, Born], frozen: bool) -> None:
    """Limited data and opt-out are kept from either copy, also while the event is under way; silence is no choice."""
    for one, two in itertools.product([False, True], repeat=2):
        joint = join(copy_of(sides[0], limited_data=one), copy_of(sides[1], limited_data=two), frozen)
        assert joint.limited_data is (one or two)
    for mine, theirs, wanted in OPT_OUT:
        joint = join(copy_of(sides[0], opt_out=mine), copy_of(sides[1], opt_out=theirs), frozen)
        assert joint.opt_out is wanted


def test_unsigned_until_one_copy_is_signed() -> None:
    """An unsigned copy becomes sendable by a signed one, never by another unsigned one."""
    for one, two in itertools.product([False, True], repeat=2):
        assert join(browser(unsigned=one), server(unsigned=two), False).unsigned is (one and two)


def test_frozen_takes_only_what_is_missing_of_the_person() -> None:
    """After the first attempt id, name, time, amount and page stay; missing identifiers, click id, IP and UA come."""
    kept = server(
        event_id="kept", user={"em": ("s",)}, source_url="https://shop.example/", notes=("kept",),
        **bought(value=Decimal(12), currency="USD"),
    )  # fmt: skip
    copy = browser(
        event_id="copy", explicit_id=True, tag=True, event_time=NOW - 9, user={"em": ("b",), "ph": ("p",)},
        click_ids={"epik": "dj0yJnU9Yg"}, client=Client(ip="198.51.100.1", user_agent="UA"),
        source_url="https://shop.example/thanks", search_string="mug", language="de", partner_id="p",
        content=Content(name="c"), app=App(name="a"), device=Device(model="m"), extra={"acme": "x"}, notes=("copy",),
        limited_data=True, opt_out=True,
        **bought(value=Decimal(10), currency="EUR", items=(MUG,), num_items=2, order_id="1001"),
    )  # fmt: skip
    wanted = structs.replace(
        kept, user={"em": ("s",), "ph": ("p",)}, click_ids=copy.click_ids, client=copy.client, limited_data=True,
        opt_out=True,
        origins=dict.fromkeys(("ph", "epik", "client_ip", "client_user_agent"), "browser:tag"),
    )  # fmt: skip
    assert join(kept, copy, True) == wanted


@pytest.mark.parametrize("kept_first", [True, False])
def test_frozen_replaces_nothing(kept_first: bool) -> None:
    """Nothing that a frozen event has is replaced, not even by the side that would win."""
    one = server(user={"em": ("s",)}, click_ids={"epik": "s"}, client=Client(ip="203.0.113.9", user_agent="s"))
    two = browser(user={"em": ("b",)}, click_ids={"epik": "b"}, client=Client(ip="198.51.100.1", user_agent="b"))
    kept, copy = (one, two) if kept_first else (two, one)
    assert join(kept, copy, True) == kept


def test_provenance_names_the_origin_of_each_signal() -> None:
    """Every signal is listed once, under the copy or the memory that it came from."""
    ours = browser(
        click_ids={"epik": "e"}, client=Client(ip="198.51.100.1", user_agent="UA"), source_url="https://shop.example/",
        origins={"epik": "memory:client"},
    )  # fmt: skip
    theirs = server(user={"em": ("s",)}, **bought(value=Decimal(1), currency="EUR", items=(MUG,), order_id="1001"))
    wanted = {
        "memory:client": ["epik"],
        "browser:tag": ["client_ip", "client_user_agent", "source_url"],
        "server:hook": ["em", "items", "order_id", "value"],
    }
    assert provenance(join(ours, theirs, False)) == wanted
    assert provenance(join(theirs, ours, False)) == wanted


def test_third_copy_does_not_undo_a_better_source() -> None:
    """A value that the better side confirmed is not replaced by the other side's later copy."""
    first = browser(user={"em": ("same",)}, event_time=NOW)
    second = server(user={"em": ("same",)}, event_time=NOW)
    third = browser(user={"em": ("other",)}, source="pixel")
    assert join(join(first, second, False), third, False).user == {"em": ("same",)}
    late = structs.replace(server(event_time=NOW - 60), source="hook2")
    assert join(join(second, first, False), late, False).event_time == NOW


# -- what holds for all copies

EXAMPLES = settings(max_examples=60, deadline=None)
_hashes = st.sampled_from([("h1",), ("h2",), ("h1", "h2")])
_texts = st.none() | st.sampled_from(["one", "two"])
_money = st.none() | st.sampled_from([Decimal(5), Decimal("7.50")])
_purchases = st.builds(
    Purchase, value=_money, currency=st.none() | st.sampled_from(["EUR", "USD"]), order_id=_texts,
    items=st.sampled_from([(), (MUG,), (MUG, BOWL)]), content_ids=st.sampled_from([(), ("71",)]),
    num_items=st.none() | st.sampled_from([1, 2]), predicted_ltv=_money,
)  # fmt: skip
_contents = st.builds(Content, name=_texts, category=_texts, brand=_texts)
_devices = st.builds(Device, model=_texts, wifi=st.none() | st.booleans(), languages=st.sampled_from([(), ("de",)]))
_sides: st.SearchStrategy[Born] = st.sampled_from(["browser", "server"])
_REMEMBERABLE = ("epik", "client_ip", "client_user_agent")


@st.composite
def copies(draw: st.DrawFn, born: Born | None = None) -> SealedEvent:
    """Any copy of one conversion; what is remembered is only what a memory gives."""
    side: Born = draw(_sides) if born is None else born
    event = copy_of(
        side,
        event_id=draw(st.sampled_from(["id-1", "id-2"])), explicit_id=draw(st.booleans()), tag=draw(st.booleans()),
        event_time=draw(st.sampled_from([NOW - 60, NOW])), source=f"{side}-{draw(st.integers(1, 3))}",
        user=draw(st.dictionaries(st.sampled_from(["em", "ph", "fn"]), _hashes)),
        click_ids=draw(st.dictionaries(st.just("epik"), st.sampled_from(["e1", "e2"]))),
        client=Client(ip=draw(_texts), user_agent=draw(_texts)), purchase=draw(_purchases),
        content=draw(_contents), device=draw(_devices), source_url=draw(_texts), search_string=draw(_texts),
        language=draw(_texts), partner_id=draw(_texts), limited_data=draw(st.booleans()),
        opt_out=draw(st.none() | st.booleans()), unsigned=draw(st.booleans()),
        extra=draw(st.dictionaries(st.sampled_from(["acme.a", "acme.b"]), st.sampled_from(["x", "y"]))),
        notes=draw(st.sampled_from([(), ("a",), ("a", "b")])),
    )  # fmt: skip
    origins = {
        name: "memory:client" for name in _REMEMBERABLE if name in signals(event) and draw(st.booleans())
    }  # fmt: skip
    return structs.replace(event, origins=origins)


def content(event: SealedEvent) -> tuple[Any, ...]:
    """Return all that leaves and where it came from, without who was first."""
    bare = structs.replace(event, accepted_at=0.0, source="", born="server", notes=(), origins={})
    return bare, sorted(event.notes), provenance(event)


@EXAMPLES
@given(copies("browser"), copies("server"))
def test_order_of_arrival_does_not_matter(ours: SealedEvent, theirs: SealedEvent) -> None:
    """A browser's and a server's copy make the same event, whichever was first."""
    assert content(join(ours, theirs, False)) == content(join(theirs, ours, False))


@EXAMPLES
@given(copies(), st.booleans())
def test_a_copy_of_itself_adds_nothing(event: SealedEvent, frozen: bool) -> None:
    """An exact repetition changes nothing."""
    assert join(event, event, frozen) == event


@EXAMPLES
@given(copies(), copies(), st.booleans())
def test_repeating_a_copy_adds_nothing(kept: SealedEvent, copy: SealedEvent, frozen: bool) -> None:
    """What was merged once is not merged again: a retry of either copy is without effect."""
    joint = join(kept, copy, frozen)
    assert join(joint, copy, frozen) == joint
    assert content(join(joint, kept, frozen)) == content(joint)


@EXAMPLES
@given(copies(), copies())
def test_no_signal_is_lost(kept: SealedEvent, copy: SealedEvent) -> None:
    """The joint event has every signal of both copies, and names an origin that had it."""
    joint = join(kept, copy, False)
    assert signals(joint) == signals(kept) | signals(copy)
    for signal in signals(joint):
        holders = [event for event in (kept, copy) if signal in signals(event)]
        assert origin_of(joint, signal) in {origin_of(event, signal) for event in holders}


@EXAMPLES
@given(copies(), copies())
def test_frozen_keeps_what_was_attempted(kept: SealedEvent, copy: SealedEvent) -> None:
    """A frozen event keeps id, name, time and all it had; only signals of the person are added."""
    joint = join(kept, copy, True)
    for name in ("event_id", "event_name", "event_time", "purchase", "source_url", "content", "extra"):
        assert getattr(joint, name) == getattr(kept, name)
    assert joint.tag == (kept.tag or (copy.tag and copy.event_id == kept.event_id)), "its id may turn out the tag's"
    assert joint.user.items() >= kept.user.items()
    assert joint.click_ids.items() >= kept.click_ids.items()
    told = {"value", "items", "order_id", "source_url"}
    assert signals(joint) == signals(kept) | (signals(copy) - told)


@st.composite
def trios(draw: st.DrawFn) -> tuple[SealedEvent, SealedEvent, SealedEvent]:
    """Three copies, told by their sources, each with amounts and counts that belong to something."""

    def whole(event: SealedEvent) -> SealedEvent:
        purchase = event.purchase
        currency = None if purchase.value is None else purchase.currency or "EUR"
        goods = purchase.items or purchase.content_ids
        count = (purchase.num_items or 1) if goods else None
        purchase = structs.replace(purchase, currency=currency, num_items=count)
        return structs.replace(event, purchase=purchase, origins={})

    return whole(draw(copies())), whole(draw(copies())), whole(draw(copies()))


@EXAMPLES
@given(trios())
def test_three_copies_join_in_any_grouping(three: tuple[SealedEvent, SealedEvent, SealedEvent]) -> None:
    """Joining two that wait and then a third is the same as one after the other."""
    one, two, three_ = three
    left = join(join(one, two, False), three_, False)
    right = join(one, join(two, three_, False), False)
    assert content(left) == content(right)
