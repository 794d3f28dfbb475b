"""Whose address and browser an event belongs to."""
# ruff: noqa: E501 - user agents are as long as they are

import asyncio
import ipaddress
import time
from functools import lru_cache
from typing import Any

import pytest
import user_agents

from gateway import Client, Consent, Device, Event, Hit, Secret, Source
from gateway.plugins.client import PARSED_LENGTH, ClientEnricher, browser_of, forwarded_client

PUBLIC = Source(name="tag", adapter="a", site="s", destinations=("p",), allowed_origins=("https://shop.example",))
SERVER = Source(name="api", adapter="a", site="s", destinations=("p",), secrets=(Secret(value="x"),))
PROXY, SHOPPER, EVIL = "10.0.0.1", "8.8.8.8", "9.9.9.9"
TRUSTED = tuple(ipaddress.ip_network(text) for text in ("10.0.0.0/8", "2001:db8::/32"))

AGENTS = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
    "Mozilla/5.0 (Windows NT 6.1; Trident/7.0; rv:11.0) like Gecko",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.4 Safari/605.1.15",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:143.0) Gecko/20100101 Firefox/143.0",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0",
    "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/141.0.7390.41 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 [Pinterest/iOS]",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 16_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/20A362 Instagram 300.0.0.1 (iPhone14,5; iOS 16_0; de_DE)",
    "Mozilla/5.0 (iPad; CPU OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (iPod touch; CPU iPhone OS 12_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/12.1 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8 Pro) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 13; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 13; SM-X906C) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 12; SAMSUNG SM-A528B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 11; Redmi Note 9 Pro) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/135.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 10; HUAWEI P30 Pro) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/110.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Android 14; Mobile; rv:143.0) Gecko/143.0 Firefox/143.0",
    "Mozilla/5.0 (Linux; Android 9; KFTRWI) AppleWebKit/537.36 (KHTML, like Gecko) Silk/120.1.1 like Chrome/120.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 5.1.1; Nexus 7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/80.0.3987.99 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 14; en-us; OnePlus CPH2581) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/130.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; U; Android 4.4.2; de-de; GT-I9505) AppleWebKit/534.30 (KHTML, like Gecko) Version/4.0 Mobile Safari/534.30",
    "Opera/9.80 (Android; Opera Mini/36.2.2254/119.132; U; id) Presto/2.12.423 Version/12.16",
    "Mozilla/5.0 (Windows Phone 10.0; Android 6.0.1; Microsoft; Lumia 950) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/52.0.2743.116 Mobile Safari/537.36 Edge/15.15063",
    "Mozilla/5.0 (BB10; Touch) AppleWebKit/537.10+ (KHTML, like Gecko) Version/10.0.9.2372 Mobile Safari/537.10+",
    "Mozilla/5.0 (SMART-TV; Linux; Tizen 6.0) AppleWebKit/537.36 (KHTML, like Gecko) 76.0.3809.146/6.0 TV Safari/537.36",
    "Mozilla/5.0 (PlayStation; PlayStation 5/2.26) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/13.0 Safari/605.1.15",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
    "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
    "curl/8.5.0",
    "python-requests/2.32.3",
    "okhttp/4.12.0",
    "Dalvik/2.1.0 (Linux; U; Android 13; M2101K6G Build/TKQ1.221013.002)",
    "x",
]


@lru_cache
def enricher() -> ClientEnricher:
    return ClientEnricher(["10.0.0.0/8", "2001:db8::/32"])


def enriched(source: Source, peer: str | None = SHOPPER, headers: dict[str, str] | None = None, **fields: Any) -> Event:
    hit = Hit(source=source, headers=headers or {}, peer=peer)
    return asyncio.run(enricher().enrich(Event(name="page_visit", **fields), hit))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        (SHOPPER, "", SHOPPER),
        (SHOPPER, EVIL, SHOPPER),
        (PROXY, "", PROXY),
        (PROXY, SHOPPER, SHOPPER),
        (PROXY, f"{EVIL}, {SHOPPER}", SHOPPER),
        (PROXY, f"{EVIL}, {SHOPPER}, 10.0.0.2", SHOPPER),
        (PROXY, f"{EVIL},{SHOPPER},10.0.0.3,10.0.0.2", SHOPPER),
        (PROXY, "10.0.0.9, 10.0.0.2", "10.0.0.9"),
        (PROXY, " , ,", PROXY),
        (PROXY, f"{SHOPPER}, ", SHOPPER),
        (PROXY, f"{EVIL}, garbage", "garbage"),
        (PROXY, f"{EVIL}, garbage, 10.0.0.2", "garbage"),
        (PROXY, "2606:4700::1111", "2606:4700::1111"),
        ("2001:db8::1", f"{SHOPPER}, 2001:db8::2", SHOPPER),
        ("::ffff:10.0.0.1", SHOPPER, SHOPPER),
        (PROXY, f"{SHOPPER}, ::ffff:10.0.0.2", SHOPPER),
        ("unix", SHOPPER, "unix"),
        (None, SHOPPER, None),
        (PROXY, ", ".join([EVIL] * 99 + [SHOPPER]), SHOPPER),
        (PROXY, ", ".join([EVIL] * 500 + [SHOPPER, "10.0.0.2"]), SHOPPER),
    ],
)
def test_forwarded_client(peer: str | None, forwarded: str, expected: str | None) -> None:
    """The header counts from trusted proxies only, read from the right: nobody can forge an address on the left."""
    assert forwarded_client(peer, forwarded, TRUSTED) == expected


@pytest.mark.parametrize(
    "forwarded",
    [f"{SHOPPER}:443, 10.0.0.2:8080", f"[2606:4700::1111]:443, {PROXY}:1", f"{SHOPPER}:5000, [2001:db8::7]:1"],
)
def test_a_trusted_proxy_with_a_port_is_still_trusted(forwarded: str) -> None:
    """Some load balancers write addresses with ports: they are passed as well."""
    expected = forwarded.split(",", maxsplit=1)[0]
    assert forwarded_client(PROXY, forwarded, TRUSTED) == expected


def test_a_shopper_with_a_port_is_an_address() -> None:
    """The shopper's port is not part of the address."""
    found = enriched(PUBLIC, PROXY, {"x-forwarded-for": f"{SHOPPER}:50123"})
    assert (found.client.ip, found.notes) == (SHOPPER, ())


def test_a_public_source_believes_the_connection_only() -> None:
    """Address and browser come from the connection; the payload's own claim is ignored."""
    found = enriched(PUBLIC, headers={"user-agent": AGENTS[0]}, client=Client(ip=EVIL, user_agent="forged"))
    assert (found.client.ip, found.client.user_agent) == (SHOPPER, AGENTS[0])
    assert enriched(PUBLIC, headers={"x-forwarded-for": EVIL}).client.ip == SHOPPER


def test_a_server_source_believes_the_payload_only() -> None:
    """The connection is the sender's machine: its address, browser, page and signals are nobody's."""
    headers = {"user-agent": "Shopify", "referer": "https://x.example/", "sec-gpc": "1", "x-forwarded-for": EVIL}
    found = enriched(SERVER, PROXY, headers)
    assert (found.client, found.source_url, found.consent) == (Client(), None, Consent())
    told = enriched(SERVER, PROXY, headers, client=Client(ip=SHOPPER, user_agent=AGENTS[9]))
    assert (told.client.ip, told.device.os_family) == (SHOPPER, "iOS")


def test_the_referer_is_the_page_when_the_payload_names_none() -> None:
    """Only a web event's missing URL is filled, and only by an http(s) one."""
    referer = {"referer": "https://shop.example/p"}
    assert enriched(PUBLIC, headers=referer).source_url == "https://shop.example/p"
    assert enriched(PUBLIC, headers=referer, source_url="https://shop.example/q").source_url == "https://shop.example/q"
    assert enriched(PUBLIC, headers=referer, action_source="app_ios").source_url is None
    assert enriched(PUBLIC, headers={"referer": "about:client"}).source_url is None


@pytest.mark.parametrize(("value", "expected"), [("1", True), (" 1 ", True), ("0", None), ("true", None), ("", None)])
def test_global_privacy_control(value: str, expected: bool | None) -> None:
    """The header of a page's hit is the person's choice; other choices stay."""
    found = enriched(PUBLIC, headers={"sec-gpc": value}, consent=Consent(marketing=True))
    assert found.consent == Consent(marketing=True, gpc=expected)


@pytest.mark.parametrize(
    "address", ["192.168.1.5", "127.0.0.1", "::1", "fe80::1", "169.254.1.1", "0.0.0.0", "224.0.0.1"]
)
def test_an_address_that_is_not_public_is_dropped_with_a_note(address: str) -> None:
    """An address that names no one on the Internet is not sent."""
    found = enriched(PUBLIC, address)
    assert (found.client.ip, found.notes) == (None, ("client_ip: not_global",))


def test_what_is_no_address_is_dropped_without_repeating_it() -> None:
    """The note says what is wrong, not what it was."""
    found = enriched(SERVER, client=Client(ip="jo@example.com"))
    assert (found.client.ip, found.notes) == (None, ("client_ip: not_an_ip",))


@pytest.mark.parametrize("agent", AGENTS, ids=range(len(AGENTS)))
def test_the_fast_parser_agrees_with_user_agents(agent: str) -> None:
    """Brand, model, kind of device, system and robot flag are what the well-known library says."""
    reference = user_agents.parse(agent)
    found = browser_of(agent)
    assert found.is_bot is bool(reference.is_bot)
    if found.is_bot:
        assert found.device == Device()
        return

    def known(value: str | None) -> str | None:
        return None if value in (None, "", "Other", "Generic") else value

    assert found.device.brand == known(reference.device.brand)
    assert found.device.model == known(reference.device.model)
    assert found.device.os_family == known(reference.os.family)
    assert found.device.os_version == (reference.os.version_string or None)
    kind = (
        "tablet" if reference.is_tablet else "mobile" if reference.is_mobile else "desktop" if reference.is_pc else None
    )
    assert found.device.type == kind


def test_pinterests_own_robot() -> None:
    """Pinterest's crawler is a robot whatever the pattern list says."""
    assert browser_of("Mozilla/5.0 (compatible; Pinterestbot/1.0; +https://www.pinterest.com/bot.html)").is_bot


@pytest.mark.parametrize("unit", ["x", "Mozilla/5.0 (Linux; Android 9; ", "; ", "(((((", "a/1.", "\u00e9"])
def test_an_endless_user_agent_is_bounded(unit: str) -> None:
    """Sixty kilobytes cost no more than their first half kilobyte, and are cut."""
    agent = (unit * 60_000)[:60_000]
    enriched(PUBLIC, headers={"user-agent": "warm"})
    started = time.process_time()
    found = enriched(PUBLIC, headers={"user-agent": agent})
    assert time.process_time() - started < 0.25
    assert found.client.user_agent is None or len(found.client.user_agent) <= 1024
    assert PARSED_LENGTH <= 1024


def test_what_the_source_told_of_the_device_stays() -> None:
    """The user agent fills only what is missing."""
    found = enriched(PUBLIC, headers={"user-agent": AGENTS[9]}, device=Device(model="iPhone15,2", carrier="A1"))
    assert (found.device.model, found.device.carrier, found.device.brand) == ("iPhone15,2", "A1", "Apple")


def test_a_placeholder_agent_is_dropped_with_a_note() -> None:
    """A macro that was never filled is no browser."""
    found = enriched(SERVER, client=Client(user_agent="{{User Agent}}"))
    assert found.client.user_agent is None
    assert found.notes == ("client_user_agent: placeholder",)


def test_no_connection_no_address() -> None:
    """A hit without a peer (a Unix socket) has no address and no note."""
    assert (enriched(PUBLIC, None).client, enriched(PUBLIC, None).notes) == (Client(), ())
