"""What a broken or hostile sender may send: bodies, queries and headers, each with a name for failed checks."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import msgspec

Path = tuple[str | int, ...]
_STEP = 7
#: Points of truncation of one body, so that a long example costs no more than a short one.
_MOST_CUTS = 200
_MOST_PATHS = 300
_DIGITS = "9" * 5_000
#: JSON texts that take the place of each value of an example in turn.
VALUES: dict[str, str] = {
    "null": "null",
    "true": "true",
    "a negative number": "-1",
    "2^63": "9223372036854775808",
    "a 5,000-digit integer": _DIGITS,
    "1e999": "1e999",
    "NaN": "NaN",
    "an empty text": '""',
    "a lone surrogate": '"\\ud800"',
    "a NUL": '"a\\u0000b"',
    "a right-to-left override": '"\\u202e\\u2066x"',
    "a text of 100,000 characters": f'"{"x" * 100_000}"',
    "a 5,000-digit text": f'"{_DIGITS}"',
    "a number's text out of range": '"-1e99"',
    "a time out of range": '"99999-12-31T23:59:60Z"',
    "an empty array": "[]",
    "an empty object": "{}",
    "an array of nulls": f"[{','.join(['null'] * 50)}]",
    "an array of arrays": "[[[[1]]], {}]",
    "an object of objects": '{"a": {"b": {"c": []}}, "": null}',
}


def texts() -> Iterator[tuple[str, bytes]]:
    """Yield small bodies that have nothing to do with an example."""
    yield "an empty body", b""
    yield "white space", b" \r\n\t "
    yield "a BOM alone", b"\xef\xbb\xbf"
    yield "a BOM before JSON", b'\xef\xbb\xbf{"a": 1}'
    yield "UTF-16", '{"a": "b"}'.encode("utf-16")
    yield "Latin-1", '{"a": "é"}'.encode("latin-1")
    yield "bytes that are no text", bytes(range(256))
    yield "a form", b"a=b&c=%00&d"
    yield "duplicate keys", b'{"a": 1, "a": {"a": [], "a": null}}'
    yield "two values", b"{} {}"
    for name in ("null", "true", "-1", "NaN", "Infinity", "1e999", '"text"', "[]", "{}", "[null]", "[[]]", "[{}]"):
        yield name, name.encode()
    yield "an array of nulls", f"[{','.join(['null'] * 1_000)}]".encode()


def masses() -> Iterator[tuple[str, bytes]]:
    """Yield bodies near the size limits."""
    yield "1 MB of junk", bytes(range(1, 256)) * 4_112
    yield "1 MB of text", b'"' + b"x" * 1_000_000 + b'"'
    yield "100,000 open brackets", b"[" * 100_000
    yield "nested 100,000 deep", b"[" * 100_000 + b"]" * 100_000
    yield "objects nested 20,000 deep", b'{"a":' * 20_000 + b"1" + b"}" * 20_000
    yield "200,000 keys", b"{" + b",".join(b'"k%d":0' % number for number in range(200_000)) + b"}"
    yield "300,000 nulls", b"[" + b",".join([b"null"] * 300_000) + b"]"
    yield "100,000 empty objects", b"[" + b",".join([b"{}"] * 100_000) + b"]"
    yield "a 1 MB integer", b"9" * 1_000_000


def truncations(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the body cut at every seventh byte."""
    for end in range(1, len(body), max(_STEP, len(body) // _MOST_CUTS)):
        yield f"the body cut after {end} bytes", body[:end]


def corruptions(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the body with one byte that cannot be right, at fifty places."""
    for place in range(0, len(body), max(1, len(body) // 50)):
        yield f"a byte 0xFF at {place}", body[:place] + b"\xff" + body[place + 1 :]


def paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Yield the path of every value inside a decoded body, outer ones first."""
    yield at
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from paths(item, (*at, index))


def replaced(value: Any, at: Path, new: Any) -> Any:
    """Return a copy of a decoded body with ``new`` at the path; ``msgspec.Raw`` is allowed."""
    if not at:
        return new
    head, rest = at[0], at[1:]
    if isinstance(value, dict):
        return {key: replaced(item, rest, new) if key == head else item for key, item in value.items()}
    return [replaced(item, rest, new) if index == head else item for index, item in enumerate(value)]


def mutations(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the example's JSON with each value in turn replaced by each of :data:`VALUES`; nothing for another body."""
    decoded = decode(body)
    if decoded is None:
        return
    for at in list(paths(decoded))[:_MOST_PATHS]:
        for name, text in VALUES.items():
            yield f"{name} at {shown(at)}", msgspec.json.encode(replaced(decoded, at, msgspec.Raw(text.encode())))


def decode(body: bytes) -> Any:
    """Return the body's JSON object or array, None when it is something else."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict | list) else None


def shown(at: Path) -> str:
    """Return a path for a person: ``items[0].price``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at)
    return text.removeprefix(".") or "the top"


def queries(query: str) -> Iterator[tuple[str, str]]:
    """Yield hostile query strings, and the example's with each parameter spoilt."""
    yield "an empty query", ""
    yield "separators only", "&&==&;&"
    yield "broken percent signs", "%&a=%zz&%=%u1234&=x"
    yield "a NUL and invalid UTF-8", "a=%00&b=%ff%fe&c=%ed%a0%80"
    yield "600 parameters", "&".join(f"p{number}=1" for number in range(600))
    yield "a value of 100,000 characters", f"a={'x' * 100_000}"
    pairs = parse_qsl(query, keep_blank_values=True)
    for index, (name, value) in enumerate(pairs[:60]):
        for bad in ("", "x", "null", "{", "[]", "W10", "eyJh", "%00", "%ED%A0%80", _DIGITS, value[: len(value) // 2]):
            spoilt = [f"{quote(key)}={bad if at == index else quote(kept)}" for at, (key, kept) in enumerate(pairs)]
            yield f"parameter {name} = {bad[:20]}", "&".join(spoilt)


def without_parameter(query: str, index: int) -> str:
    """Return the query without its parameter at this place."""
    pairs = parse_qsl(query, keep_blank_values=True)
    return urlencode(pairs[:index] + pairs[index + 1 :])


#: Values that take the place of each header of an example in turn.
HEADER_VALUES = ("", " ", "x", "\x00", "é\xff", 'a;b=c,d="', "=?utf-8?q?x?=", "9" * 5_000, "x" * 8_192)
