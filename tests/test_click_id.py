"""The click id comes from the newest place that has it."""

import asyncio

import pytest

from gateway import Event, Hit, Secret, Source
from gateway.plugins.click_id import ClickIdEnricher

PUBLIC = Source(name="tag", adapter="a", site="s", destinations=("p",), allowed_origins=("https://shop.example",))
SERVER = Source(name="api", adapter="a", site="s", destinations=("p",), secrets=(Secret(value="x"),))
PAGE = "https://shop.example/p"


def epik(source: Source = PUBLIC, url: str | None = None, cookie: str = "", told: str | None = None) -> str | None:
    event = Event(name="page_visit", source_url=url, click_ids={} if told is None else {"epik": told})
    hit = Hit(source=source, headers={"cookie": cookie} if cookie else {})
    return asyncio.run(ClickIdEnricher().enrich(event, hit)).click_ids.get("epik")


def test_the_url_wins_then_the_cookie_then_the_payload() -> None:
    """A click on this very page is newer than a cookie, and a cookie newer than what a payload remembers."""
    assert epik(url=f"{PAGE}?x=1&epik=url", cookie="_epik=cookie", told="told") == "url"
    assert epik(url=f"{PAGE}?x=1", cookie="a=b; _epik=cookie", told="told") == "cookie"
    assert epik(url=PAGE, told="told") == "told"
    assert epik(url=PAGE) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"{PAGE}?epik=dj0yJnU9abc", "dj0yJnU9abc"),
        (f"{PAGE}?EPIK=abc", "abc"),
        (f"{PAGE}?epik=a%2Bb", "a+b"),
        (f"{PAGE}?epik=a+b", "a+b"),
        (f"{PAGE}?xepik=abc", None),
        (f"{PAGE}?epik=", None),
        (f"{PAGE}#?epik", None),
        (f"{PAGE}?epik=abc#frag", "abc"),
        (f"{PAGE}?epik=first&epik=second", "first"),
        (f"{PAGE}?epik=a%20b", None),
        (f"{PAGE}?epik=%C3%A9", None),
        (f"{PAGE}?epik={'x' * 1025}", None),
        (f"{PAGE}?epik={'x' * 1024}", "x" * 1024),
        (f"{PAGE}?epik=a%00b", None),
        (f"{PAGE}?epik=a%0ab", None),
    ],
)
def test_in_the_url(url: str, expected: str | None) -> None:
    """The parameter is read without changing the id; what cannot be one is left out."""
    assert epik(url=url) == expected


def test_an_unusable_place_gives_way_to_the_next() -> None:
    """A broken id in the URL does not hide a good cookie, nor a broken cookie a good payload."""
    assert epik(url=f"{PAGE}?epik=a%20b", cookie="_epik=good") == "good"
    assert epik(cookie='_epik=""', told="told") == "told"


def test_a_servers_cookies_are_not_the_shoppers() -> None:
    """On a server source the connection's cookies belong to a machine."""
    assert epik(SERVER, cookie="_epik=cookie") is None
    assert epik(SERVER, cookie="_epik=cookie", url=f"{PAGE}?epik=url") == "url"


@pytest.mark.parametrize("told", ["a b", "é", "x" * 2000, "a\x00b"])
def test_an_unusable_told_id_is_removed(told: str) -> None:
    """What a payload calls a click id must look like one."""
    assert epik(told=told) is None


def test_other_vendors_ids_stay() -> None:
    """Only Pinterest's own id is touched."""
    event = Event(name="page_visit", source_url=f"{PAGE}?epik=new", click_ids={"epik": "old", "gclid": "g"})
    found = asyncio.run(ClickIdEnricher().enrich(event, Hit(source=PUBLIC)))
    assert found.click_ids == {"epik": "new", "gclid": "g"}
