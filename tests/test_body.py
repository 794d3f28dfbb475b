"""JSON bodies of strangers: bounded, exact, and never a surprise."""

import gc
import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import Rejected, coerce, json_body
from gateway.body import MAX_DEPTH, MAX_KEYS


def reason_of(body: bytes) -> str:
    with pytest.raises(Rejected) as caught:
        json_body(body)
    assert caught.value.status == 400
    assert caught.value.hint
    return caught.value.reason


def nested(levels: int, kind: str) -> bytes:
    return b"[" * levels + b"]" * levels if kind == "array" else b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize("kind", ["array", "object"])
def test_depth(kind: str) -> None:
    """Thirty-two levels are read, one more is too many, and a hundred thousand are no worse."""
    json_body(nested(MAX_DEPTH, kind))
    assert reason_of(nested(MAX_DEPTH + 1, kind)) == "too_complex"
    assert reason_of(nested(100_000, kind)) in ("too_complex", "malformed_json")


def test_many_flat_arrays_are_not_deep() -> None:
    """A long batch of flat events is no deep body."""
    assert len(json_body(json.dumps([{"a": [1]} for _ in range(1000)]).encode())) == 1000


def test_keys_of_an_object() -> None:
    """Five hundred keys an object, wherever it stands; a batch may have more of them together."""
    wide = {str(number): 1 for number in range(MAX_KEYS)}
    assert len(json_body(json.dumps(wide).encode())) == MAX_KEYS
    json_body(json.dumps([wide, wide]).encode())
    assert reason_of(json.dumps({**wide, "one more": 1}).encode()) == "too_complex"
    assert reason_of(json.dumps([{"deep": {**wide, "one more": 1}}]).encode()) == "too_complex"


def test_two_hundred_thousand_keys_are_refused_quickly() -> None:
    """A huge object costs no more than its decoding."""
    body = json.dumps({str(number): number for number in range(200_000)}).encode()
    started = time.process_time()
    assert reason_of(body) == "too_complex"
    assert time.process_time() - started < 2.0


@pytest.mark.parametrize("part", [b"[]", b'{"a":{}}', b"[[]]"])
def test_a_megabyte_of_small_containers_costs_little_more_than_its_decoding(part: bytes) -> None:
    """A third of a million of arrays in one public hit must not hold up the others."""
    body = b"[" + b",".join([part] * (1_000_000 // (len(part) + 1))) + b"]"

    def cost(call: Callable[[bytes], Any]) -> float:
        times = []
        for _ in range(5):
            started = time.process_time()
            call(body)
            times.append(time.process_time() - started)
        return min(times)

    gc.disable()  # whose share is the process's, not the reader's
    try:
        assert cost(json_body) < 3.4 * cost(msgspec.json.decode)
    finally:
        gc.enable()


@pytest.mark.parametrize("number", [2**53 + 1, 2**63 - 1, 2**64 - 1, 2**64, 2**80 + 1, -(2**63) - 1])
def test_integers_are_exact(number: int) -> None:
    """No integer is rounded to a float, and its digits come out as text."""
    value = json_body(f'{{"id": {number}}}'.encode())["id"]
    assert value == number
    assert coerce.text(value) == str(number)


def test_an_endless_integer_costs_its_field_quickly() -> None:
    """Five thousand digits are neither a crash nor an identifier."""
    body = b'{"id": ' + b"9" * 5_000 + b', "name": "x"}'
    started = time.process_time()
    value = json_body(body)
    assert coerce.text(value["id"]) is None
    assert value["name"] == "x"
    assert time.process_time() - started < 0.5


def test_a_lone_surrogate_costs_its_text_only() -> None:
    """A browser cuts an emoji in half: that text is dropped, the rest of the body stays."""
    value = json_body(b'{"name": "\\ud83d", "other": "kept"}')
    assert coerce.text(value["name"]) is None
    assert value["other"] == "kept"


@pytest.mark.parametrize("body", [b'{"value": NaN}', b'{"value": Infinity}', b'[-Infinity, "\\ud800"]', b"NaN"])
def test_numbers_that_json_does_not_have(body: bytes) -> None:
    """NaN and Infinity are no JSON."""
    assert reason_of(body) == "malformed_json"


def test_a_number_out_of_range_costs_its_field() -> None:
    """1e999 is JSON: it is read, and no reader takes it."""
    value = json_body(b'{"value": 1e999, "name": "x"}')
    assert coerce.decimal(value["value"]) is None
    assert value["name"] == "x"


def test_byte_order_mark() -> None:
    """A UTF-8 byte order mark is skipped; UTF-16 is not JSON in UTF-8."""
    assert json_body(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
    assert reason_of('{"a": 1}'.encode("utf-16")) == "malformed_json"
    assert reason_of(b"\xef\xbb\xbf") == "empty_body"


@pytest.mark.parametrize("body", [b"", b"  \r\n"])
def test_empty(body: bytes) -> None:
    """An empty body says so."""
    assert reason_of(body) == "empty_body"


@pytest.mark.parametrize(
    "body", [b"{", b"{'a': 1}", b'{"a": 1,}', b"a=1&b=2", b'{"a": "\xff"}', b'{"a": 1} x', b"\x00", b"<x/>"]
)
def test_malformed(body: bytes) -> None:
    """What is not JSON in UTF-8 is refused without repeating it."""
    with pytest.raises(Rejected) as caught:
        json_body(body)
    assert caught.value.reason == "malformed_json"
    assert body.decode("latin-1") not in caught.value.message


def test_a_key_given_twice() -> None:
    """The last value wins, as in every browser."""
    assert json_body(b'{"a": 1, "a": 2}') == {"a": 2}
    assert json_body(b'{"a": "\\ud800", "a": 2}') == {"a": 2}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\ud80xnaN eE0123456789-.', max_size=60).map(str.encode))
def test_arbitrary_bytes_give_a_value_or_a_refusal(body: bytes) -> None:
    """No bytes raise anything but Rejected."""
    status = 400
    try:
        json_body(body)
    except Rejected as error:
        status = error.status
    assert status == 400


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_python_writes_is_read_back(value: Any) -> None:
    """Any JSON value comes back as it was."""
    assert json_body(json.dumps(value).encode()) == value
