"""Reading JSON bodies of strangers: bounded depth and width, exact integers, no surprises."""

import json
from itertools import chain
from typing import Any, NoReturn

import msgspec

from gateway.errors import Rejected

MAX_DEPTH = 32
MAX_KEYS = 500
_MAX_DIGITS = 1_000
_BOM = b"\xef\xbb\xbf"


def json_body(body: bytes) -> Any:
    """
    Decode a JSON body.

    Objects may nest 32 deep and hold 500 keys each. Integers are exact: :func:`gateway.coerce.text` gives their digits;
    endless ones stay text, which no field takes. A lone surrogate survives in its own text only, where ``coerce.text``
    drops it.

    Raises:
        Rejected: ``malformed_json`` or ``too_complex``, 400.
    """
    if body.startswith(_BOM):
        body = body[3:]
    if not body.strip():
        raise Rejected("empty_body", "The body is empty.", hint="Send one JSON object, or an array of objects.")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError):
        value = _second_opinion(body)
    except RecursionError:
        _too_complex(f"nested deeper than {MAX_DEPTH} levels")
    except UnicodeDecodeError:
        _malformed()
    # counting bytes is a cheap upper bound: most bodies need no walk
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH or body.count(b":") > MAX_KEYS:
        _check_shape(value)
    return value


def _second_opinion(body: bytes) -> Any:
    """Read what a strict decoder refuses but browsers write: lone surrogates, numbers out of range."""
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant, parse_int=_integer)
    except RecursionError:
        _too_complex(f"nested deeper than {MAX_DEPTH} levels")
    except ValueError:
        _malformed()


def _integer(digits: str) -> int | str:
    # no field has so many digits, and turning them into a number would cost more than the rest of the body
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError


def _malformed() -> NoReturn:
    raise Rejected(
        "malformed_json", "The body is not JSON in UTF-8.", hint="Send one JSON object, or an array of objects."
    )


def _too_complex(what: str) -> NoReturn:
    raise Rejected("too_complex", f"The body is {what}.", hint="Send flat events; split batches.")


def _check_shape(value: Any) -> None:
    """Refuse what is too deep or too wide, level by level."""
    level = [value] if isinstance(value, dict | list) else []
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            _too_complex(f"nested deeper than {MAX_DEPTH} levels")
        objects = [part for part in level if type(part) is dict]
        if objects and max(map(len, objects)) > MAX_KEYS:
            _too_complex(f"an object of more than {MAX_KEYS} keys")
        arrays = [part for part in level if type(part) is list] if objects else level
        # chained, not part by part: a megabyte of "[]" holds a third of a million of them
        inside = chain(chain.from_iterable(arrays), chain.from_iterable(map(dict.values, objects)))
        level = [item for item in inside if type(item) is dict or type(item) is list]
