"""The public edge: compressed bodies, whose address, forged pages, foreign origins, cookies."""

import asyncio
import base64
import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import Hit, Source
from gateway.testing.doubles import NOW
from tests.test_ingress import BEARER, CONFIG, ORIGIN, PAGE, Served, event, serving

PROXY, SHOPPER, FORGED = "10.1.2.3", "8.8.4.4", "1.1.1.1"
PROXIED: Mapping[str, Any] = {
    **CONFIG,
    "server": {"trusted_proxies": ["10.0.0.0/8", "2a06:98c0::/29"]},
    "destinations": {"pinterest": {"linger_s": 0.0}},
}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    """Return a runner of one scenario against a fresh gateway."""

    def start(scenario: Callable[[Served], Any], **arguments: Any) -> None:
        async def main() -> None:
            async with serving(tmp_path, **arguments) as served:
                await scenario(served)

        asyncio.run(main())

    return start


# -- compressed bodies

BOMB = gzip.compress(b"\0" * 50_000_000)


ENCODINGS = [
    ["gzip"], ["GZIP"], ["x-gzip"], ["deflate"], ["br"], ["zstd"], ["compress"], ["gzip, gzip"], ["gzip", "gzip"],
    ["identity, gzip"], ["gzip, identity"], ["identity", "gzip"], [" gzip "], ["aws-chunked"], ["é"], ["identity;q=1"],
]  # fmt: skip


def test_no_compressed_body_is_read(run: Callable[..., None]) -> None:
    """Any coding, repeated and nested too, is 415 before a byte of the body is asked for: no bomb, no CPU."""
    asked: list[str] = []

    async def receive() -> dict[str, Any]:
        asked.append("body")
        return {"type": "http.request", "body": BOMB, "more_body": False}

    async def scenario(served: Served) -> None:
        for path, more in (("/in/tag", PAGE), ("/in/api", BEARER), ("/in/gtm", BEARER), ("/in/hook", {})):
            for encodings in ENCODINGS:
                sent: list[Any] = []

                async def send(message: Any, sent: list[Any] = sent) -> None:
                    sent.append(message)

                given = [*more.items(), *(("content-encoding", one) for one in encodings)]
                scope = {
                    "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
                    "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given],
                    "client": (SHOPPER, 5000), "scheme": "http", "http_version": "1.1",
                }  # fmt: skip
                await served.app(scope, receive, send)
                assert sent[0]["status"] == 415, (path, encodings)
                assert json.loads(sent[1]["body"])["error"]["code"] == "unsupported_encoding"

    run(scenario)
    assert asked == []


def test_a_compressed_body_that_does_not_say_so_is_no_json(run: Callable[..., None]) -> None:
    """Without the header it is bytes like any other, and never inflated; identity alone is no compression."""

    async def scenario(served: Served) -> None:
        for body in (BOMB, zlib.compress(b"[]"), gzip.compress(b"{}")):
            answer = await served.post("tag", body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed_json")
        answer = await served.post("tag", event(event_id="e1"), {**PAGE, "Content-Encoding": "identity"})
        assert answer.json()["accepted"] == 1

    run(scenario)


# -- whose address


def forwarded(*values: str) -> list[tuple[str, str]]:
    return [("X-Forwarded-For", value) for value in values]


WHOSE: list[tuple[str, list[tuple[str, str]], str | None]] = [
    # straight to the port: whatever is claimed, the connection tells
    (SHOPPER, forwarded(FORGED), SHOPPER),
    (SHOPPER, forwarded(f"{FORGED}, {PROXY}"), SHOPPER),
    (SHOPPER, forwarded(FORGED, PROXY), SHOPPER),
    ("2606:4700::1111", forwarded(FORGED), "2606:4700::1111"),
    # one proxy, which appends
    (PROXY, forwarded(SHOPPER), SHOPPER),
    (PROXY, forwarded(f"{FORGED}, {SHOPPER}"), SHOPPER),
    # two proxies, in one header or two
    (PROXY, forwarded(f"{FORGED}, {SHOPPER}, 10.9.9.9"), SHOPPER),
    (PROXY, forwarded(f"{FORGED}, {SHOPPER}", "10.9.9.9"), SHOPPER),
    (PROXY, forwarded(FORGED, SHOPPER, "10.9.9.9"), SHOPPER),
    # IPv6, as proxy, as shopper, mapped, with port and brackets
    ("2a06:98c0::1", forwarded("2606:4700::1111"), "2606:4700::1111"),
    (PROXY, forwarded("[2606:4700::1111]:443"), "2606:4700::1111"),
    ("::ffff:10.1.2.3", forwarded(SHOPPER), SHOPPER),
    (PROXY, forwarded(f"::ffff:{SHOPPER}"), SHOPPER),
    (PROXY, forwarded(f"{SHOPPER}:51234"), SHOPPER),
    # garbage costs the address, and never brings a forged one
    (PROXY, forwarded(f"{FORGED}, garbage"), None),
    (PROXY, forwarded(f"{FORGED}, "), FORGED),
    (PROXY, forwarded("unknown"), None),
    (PROXY, forwarded("<script>, 999.1.1.1"), None),
    (PROXY, forwarded("127.0.0.1"), None),
    (PROXY, forwarded(", ".join([FORGED] * 99 + [SHOPPER])), SHOPPER),
    (PROXY, forwarded(", ".join([FORGED] * 3000 + [SHOPPER, "10.0.0.9"])), SHOPPER),
    # other headers are nobody's word
    (PROXY, [("X-Real-IP", FORGED), ("Forwarded", f"for={FORGED}")], None),
    (SHOPPER, [("CF-Connecting-IP", FORGED), ("True-Client-IP", FORGED), ("X-Client-IP", FORGED)], SHOPPER),
    (SHOPPER, [("Forwarded", f'for="{FORGED}"'), ("X-Forwarded", FORGED), ("Client-IP", FORGED)], SHOPPER),
]


def test_whose_address_is_sent(run: Callable[..., None]) -> None:
    """`X-Forwarded-For` counts from trusted proxies alone, from the right: the forged address is never sent."""

    async def scenario(served: Served) -> None:
        for number, (peer, headers, _) in enumerate(WHOSE):
            transport = httpx.ASGITransport(served.app, client=(peer, 5000))
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                given = [*PAGE.items(), *headers]
                answer = await client.post("/in/tag", json=event(event_id=f"e{number}"), headers=given)
            assert answer.json()["accepted"] == 1, answer.text
        await served.drained()
        sent = {one["event_id"]: one["user_data"].get("client_ip_address") for one in served.sandbox.record.events()}
        for number, row in enumerate(WHOSE):
            assert sent[f"e{number}"] == row[2], row

    run(scenario, config=PROXIED, deliver=True)


# -- forged pages


def test_an_absurd_value_is_left_out(run: Callable[..., None]) -> None:
    """A forged hit cannot bring an amount that is none: it costs the field."""
    absurd = ["1e15", "1000000000000000", "NaN", "Infinity", "1" * 400, "0x10", "1e400", "12 EUR", "1;DROP"]

    async def scenario(served: Served) -> None:
        for number, value in enumerate(absurd):
            answer = await served.taken("tag", event(event_id=f"e{number}", currency="EUR", value=value))
            assert answer["accepted"] == 1, value
        await served.drained()
        sent = served.sandbox.record.events()
        assert len(sent) == len(absurd)
        assert [one for one in sent if "value" in one.get("custom_data", {})] == []

    run(scenario, deliver=True)


def test_what_a_forged_page_cannot_do(run: Callable[..., None]) -> None:
    """A page cannot send test events, name another's address, count twice, or speak from another origin."""

    async def scenario(served: Served) -> None:
        forged = {"client": {"ip": FORGED, "user_agent": "forged"}, "test": True}
        answer = await served.taken("tag", event(event_id="e1", **forged))
        assert "test" in " ".join(answer["events"][0]["notes"])
        again = await served.taken("tag", event(event_id="e1"))
        assert again["accepted"] == 0
        await served.drained()
        sent = served.sandbox.record.events()
        assert [(one["event_name"], one["event_id"]) for one in sent] == [("lead", "e1")]
        assert sent[0]["user_data"]["client_ip_address"] == SHOPPER
        assert FORGED not in json.dumps(sent)
        assert served.sandbox.tests.events() == []
        for origin in ("https://evil.io", f"{ORIGIN}.evil.io", "https://shop.example:8443", "http://shop.example"):
            refused = await served.post("tag", event(), {"Origin": origin})
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden_origin")
        referer = await served.post("tag", event(), {"Referer": "https://evil.io/?shop.example"})
        assert referer.status_code == 403

    run(scenario, deliver=True)


# -- foreign origins

ORIGINS = [
    (ORIGIN, True), ("null", True), ("https://shop.example.evil.io", False), ("https://evil-shop.example", False),
    ("https://evil.io/https://shop.example", False), ("https://shop.example@evil.io", False),
    ("https://sub.shop.example", False), ("http://shop.example", False), ("https://shop.example:8443", False),
    ("https://shop.example.", False), ("https://shop.example/", False), ("https://SHOP.example", False),
    ("NULL", False),
    ("*", False), ("", False), ("https://shop.example, https://evil.io", False), ("file://", False),
    ("https://shop.exampl\xe9", False), ("chrome-extension://abc", False),
]  # fmt: skip


def test_who_may_read_an_answer(run: Callable[..., None]) -> None:
    """Exactly the configured origins, written as browsers write them; nothing is reflected, and caches are told."""

    async def scenario(served: Served) -> None:
        for origin, allowed in ORIGINS:
            given = [(b"origin", origin.encode("latin-1"))]
            asked = [*given, (b"access-control-request-method", b"POST")]
            for answer in (
                await served.client.options("/in/tag", headers=asked),
                await served.client.post("/in/tag", json=event(), headers=given),
                await served.client.post("/in/tag", content=b"{", headers=given),
                await served.client.get("/in/tag?d=e30", headers=given),
                await served.client.put("/in/tag", headers=given),
            ):
                granted = answer.headers.get("access-control-allow-origin")
                assert granted == (origin if allowed else None), origin
                with_cookies = answer.headers.get("access-control-allow-credentials")
                assert with_cookies == ("true" if allowed and origin != "null" else None), origin
                assert "Origin" in answer.headers["vary"], origin
                assert "*" not in answer.headers.get("access-control-allow-headers", ""), origin

    run(scenario)


def test_nobody_else_gets_a_permission(run: Callable[..., None]) -> None:
    """A source with secrets, an unknown source, and every other path let no page read anything."""

    async def scenario(served: Served) -> None:
        for path in ("/in/api", "/in/gtm", "/in/hook", "/in/none", "/livez", "/readyz", "/", "/metrics"):
            for method in ("GET", "POST", "OPTIONS", "PUT"):
                headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
                answer = await served.client.request(method, path, headers=headers)
                assert not [name for name in answer.headers if name.startswith("access-control-allow-origin")], path

    run(scenario)


# -- cookies


def test_the_gateway_sets_no_cookie(run: Callable[..., None]) -> None:
    """No answer of any path does, whatever cookies came; the tag's own are written by the page, for its own site."""

    async def scenario(served: Served) -> None:
        data = base64.urlsafe_b64encode(json.dumps(event(event_id="e9")).encode()).decode()
        cookie = {"Cookie": "_epik=dj0abc; session=1; __Host-x=y", **PAGE}
        for method, path in (
            ("GET", f"/in/tag?d={data}"), ("POST", "/in/tag"), ("OPTIONS", "/in/tag"), ("GET", "/in/tag/tag.js"),
            ("GET", "/livez"), ("GET", "/readyz"), ("GET", "/nothing"), ("POST", "/in/api"), ("POST", "/in/hook"),
        ):  # fmt: skip
            answer = await served.client.request(method, path, headers=cookie)
            assert "set-cookie" not in answer.headers, path
        script = (await served.client.get("/in/tag/tag.js")).text
        assert "SameSite=Lax" in script
        assert "Secure" in script

    run(scenario)


def test_a_huge_cookie_is_bounded() -> None:
    """8 KB of cookies are read, what lies beyond 16 KB is not, and none of it costs more than a look."""
    here = Source(name="tag", adapter="browser_tag", site="s", destinations=("p",), allowed_origins=(ORIGIN,))
    for filler, found in (("x" * 8_000, "dj0abc"), ("x" * 20_000, None)):
        hit = Hit(source=here, headers={"cookie": f"other={filler}; _epik=dj0abc"}, received_at=NOW)
        assert hit.cookie("_epik") == found
    assert Hit(source=here, headers={"cookie": "_epik=" + "y" * 8_000}).cookie("_epik") == "y" * 8_000
    assert Hit(source=here, headers={"cookie": ";" * 16_000}).cookie("_epik") is None
