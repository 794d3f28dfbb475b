"""What the fuzz sends: the mandatory seeds, mutations of sound requests, and Hypothesis strategies for each source."""

import base64
import gzip
import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from gateway.testing import hostile
from gateway.testing.examples import Example, files, load
from tests.harness.fuzz import ADAPTERS, CANARY, PIXELS, SOURCES, Headers, Input, hit, pixel, proof

ROOT = Path(__file__).resolve().parents[2]
_EXAMPLES = {
    "browser_tag": ROOT / "gateway/plugins/browser_tag/examples",
    "gtm": ROOT / "adapters/gtm/examples",
    "shopify": ROOT / "adapters/shopify/examples",
    "shopify_pixel": ROOT / "adapters/shopify/examples",
    "tealium": ROOT / "adapters/tealium/examples",
}
TOPICS = (
    "orders/create", "orders/paid", "checkouts/create", "customers/create", "orders/updated", "app/uninstalled",
    "carts/update", "customers/redact", "nothing/known", "ORDERS/CREATE",
)  # fmt: skip
#: JSON texts that take the place of a value: the kit's, and what else once broke something somewhere.
VALUES: dict[str, str] = {
    **hostile.VALUES,
    "2^53 + 1": "9007199254740993",
    "2^63 - 1": "9223372036854775807",
    "2^64": "18446744073709551616",
    "-2^63 - 1": "-9223372036854775809",
    "a 400-digit integer": "7" * 400,
    "-1e999": "-1e999",
    "1e-999": "1e-999",
    "-0.0": "-0.0",
    "Infinity": "Infinity",
    "a pair of surrogates the wrong way": '"\\udc00\\ud800"',
    "ESC": '"\\u001b[31mred\\u001b[0m"',
    "U+2028": '"a\\u2028b\\u2029c\\u0085"',
    "U+FFFF": '"\\uffff\\ufdd0"',
    "bidi": '"\\u202ea\\u2067b\\u061c"',
    "a template": '"{{email}}${x}%s{0}"',
    "white space": '" \\t\\r\\n\\u00a0\\u3000 "',
    "digits of another script": '"\\u0661\\u0662\\u0663"',
    "a superscript": '"\\u00b2"',
    "a number with dots": '"1.2.3,4"',
    "a huge exponent": '"1e99999999"',
    "an IPv6 with a zone": '"fe80::1%eth0"',
    "half an IPv6 URL": '"https://[::1"',
    "a URL with a bad port": '"https://a:99999999/x?epik=%ff%00"',
    "a URL of brackets": '"http://[[]]//@:?#"',
    "a date that is none": '"2026-02-30T25:61:61+99:99"',
    "the year 1": '"0001-01-01T00:00:00+14:00"',
    "the year 9999": '"9999-12-31T23:59:59-14:00"',
    "a time of 2^70": "1180591620717411303424",
    "a text of 9,000 characters": f'"{"é" * 9_000}"',
    "1,001 objects": f"[{','.join(['{}'] * 1_001)}]",
    "depth 31": "[" * 31 + "]" * 31,
    "a canary": f'"{CANARY}"',
    "a canary's address": f'"{CANARY}@{CANARY}.example"',
    "a canary's key": f'{{"{CANARY}": "{CANARY}", "{CANARY}@a.example": [1]}}',
    "a canary's URL": f'"https://{CANARY}.example/{CANARY}?email={CANARY}%40x.example&epik={CANARY}"',
}
_TOKENS = list(VALUES.values())
#: Cheap ones, for bulk: the long ones are sent once for each place.
#: Names of ids, in any vendor's words.
_IDS = frozenset({"id", "event_id", "order_id", "transaction_id", "token", "checkout_token", "cart_token", "_corder",
                  "orderId", "checkout_id"})  # fmt: skip
SMALL = [text for text in _TOKENS if len(text) < 6_000]
EVENT = {"event_name": "lead", "event_id": "e", "user": {"email": "jo@example.com"}}


@cache
def bodies() -> tuple[tuple[str, bytes], ...]:
    """Return the mandatory bodies: each is sent to every source."""
    return tuple(_bodies())


def _bodies() -> Iterator[tuple[str, bytes]]:
    yield from hostile.texts()
    yield from hostile.masses()
    for name, text in VALUES.items():
        yield f"{name} alone", text.encode()
        yield f"{name} as a text's key", b'{"event_name": "lead", %b: 1}' % _as_key(text)
    yield "depth 1,000", b"[" * 1_000 + b"]" * 1_000
    yield "objects 1,000 deep", b'{"user":' * 1_000 + b"1" + b"}" * 1_000
    yield "100,000 deep in an event", b'{"event_name":"lead","user":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    yield "1 MB of []", b"[" + b"[]," * 349_000 + b"[]]"
    yield "duplicate keys of an event", b'{"event_name":"lead","event_name":"checkout","user":{},"user":7,"user":[]}'
    yield "UTF-16 with a BOM", '{"event_name": "lead"}'.encode("utf-16")
    yield "UTF-16 without", '{"event_name": "lead"}'.encode("utf-16-le")
    yield "UTF-32", '{"event_name": "lead"}'.encode("utf-32")
    yield "a NUL between", b'{"event_name"\x00: "lead"}'
    yield "raw control characters", b'{"event_name": "a\x1b\x01\nb"}'
    yield "an overlong slash", b'{"event_name": "\xc0\xaf"}'
    yield "an encoded surrogate", b'{"event_name": "\xed\xa0\x80"}'
    yield "1,001 events", json.dumps([EVENT] * 1_001).encode()
    yield "1,000 bad events", json.dumps([{"event_name": ""}] * 1_000).encode()
    yield "1 M form fields", b"&".join([b"a=1"] * 260_000)
    yield "GA4 lines", b"\n".join([b"en=page_view&cid=1"] * 1_001)
    yield "one GA4 line of 600 parameters", b"en=x&" + b"&".join(b"ep.k%d=1" % number for number in range(600))
    yield "501 keys", json.dumps({**EVENT, **{f"k{number}": 1 for number in range(501)}}).encode()
    yield "a string of 1 MB", json.dumps({**EVENT, "search_string": CANARY * 110_000}).encode()
    yield "multipart", b"--x\r\ncontent-disposition: form-data; name=a\r\n\r\n1\r\n--x--\r\n"
    yield "gzip without saying so", gzip.compress(json.dumps(EVENT).encode())


def _as_key(text: str) -> bytes:
    return text.encode() if text.startswith('"') else json.dumps(text[:2_000]).encode()


_BOMB = gzip.compress(bytes(8_000_000))
#: Header sets, each with a sound body.
HEADERS: dict[str, Headers] = {
    "gzip": ((b"content-encoding", b"gzip"),),
    "gzip, deflate, br": ((b"content-encoding", b"gzip, deflate, br"),),
    "gzip, gzip": ((b"content-encoding", b"gzip, gzip"),),
    "br": ((b"content-encoding", b"br"),),
    "two content encodings": ((b"content-encoding", b"identity"), (b"content-encoding", b"zstd")),
    "a strange coding": ((b"content-encoding", CANARY.encode()),),
    "a form": ((b"content-type", b"application/x-www-form-urlencoded"),),
    "multipart without boundary": ((b"content-type", b"multipart/form-data"),),
    "UTF-16 said": ((b"content-type", b"application/json; charset=utf-16"),),
    "a content type of 8 KB": ((b"content-type", b"x" * 8_000),),
    "a content type that is none": ((b"content-type", b"\xff/\xfe;;=\x09"),),
    "XML": ((b"content-type", b"text/xml"),),
    "a long header": ((b"x-long", b"y" * 12_000),),
    "300 headers": tuple((b"x-%d" % number, b"1") for number in range(300)),
    "the same header 200 times": ((b"x-forwarded-for", b"10.0.0.1"),) * 200,
    "addresses": ((b"x-forwarded-for", b"::1, 1.2.3, [::]:1, %00, \xb2.\xb3, " + b"1.1.1.1," * 200),),
    "a user agent of 9 KB": ((b"user-agent", b"Mozilla/5.0 (" * 700),),
    "a user agent of bytes": ((b"user-agent", bytes(range(128, 256))),),
    "ESC in a user agent": ((b"user-agent", b"a\x1b[2J\xe2\x80\xa8b\xe2\x80\xae"),),
    "cookies": ((b"cookie", b'_epik=' + b'"\\377\\999;' * 400 + b"=;;=;_epik"),),
    "a cookie of bytes": ((b"cookie", b"_epik=\xff\xfe%00%zz"),),
    "no origin but a bad referer": ((b"origin", b""), (b"referer", b"http://[" + CANARY.encode())),
    "an origin that is no URL": ((b"origin", b"https://[::1"),),
    "an origin of bytes": ((b"origin", b"https://\xff" + CANARY.encode()),),
    "an origin twice": ((b"origin", b"null"), (b"origin", b"https://shop.example")),
    "a referer of 9 KB": ((b"referer", b"https://shop.example/?" + b"%ff" * 3_000),),
    "a wrong bearer": ((b"authorization", b"Bearer \xff\xfe" + CANARY.encode()),),
    "a basic of rubbish": ((b"authorization", b"Basic ===" + CANARY.encode()),),
    "a basic of bytes": ((b"authorization", b"Basic " + base64.b64encode(b"\xff:\xfe" + CANARY.encode())),),
    "another scheme": ((b"authorization", b"Digest " + CANARY.encode()),),
    "a signature of bytes": ((b"x-shopify-hmac-sha256", b"\xff\xfe"),),
    "a signature in hexadecimal": ((b"x-shopify-hmac-sha256", b"ab" * 32),),
    "another shop": ((b"x-shopify-shop-domain", CANARY.encode()),),
    "a topic of bytes": ((b"x-shopify-topic", b"\xff\xfe\x85" + CANARY.encode()),),
    "an endless topic": ((b"x-shopify-topic", b"orders/" * 1_500),),
    "a time that is none": ((b"x-shopify-topic", b"customers/redact"), (b"x-shopify-triggered-at", b"9" * 400)),
    "privacy signals": ((b"sec-gpc", b"\xff1"), (b"cf-ipcountry", b"\xff\xfe"), (b"cf-region-code", b"x" * 500)),
    "a language": ((b"accept-language", b"\xff" * 3_000),),
}  # fmt: skip
QUERIES: tuple[tuple[str, bytes], ...] = (
    ("nothing", b""),
    ("separators", b"&&==&;&"),
    ("bytes that are no UTF-8", b"d=%ff%fe&data=%c3%28&dtcd=%ed%a0%80&en=%ff"),
    ("raw escapes", b"d=%zz%&en=%u1234&data=%"),
    ("%0a and ESC", b"en=a%0a%1b%5b31m&d=%0a&data=%0a"),
    ("600 parameters", b"&".join(b"p%d=1" % number for number in range(600))),
    ("8 KB", b"en=" + b"x" * 8_000),
    ("base64 of rubbish", b"d=" + base64.urlsafe_b64encode(bytes(range(256))) + b"&dtdc=AAAA"),
    ("base64 of a wrong length", b"d=A&dtdc=A"),
    ("base64 with garbage", b"d=!!!" + CANARY.encode() + b"&dtdc=%00%00&data=" + CANARY.encode()),
    ("the same 400 times", b"&".join([b"d=e30"] * 400)),
    (
        "a GA4 hit of rubbish",
        b"v=2&tid=x&en=" + CANARY.encode() + b"&epn.value=1e999&pr1=~~id~&pr999=id%00&em=tv.1~em.~",
    ),
)
PATHS: tuple[bytes, ...] = (
    b"/", b"/in", b"/in/", b"/in//", b"/in/%00", b"/in/%0a%0d" + CANARY.encode(), b"/in/%ff%fe", b"/in/%E2%80%AE",
    b"/in/%1b%5b31m", b"/in/..%2f..%2fetc/passwd", b"/in/tag/../api", b"/in/" + b"x" * 7_000, b"/in/" + b"a/" * 3_000,
    b"/in/%", b"/in/%zz", b"/in/tag%", b"/in/TAG", b"/in/tag;x=1", b"/in/" + CANARY.encode(), b"/livez/", b"/livez%00",
    b"/readyz?x=%ff", b"/metrics", b"/api/status", b"/docs", b"/openapi.json", b"/openapi.yaml", b"/status",
    b"/healthz", b"//in/tag", b"/in/tag/tag.js/", b"/in/tag/tag.js%00", b"/in/pixel/pixel.js%0a", b"/in/api/tag.js",
    b"/in/tag/%2e%2e/%2e%2e/tag.js", b"/in/gtm/g/collect%ff", b"/plugins/x", b"/oauth/callback?state=x",
)  # fmt: skip
METHODS = ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "post", "X" * 200)


def mandatory() -> Iterator[Input]:
    """Yield each mandatory seed at each source: as the body, as a value of a sound event, as query, header, path."""
    for source in SOURCES:
        topic: Headers = ((b"x-shopify-topic", b"orders/create"),) if source == "hook" else ()
        sound = samples(ADAPTERS[source])[0][1]
        for name, body in bodies():
            yield hit(source, body, f"{name} at {source}", topic)
        rename = Mutator(0)
        for name, text in VALUES.items():
            fresh = rename.renamed(json.loads(sound))
            for at in _places(sound):
                body = msgspec.json.encode(hostile.replaced(fresh, at, msgspec.Raw(text.encode())))
                yield hit(source, body, f"{name} at {hostile.shown(at)} of {source}", topic)
                if source in PIXELS and len(body) < 12_000 and len(at) == 1:
                    yield pixel(source, in_query(source, body), f"{name} at {hostile.shown(at)} in a GET of {source}")
        for name, headers in HEADERS.items():
            body = _BOMB if b"gzip" in headers[0][1] else sound
            yield hit(source, body, f"{name} at {source}", (*headers, *topic))
            if source in PIXELS:
                yield pixel(source, in_query(source, sound), f"{name} in a GET of {source}", headers)
        for name, query in QUERIES:
            yield pixel(source, query, f"{name} in a GET of {source}")
            yield hit(source, sound, f"{name} beside a body of {source}", topic, b"?" + query)
        for method in METHODS:
            yield Input(
                label=f"{method[:9]} at {source}",
                method=method,
                target=b"/in/" + source.encode(),
                headers=proof(source, b""),
            )
    for path in PATHS:
        for method in ("GET", "POST"):
            yield Input(
                label=f"{method} {path[:40]!r}", method=method, target=path, body=b"{}" if method == "POST" else b""
            )


def spoilt_headers() -> Iterator[Input]:
    """Yield a sound body under each set of headers, at each source."""
    for source in SOURCES:
        for name, headers in HEADERS.items():
            yield hit(source, samples(ADAPTERS[source])[0][1], f"{name} at {source}", headers)


def _places(body: bytes) -> list[hostile.Path]:
    """Return the places of a sound event's own fields, and one inside each of its parts."""
    paths = [at for at in hostile.paths(json.loads(body)) if at]
    inner: dict[Any, hostile.Path] = {}
    for at in paths:
        if len(at) > 1:
            inner.setdefault(at[0], at)
    return [at for at in paths if len(at) == 1][:4] + list(inner.values())[:3]


def in_query(source: str, body: bytes) -> bytes:
    """Return a body as the query of a GET."""
    name, is_encoded = PIXELS[source]
    text = base64.urlsafe_b64encode(body).rstrip(b"=").decode() if is_encoded else quote(body)
    return f"{name}={text}".encode()


@cache
def samples(adapter: str) -> list[tuple[Example, bytes]]:
    """Return the adapter's sound examples, each with its body."""
    found = []
    for path in files(_EXAMPLES[adapter]):
        example = load(path)
        if (path.name.startswith("pixel")) != (adapter == "shopify_pixel") and adapter.startswith("shopify"):
            continue
        body = json.dumps(example.hit.body).encode() if example.hit.raw is None else example.hit.raw.encode()
        if example.hit.body is not None and not example.rejected:
            found.append((example, body))
    objects = [one for one in found if isinstance(one[0].hit.body, dict)]
    objects.sort(key=lambda one: -len(one[1]))  # the fullest one first
    return objects + [one for one in found if one not in objects]


class Mutator:
    """Spoils sound requests, as one seed has it."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._number = 0

    def next(self) -> Input:
        """Return the next input: mostly almost valid, for every source in turn."""
        rng = self._rng
        self._number += 1
        source = SOURCES[self._number % len(SOURCES)]
        # at times what another vendor sends
        adapter = rng.choice(list(_EXAMPLES)) if rng.random() < 0.05 else ADAPTERS[source]
        example, _ = rng.choice(samples(adapter))
        value = self._spoilt(self.renamed(example.hit.body))
        if rng.random() < 0.1:
            value = [self._spoilt(self.renamed(rng.choice(samples(adapter))[0].hit.body)) for _ in range(3)]
        body = msgspec.json.encode(value)
        if rng.random() < 0.12:
            body = self._bytes(body)
        label = f"mutation {self._number} for {source}"
        headers = self._headers(source, example)
        if source in PIXELS and rng.random() < 0.2 and len(body) < 30_000:
            query = in_query(source, body)
            if source in ("gtm", "ga") and rng.random() < 0.5:
                query = self._collect()
            return pixel(source, self._text(query), label, headers)
        tail = b"" if rng.random() < 0.9 else b"/" + quote(bytes(rng.randbytes(4))).encode() + b"?" + self._collect()
        if source in ("gtm", "ga") and rng.random() < 0.2:
            body = b"\n".join(self._collect() for _ in range(rng.randrange(1, 4)))
        return hit(source, body, label, headers, tail)

    def renamed(self, value: Any) -> Any:
        """Return a copy under other ids, mostly: copies of one event would all be one."""
        if isinstance(value, list):
            return [self.renamed(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {name: self._id(item) if name in _IDS else self.renamed(item) for name, item in value.items()}

    def _id(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int) or self._rng.random() < 0.2:
            return self.renamed(value)
        number = self._rng.randrange(10**12)
        return number if isinstance(value, int) else f"{value[:20]}{number}"

    def _spoilt(self, value: Any) -> Any:
        rng = self._rng
        for _ in range(rng.choice((0, 1, 1, 2, 3, 6))):
            at = rng.choice(list(hostile.paths(value))[:400])
            kind = rng.random()
            new: Any
            if kind < 0.65:
                new = msgspec.Raw(rng.choice(SMALL).encode())
            elif kind < 0.8:
                new = self._random_value(3)
            elif kind < 0.9:
                new = [hostile_at(value, at)] * rng.choice((1, 2, 25))
            else:
                new = {rng.choice(["id", "name", "value", "", CANARY, "\u2028", "a" * 300]): hostile_at(value, at)}
            value = hostile.replaced(value, at, new)
            if isinstance(value, msgspec.Raw):
                break
            if rng.random() < 0.1 and isinstance(value, dict) and value:
                value.pop(rng.choice(list(value)))
        return value

    def _random_value(self, depth: int) -> Any:
        rng = self._rng
        kind = rng.randrange(7 if depth else 5)
        if kind == 0:
            return rng.choice((None, True, False, 0, -1, 2**53, -(2**63), 2**64 - 1))
        if kind == 1:
            return rng.uniform(-1e9, 1e9)
        if kind < 5:
            return "".join(
                chr(rng.choice((rng.randrange(32, 127), rng.randrange(160, 0xD7FF)))) for _ in range(rng.randrange(12))
            )
        if kind == 5:
            return [self._random_value(depth - 1) for _ in range(rng.randrange(4))]
        return {self._random_text(): self._random_value(depth - 1) for _ in range(rng.randrange(4))}

    def _random_text(self) -> str:
        return self._rng.choice(["a", "", "id", "user", "data", "items", "é", CANARY])

    def _bytes(self, body: bytes) -> bytes:
        rng = self._rng
        spoilt = bytearray(body)
        for _ in range(rng.randrange(1, 5)):
            place = rng.randrange(len(spoilt) + 1)
            kind = rng.randrange(4)
            if kind == 0:
                spoilt[place:place] = rng.randbytes(rng.randrange(1, 5))
            elif kind == 1:
                del spoilt[place : place + rng.randrange(1, 9)]
            elif kind == 2:
                spoilt[place : place + 1] = rng.choice((b"\\ud800", b"\xff", b"\x00", b'"', b"[" * 40, b"1e999", b"\\"))
            else:
                del spoilt[place:]
        return bytes(spoilt)

    def _text(self, query: bytes) -> bytes:
        if self._rng.random() < 0.3 and query:
            place = self._rng.randrange(len(query))
            query = (
                query[:place] + self._rng.choice((b"%", b"%00", b"%ff", b"+", b"&", b"=", b"%zz", b"~")) + query[place:]
            )
        return query

    def _collect(self) -> bytes:
        rng = self._rng
        names = (
            "v",
            "tid",
            "cid",
            "en",
            "dl",
            "uid",
            "cu",
            "ep.x",
            "epn.value",
            "pr1",
            "pr2",
            "em",
            "gcs",
            "_dbg",
            "ul",
            "us_privacy",
            "gpp",
        )
        given = {
            name: self._random_text() + rng.choice(("", "1e999", "G110", "%", "~id1~pr5~qt2", "tv.1~em.x"))
            for name in names
            if rng.random() < 0.5
        }
        return urlencode({"en": "page_view", **given}).encode()

    def _headers(self, source: str, example: Example) -> Headers:
        rng = self._rng
        found: list[tuple[bytes, bytes]] = []
        if source == "hook":
            found.append((b"x-shopify-topic", rng.choice(TOPICS).encode()))
        if rng.random() < 0.6:
            found.append((b"user-agent", rng.choice((b"Mozilla/5.0 (X11; Linux x86_64)", b"\xff", b"", b"a" * 600))))
        if rng.random() < 0.15:
            found += [pair for pair in rng.choice(list(HEADERS.values())) if len(pair[1]) < 4_000][:3]
        return tuple({name: (name, value) for name, value in found}.values())


def hostile_at(value: Any, at: hostile.Path) -> Any:
    """Return what stands at a path."""
    for part in at:
        value = value[part]
    return value
