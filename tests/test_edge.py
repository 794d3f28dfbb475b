"""What the edge refuses, without a server: sizes, hosts, framing, methods, and what it costs."""

import asyncio
import re
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import pytest

from gateway import refusal
from gateway.edge import Edge
from gateway.errors import ConfigError
from gateway.floors import assert_floors
from gateway.tally import Tally
from tests.harness.processes import ROOT, say
from tests.harness.raw import code_of

HOST = (b"host", b"tags.example.com")
#: What a browser sends through a proxy.
USUAL = [
    HOST, (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"),
    (b"accept", b"*/*"), (b"accept-language", b"en-US,en;q=0.5"), (b"accept-encoding", b"gzip, deflate, br"),
    (b"content-type", b"text/plain;charset=UTF-8"), (b"content-length", b"412"), (b"origin", b"https://shop.example"),
    (b"referer", b"https://shop.example/products/1"), (b"sec-fetch-dest", b"empty"), (b"sec-fetch-mode", b"no-cors"),
    (b"sec-fetch-site", b"cross-site"), (b"x-forwarded-for", b"203.0.113.7"), (b"x-forwarded-proto", b"https"),
    (b"priority", b"u=4"),
]  # fmt: skip


class App:
    """Takes everything, and counts it."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)


def scope_of(headers: list[tuple[bytes, bytes]], **changes: Any) -> dict[str, Any]:
    path = changes.get("path", "/in/api")
    return {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "http_version": "1.1", "headers": headers, **changes,
    }  # fmt: skip


def ask(edge: Edge, scope: dict[str, Any]) -> tuple[int, dict[bytes, bytes], bytes]:
    """Return the edge's answer; status 0 when it handed the request on."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(edge(scope, receive, send))
    if not sent:
        return 0, {}, b""
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def refused(headers: list[tuple[bytes, bytes]], *hosts: str, **changes: Any) -> tuple[int, str]:
    """Return status and code of a request's answer; (0, "") when it is handed on."""
    app = App()
    status, answered, body = ask(Edge(app, lambda: hosts), scope_of(headers, **changes))
    assert (status == 0) == bool(app.scopes)
    if status == 0:
        return 0, ""
    assert answered[b"content-type"] == b"application/json"
    assert answered[b"content-length"] == str(len(body)).encode()
    return status, code_of(body)


def test_a_usual_request_is_handed_on() -> None:
    """What browsers, proxies and shops send is not touched."""
    assert refused(USUAL) == (0, "")
    assert refused([HOST, (b"transfer-encoding", b"chunked")]) == (0, "")
    assert refused([HOST, (b"cookie", b"a" * 8_192)]) == (0, "")
    assert refused([], http_version="1.0", method="GET") == (0, "")


@pytest.mark.parametrize(
    ("headers", "changes", "expected"),
    [
        ([HOST, *[(b"x-%d" % n, b"") for n in range(99)]], {}, (0, "")),
        ([HOST, *[(b"x-%d" % n, b"") for n in range(100)]], {}, (431, "large_headers")),
        ([HOST, (b"cookie", b"a" * (32_768 - len(b"cookiehosttags.example.com")))], {}, (0, "")),
        ([HOST, (b"cookie", b"a" * (32_769 - len(b"cookiehosttags.example.com")))], {}, (431, "large_headers")),
        ([HOST], {"query_string": b"q" * (16_384 - len("/in/api"))}, (0, "")),
        ([HOST], {"query_string": b"q" * (16_385 - len("/in/api"))}, (414, "long_target")),
        ([HOST], {"path": "/in/" + "p" * 16_384}, (414, "long_target")),
    ],
    ids=["100 headers", "101", "32 KB", "32 KB and 1", "16 KB target", "16 KB and 1", "long path"],
)
def test_sizes_have_limits(
    headers: list[tuple[bytes, bytes]], changes: dict[str, Any], expected: tuple[int, str]
) -> None:
    """100 headers, 32 KB of them, 16 KB of path and query; one more is 431 or 414."""
    assert refused(headers, **changes) == expected


@pytest.mark.parametrize(
    "host", [b"tags.example.com", b"tags.example.com:8443", b"127.0.0.1:80", b"[::1]:80", b"TAGS.example.com.", b"a_b"]
)
def test_a_sound_host_is_taken(host: bytes) -> None:
    """Names, addresses and ports, without a list of hosts."""
    assert refused([(b"host", host)]) == (0, "")


@pytest.mark.parametrize(
    "host",
    [
        b"", b"a b", b"a/b", b"a@b", b"a:b", b"a:999999", b"[::1", b"::1", b"a,b", b"-a", b"a\x00", "ä".encode(),
        b"a" * 300, b"http://a", b"a?b",
    ],
)  # fmt: skip
def test_a_malformed_host_is_refused(host: bytes) -> None:
    """Whatever is no name and no address, on every path."""
    assert refused([(b"host", host)]) == (400, "bad_host")
    assert refused([(b"host", host)], "tags.example.com", path="/livez") == (400, "bad_host")


def test_there_is_one_host() -> None:
    """None in HTTP/1.1, or two, even if they are the same, are refused."""
    assert refused([]) == (400, "bad_host")
    assert refused([HOST, HOST]) == (400, "bad_host")
    assert refused([HOST, HOST], "tags.example.com", path="/livez") == (400, "bad_host")


def test_only_listed_hosts_are_served() -> None:
    """With ``hosts``, others are refused, but for the probes; capitals, a dot at the end and ports do not matter."""
    for host in (b"tags.example.com", b"TAGS.EXAMPLE.COM.:443", b"t2.example"):
        assert refused([(b"host", host)], "Tags.example.com", "t2.example") == (0, "")
    for host in (b"evil.example", b"tags.example.com.evil.example", b"127.0.0.1:8000"):
        assert refused([(b"host", host)], "tags.example.com") == (400, "unknown_host")
        for path in ("/livez", "/readyz"):
            assert refused([(b"host", host)], "tags.example.com", path=path, method="GET") == (0, "")
    assert refused([], "tags.example.com", http_version="1.0") == (400, "unknown_host")


def test_a_reload_changes_the_hosts() -> None:
    """A host that was good is not remembered beyond the list that it was good for, nor by a probe."""
    hosts: tuple[str, ...] = ("a.example",)
    edge = Edge(App(), lambda: hosts)
    assert ask(edge, scope_of([(b"host", b"b.example")], path="/livez"))[0] == 0
    assert ask(edge, scope_of([(b"host", b"b.example")]))[0] == 400
    assert ask(edge, scope_of([(b"host", b"a.example")]))[0] == 0
    hosts = ("b.example",)
    assert ask(edge, scope_of([(b"host", b"a.example")]))[0] == 400
    assert ask(edge, scope_of([(b"host", b"b.example")]))[0] == 0


def test_remembered_hosts_are_bounded() -> None:
    """A million host names that nobody listed do not fill the memory."""
    edge = Edge(App())
    for number in range(1_000):
        assert ask(edge, scope_of([(b"host", b"h%d.example" % number)]))[0] == 0
    assert len(edge._good) <= 256


LENGTH, CHUNKED = (b"content-length", b"5"), (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize(
    "headers",
    [
        [LENGTH, CHUNKED], [CHUNKED, LENGTH], [LENGTH, LENGTH], [LENGTH, (b"content-length", b"6")],
        [(b"content-length", b"5, 5")], [(b"content-length", b"+5")], [(b"content-length", b"0x5")],
        [(b"content-length", b"")], [CHUNKED, CHUNKED], [(b"transfer-encoding", b"gzip, chunked")],
        [(b"transfer-encoding", b"identity")], [(b"transfer-encoding", b"xchunked")],
        [(b"transfer-encoding", b"chunked, identity")], [(b"transfer-encoding", b"chun\x0bked")],
        [(b"transfer-encoding", b"")],
    ],
)  # fmt: skip
def test_a_body_whose_end_is_in_doubt_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    """Two lengths, a length and chunks, or another coding: refused, and the connection is not used again."""
    edge = Edge(App())
    status, answered, body = ask(edge, scope_of([HOST, *headers]))
    assert (status, code_of(body), answered[b"connection"]) == (400, "bad_framing", b"close")


def test_chunks_are_for_http_1_1() -> None:
    """HTTP/1.0 has no chunks: RFC 9112, 6.1."""
    assert refused([HOST, CHUNKED], http_version="1.0") == (400, "bad_framing")


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "CONNECT", "PROPFIND", "BREW", "post", "PRI"])
@pytest.mark.parametrize("path", ["/in/api", "/livez", "/readyz", "/", "/metrics"])
def test_other_methods_exist_nowhere(method: str, path: str) -> None:
    """TRACE, CONNECT and unknown verbs are 405 on every path, with what is allowed."""
    status, answered, body = ask(Edge(App()), scope_of([HOST], method=method, path=path))
    assert (status, code_of(body)) == (405, "method_not_allowed")
    assert answered[b"allow"] == b"GET, HEAD, POST, OPTIONS"


def test_websockets_are_refused() -> None:
    """As an upgrade and, should an engine take one, as a scope; an upgrade to HTTP/2 is just not taken up."""
    assert refused([HOST, (b"upgrade", b"WebSocket"), (b"connection", b"upgrade")]) == (400, "no_websocket")
    assert refused([HOST, (b"upgrade", b"h2c"), (b"connection", b"upgrade")]) == (0, "")
    app, sent = App(), []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Edge(app)({"type": "websocket", "path": "/in/api", "headers": [HOST]}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert app.scopes == []


def test_head_has_no_body_and_refusals_count() -> None:
    """The answer to HEAD has no body, and each refusal is a hit of no source."""
    tally = Tally()
    edge = Edge(App(), tally=tally)
    status, _, body = ask(edge, scope_of([(b"host", b"a b")], method="HEAD"))
    assert (status, body) == (400, b"")
    assert tally.hits == {("-", "400"): 1}


def test_every_refusal_is_documented() -> None:
    """The table of error codes has each with its status."""
    text = (ROOT / "docs/operations.md").read_text()
    found = [each for each in vars(refusal).values() if isinstance(each, refusal.Refusal)]
    assert len(found) >= 9
    for each in found:
        assert re.search(rf"^\| .*`{each.code}`.* \| {each.status} \|", text, re.MULTILINE), each.code


def test_the_edge_is_cheap() -> None:
    """A usual request of 15 headers costs a few microseconds: the bound is far above, for busy machines."""
    edge, scope = Edge(App(), lambda: ("tags.example.com",)), scope_of(USUAL)
    assert edge._problem(scope) is None
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(500):
            edge._problem(scope)
        best = min(best, (time.perf_counter() - began) / 500)
    assert best < 15e-6
    say(f"edge: {best * 1e6:.2f} us for a request of {len(USUAL)} headers")


def installed(**changes: str | None) -> Callable[[str], str]:
    """Return what says the installed versions, some of them others; None: not installed."""

    def version(name: str) -> str:
        found = changes.get(name, metadata.version(name))
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    return version


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("starlette", "1.3.0"), ("starlette", "0.49.1"), ("h11", "0.15"), ("h2", "4.4.0"), ("h2", None),
        ("hypercorn", "0.18.1"), ("hypercorn", "0.17.3"), ("h11", "unknown"),
    ],
)  # fmt: skip
def test_old_libraries_are_refused(name: str, found: str | None) -> None:
    """One line that names distribution, version and remedy; Hypercorn must be exactly the one that is known."""
    with pytest.raises(ConfigError) as caught:
        assert_floors(installed(**{name: found}))
    text = str(caught.value)
    assert text.startswith(f"{name} {found or 'none'} is installed")
    assert f'pip install "{name}' in text
    assert "\n" not in text


def test_newer_libraries_are_taken() -> None:
    """What is installed here is fit, and so are later versions."""
    assert_floors()
    assert_floors(installed(starlette="2.0", h11="0.16.0", h2="4.10.0rc1"))
