"""
What Pinterest's lists and audiences are on the wire, as far as it is read or sent.

Source: Pinterest's OpenAPI description, 5.23.0 (``Audience``, ``AudienceCreateRequest``, ``CustomerList``,
``CustomerListRequest``, ``CustomerListUpdateRequest``).
"""

from typing import Literal

import msgspec

from gateway import Group, Struct

#: Fewer people of a list with a Pinterest account make it ``TOO_SMALL``.
SMALLEST = 100


class Rule(Struct, frozen=True, kw_only=True):
    """Who is in an audience: those of a customer list, or people like those of other audiences."""

    customer_list_id: str | None = None
    seed_id: tuple[str, ...] | None = None
    country: str | None = None
    percentage: int | None = None


class FoundRule(Struct, frozen=True, kw_only=True):
    """The one part of a rule that is read; the others come in many shapes."""

    customer_list_id: str | int | None = None


class Audience(Struct, frozen=True, kw_only=True):
    """One audience as the API tells it."""

    id: str
    name: str | None = None
    audience_type: str = ""
    size: int | None = None
    status: str | None = None
    rule: FoundRule | None = None


class Audiences(Struct, frozen=True, kw_only=True):
    """A page of audiences."""

    items: tuple[Audience, ...]
    bookmark: str | None = None


class AudienceCreate(Struct, frozen=True, kw_only=True):
    """The body that creates an audience."""

    name: str
    audience_type: Literal["CUSTOMER_LIST", "ACTALIKE"]
    rule: Rule


class CustomerList(Struct, frozen=True, kw_only=True):
    """One customer list; the counters are of records sent, not of members."""

    id: str
    name: str | None = None
    status: str | None = None
    created_time: float | None = None
    num_batches: float | None = None
    num_uploaded_user_records: float | None = None


class CustomerLists(Struct, frozen=True, kw_only=True):
    """A page of customer lists."""

    items: tuple[CustomerList, ...]


class CustomerListCreate(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The body that creates a customer list; ``records`` are hashes with commas between them."""

    name: str
    records: str
    list_type: Literal["EMAIL"] = "EMAIL"


class CustomerListUpdate(Struct, frozen=True, kw_only=True):
    """The body that adds to a customer list or removes from it."""

    operation_type: Literal["ADD", "REMOVE"]
    records: str


class Account(Struct, frozen=True, kw_only=True):
    """One ad account."""

    id: str
    name: str | None = None


class Accounts(Struct, frozen=True, kw_only=True):
    """A page of ad accounts."""

    items: tuple[Account, ...]
    bookmark: str | None = None


class ApiError(Struct, frozen=True, kw_only=True):
    """The body of an answer 4xx; its ``message`` is not read, it may quote what was sent."""

    code: int | None = None


def error_code(body: bytes) -> str:
    """Return Pinterest's own code of an error, such as ``, code 29``; "" when there is none."""
    try:
        code = msgspec.json.decode(body, type=ApiError).code
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    return "" if code is None else f", code {code}"


def group(audience: Audience) -> Group:
    """Return an audience, and why it cannot be fed where it cannot."""
    feed = audience.rule.customer_list_id if audience.rule else None
    refusal = ""
    if audience.audience_type != "CUSTOMER_LIST":
        refusal = (
            f"Pinterest itself fills an audience of type {audience.audience_type or 'unknown'}: only those of type "
            "CUSTOMER_LIST can be connected. Choose another, or create one."
        )
    elif not feed:
        refusal = "Pinterest does not tell this audience's customer list: choose another, or create one."
    return Group(
        id=audience.id,
        name=audience.name or audience.id,
        kind=audience.audience_type,
        size=audience.size,
        state="ready" if audience.status in ("READY", None) else audience.status,
        feed=str(feed or ""),
        refusal=refusal,
    )
