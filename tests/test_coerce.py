"""Values in any form are read, or cost their own field only."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import coerce

junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.decimals()
    | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
READERS = (
    coerce.text,
    coerce.texts,
    coerce.url,
    coerce.decimal,
    coerce.integer,
    coerce.boolean,
    coerce.unix_time,
    coerce.currency,
    coerce.language,
    coerce.mapping,
    coerce.sequence,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("  a b ", "a b"),
        ("", None),
        ("   ", None),
        (None, None),
        (True, None),
        ([], None),
        ({}, None),
        ("null", None),
        ("Undefined", None),
        ("NaN", None),
        ("(not set)", None),
        ("[object Object]", None),
        ("nullable", "nullable"),
        (5, "5"),
        (5.0, "5"),
        (5.5, "5.5"),
        (float("nan"), None),
        (float("inf"), None),
        (Decimal("1.50"), "1.50"),
        (2**64, str(2**64)),
        (10**500, None),
        ("x\x00y", None),
        ("x\x7f", None),
        ("\ud800", None),
        ("a\ud800b", None),
        ("Zoë", "Zoë"),
        ("日本", "日本"),
        ("x" * 1000, "x" * 1000),
        ("x" * 1001, None),
        (0, "0"),
        (-3, "-3"),
        (b"bytes", None),
    ],
)
def test_text(value: Any, expected: str | None) -> None:
    """Text is trimmed; what says nothing, is too long or cannot be encoded is None."""
    assert coerce.text(value) == expected


def test_text_keeps_line_breaks_but_no_other_control_character() -> None:
    """A line break may stand in a free text, an escape may not."""
    assert coerce.text("a\nb\tc") == "a\nb\tc"
    assert coerce.text("a\x1bb") is None


def test_an_integer_too_long_to_print_is_none() -> None:
    """Five thousand digits are no text, number or time, and nothing raises."""
    endless = 10**5000
    assert coerce.text(endless) is None
    assert coerce.decimal(endless) is None
    assert coerce.unix_time(endless) is None


def test_a_large_float_keeps_its_digits_or_its_exponent() -> None:
    """A float beyond exact integers is not printed as an invented integer."""
    assert coerce.text(1e22) == "1e+22"
    assert coerce.text(float(2**53 - 1)) == str(2**53 - 1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", ("a",)),
        (["a", None, " b "], ("a", "b")),
        (None, ()),
        ([], ()),
        (["", "null"], ()),
        ({"a": 1}, ()),
        (("a",), ("a",)),
    ],
)
def test_texts(value: Any, expected: tuple[str, ...]) -> None:
    """One value and a list of values read alike; unreadable members are left out."""
    assert coerce.texts(value) == expected


def test_texts_are_bounded() -> None:
    """A list of strangers gives at most twenty texts."""
    assert len(coerce.texts([str(number) for number in range(1000)])) == 20


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://a.example/x", "https://a.example/x"),
        ("HTTP://A.example", "HTTP://A.example"),
        ("javascript:alert(1)", None),
        ("file:///etc/passwd", None),
        ("//a.example", None),
        ("a.example", None),
        ("", None),
        (7, None),
        ("https://a.example/" + "x" * 8192, None),
        (" https://a.example ", "https://a.example"),
    ],
)
def test_url(value: Any, expected: str | None) -> None:
    """Only http and https pass."""
    assert coerce.url(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("12.50", "12.50"),
        (" 12.50 ", "12.50"),
        ("1,234.50", "1234.50"),
        ("1,234", "1234"),
        ("1.234,50", "1234.50"),
        ("12,5", "12.5"),
        ("1,234,567.89", "1234567.89"),
        ("0", "0"),
        (0, "0"),
        (0.1, "0.1"),
        ("-3", "-3"),
        ("1e3", "1E+3"),
        (".5", "0.5"),
        ("5.", "5"),
        ("+5", "5"),
        (5, "5"),
        (Decimal("9.99"), "9.99"),
    ],
)
def test_decimal(value: Any, expected: str) -> None:
    """Money is read as it is written, with either separator."""
    assert coerce.decimal(value) == Decimal(expected)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "",
        "abc",
        "12 EUR",
        "1e999",
        "1e-999",
        "NaN",
        "Infinity",
        float("nan"),
        float("inf"),
        "9" * 31,
        10**15,
        10**200,
        [],
        {},
        "0x10",
        "1_000",
        "١٢",
        "--1",
        Decimal("NaN"),
        Decimal("sNaN"),
    ],
)
def test_no_decimal(value: Any) -> None:
    """What is no finite, sane number is None, in no time."""
    assert coerce.decimal(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5", 5),
        (5.0, 5),
        (5, 5),
        ("5.5", None),
        (5.5, None),
        (2**70, None),
        (None, None),
        (True, None),
        ("1e2", 100),
        (-1, -1),
    ],
)
def test_integer(value: Any, expected: int | None) -> None:
    """Whole numbers only, however they are written."""
    assert coerce.integer(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (False, False),
        ("True", True),
        (" yes ", True),
        ("1", True),
        (1, True),
        (0, False),
        ("off", False),
        ("NO", False),
        (2, None),
        ("maybe", None),
        (None, None),
        ([], None),
        (1.0, True),
        (float("nan"), None),
    ],
)
def test_boolean(value: Any, expected: bool | None) -> None:
    """A truth value in any usual spelling, None for anything else."""
    assert coerce.boolean(value) is expected


@pytest.mark.parametrize("value", [1_795_305_600, 1_795_305_600_000, 1_795_305_600_000_000, 1_795_305_600_000_000_000])
def test_unix_time_of_any_unit(value: int) -> None:
    """Seconds, milliseconds, microseconds and nanoseconds are told apart by magnitude, as numbers and as text."""
    assert coerce.unix_time(value) == 1_795_305_600.0
    assert coerce.unix_time(str(value)) == 1_795_305_600.0


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-22T00:00:00Z",
        "2026-11-22T00:00:00+00:00",
        "2026-11-22T01:00:00+01:00",
        "2026-11-22T00:00:00",
        "2026-11-22 00:00:00",
        "2026-11-22",
        "2026-11-22T00:00:00.000000000Z",
        "2026-11-22T00:00:00.000Z",
        1_795_305_600.0,
        " 1795305600 ",
    ],
)
def test_unix_time_of_text(value: Any) -> None:
    """ISO 8601 is read with any offset and any number of digits; without an offset it is UTC."""
    assert coerce.unix_time(value) == 1_795_305_600.0


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -5,
        1,
        "yesterday",
        "",
        "2026-13-45",
        "0001-01-01T00:00:00+23:59",
        10**40,
        [],
        "9" * 400,
        float("nan"),
    ],
)
def test_no_unix_time(value: Any) -> None:
    """What is no time after 1980 is None."""
    assert coerce.unix_time(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("usd", "USD"), (" EUR ", "EUR"), ("US", None), ("U$D", None), ("euro", None), (840, None), ("ÄÖÜ", None)],
)
def test_currency(value: Any, expected: str | None) -> None:
    """Three ASCII letters, in upper case."""
    assert coerce.currency(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("en-US", "en"), ("DE", "de"), ("pt_BR", "pt"), ("eng", None), ("", None), (None, None), ("日本", None)],
)
def test_language(value: Any, expected: str | None) -> None:
    """The two-letter code of any language tag."""
    assert coerce.language(value) == expected


def test_mapping_sequence_and_first() -> None:
    """A wrong container reads as an empty one, and the first readable text wins."""
    assert coerce.mapping({"a": 1}) == {"a": 1}
    assert coerce.mapping(["a"]) == {}
    assert coerce.sequence([1]) == [1]
    assert coerce.sequence("text") == ()
    assert coerce.first([None, "", "null", 7, "x"]) == "7"
    assert coerce.first([]) is None


@settings(max_examples=150, deadline=None)
@given(junk)
def test_nothing_raises(value: Any) -> None:
    """Whatever arrives is read or is None: no reader raises, and what is read can be encoded."""
    for reader in READERS:
        found = reader(value)
        if isinstance(found, str):
            found.encode()


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="0123456789.,eE+- ", max_size=20))
def test_a_number_is_finite_and_printable(value: str) -> None:
    """A text of digits and signs gives a number that prints in bounded length, or none."""
    found = coerce.decimal(value)
    if found is not None:
        assert found.is_finite()
        assert len(format(found, "f")) < 200
