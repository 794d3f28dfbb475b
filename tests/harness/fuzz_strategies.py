"""Hypothesis strategies of the fuzz: bytes, any JSON, and what is almost an event, for each source."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from hypothesis import strategies as st

from gateway.testing import hostile
from tests.harness.fuzz import ADAPTERS, CANARY, Input, hit, pixel
from tests.harness.fuzz_inputs import SMALL, TOPICS, in_query, samples

_TEXTS = st.text(max_size=12) | st.sampled_from([CANARY, f"{CANARY}@x.example", "null", "\u2028\u202e\x1b", "1e999"])
_SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS
)
JSON_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4), max_leaves=12
)
RAW = st.sampled_from(SMALL).map(lambda text: msgspec.Raw(text.encode()))


def almost_valid(adapter: str) -> st.SearchStrategy[bytes]:
    """Return bodies near the adapter's examples: some of their values replaced."""

    @st.composite
    def spoilt(draw: Callable[..., Any]) -> bytes:
        value: Any = draw(st.sampled_from(samples(adapter)))[0].hit.body
        for _ in range(draw(st.integers(0, 3))):
            places = list(hostile.paths(value))[:300]
            value = hostile.replaced(value, draw(st.sampled_from(places)), draw(JSON_VALUES | RAW))
            if isinstance(value, msgspec.Raw):
                break
        return msgspec.json.encode(value)

    return spoilt()


def posts(source: str) -> st.SearchStrategy[Input]:
    """Return requests for one source: bytes, JSON of any kind, and what is almost an event, with headers and query."""
    body = st.one_of(
        st.binary(max_size=200), JSON_VALUES.map(msgspec.json.encode), almost_valid(ADAPTERS[source]),
        almost_valid(ADAPTERS[source]),
    )  # fmt: skip
    headers = st.lists(
        st.tuples(
            st.sampled_from([b"content-type", b"user-agent", b"cookie", b"referer", b"x-forwarded-for", b"sec-gpc"]),
            st.binary(max_size=40).map(lambda raw: bytes(byte for byte in raw if byte not in b"\r\n\0")),
        ),
        max_size=2,
        unique_by=lambda pair: pair[0],
    )
    names = st.sampled_from(TOPICS if source == "hook" else ("",))
    topics = names.map(lambda topic: ((b"x-shopify-topic", topic.encode()),) if topic else ())
    return st.builds(
        lambda raw, more, topic: hit(source, raw, f"hypothesis at {source}", (*more, *topic)),
        body, headers, topics,
    )  # fmt: skip


def gets(source: str) -> st.SearchStrategy[Input]:
    """Return image requests for one source."""
    query = st.one_of(
        st.binary(max_size=60).map(lambda raw: quote(raw).encode()),
        almost_valid(ADAPTERS[source]).map(lambda body: in_query(source, body)),
        st.dictionaries(st.sampled_from(["en", "cid", "tid", "v", "d", "data", "ep.a", "epn.b", "pr1", "em", "gcs"]),
                        _TEXTS.map(str), max_size=6).map(lambda pairs: urlencode(pairs, errors="replace").encode()),
    )  # fmt: skip
    return st.builds(lambda raw: pixel(source, raw, f"hypothesis GET at {source}"), query)
