"""
The short way for what nearly every hit is: known fields only, each of its plain type, plain ASCII.

It gives exactly what the tolerant way of :mod:`payload` gives (a test compares the two), three times as fast, or
nothing: then the tolerant way decides. So nothing here corrects, notes or refuses anything.
"""

from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from gateway import Client, Event, Item, Key, Purchase, Source, Struct, User, coerce
from gateway.plugins.browser_tag.names import canonical_name
from gateway.plugins.browser_tag.reader import SILENT

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
#: 2001 to 2100, in seconds.
Moment = Annotated[int, msgspec.Meta(ge=1_000_000_000, le=4_102_444_800)]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=coerce.MAX_TEXT)]
_Url = Annotated[str, msgspec.Meta(min_length=9, max_length=coerce.MAX_URL)]
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class _Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _User(_Record, frozen=True, kw_only=True):
    email: Word | None = None
    phone: Word | None = None
    first_name: Word | None = None
    last_name: Word | None = None
    gender: Word | None = None
    birth_date: Word | None = None
    city: Word | None = None
    state: Word | None = None
    postal_code: Word | None = None
    country: Word | None = None
    external_id: Word | None = None
    mobile_ad_id: Word | None = None


class _Client(_Record, frozen=True, kw_only=True):
    ip: Word | None = None
    user_agent: Word | None = None


class _Item(_Record, frozen=True, kw_only=True):
    id: Word | None = None
    name: Word | None = None
    price: int | float | None = None
    quantity: Count | None = None
    brand: Word | None = None
    category: Word | None = None


class _Event(_Record, frozen=True, kw_only=True):
    event_name: Word
    event_id: _Id | None = None
    event_time: Moment | None = None
    action_source: Literal["web", "app_android", "app_ios", "offline"] = "web"
    event_source_url: _Url | None = None
    click_id: Word | None = None
    client_id: Word | None = None
    user: _User | None = None
    client: _Client | None = None
    value: int | float | None = None
    currency: Annotated[str, msgspec.Meta(min_length=3, max_length=3)] | None = None
    order_id: Word | None = None
    items: list[_Item] | None = None
    num_items: Count | None = None
    checkout_token: Word | None = None
    language: Annotated[str, msgspec.Meta(min_length=2, max_length=2)] | None = None
    limited_data: bool | None = None
    opt_out: bool | None = None
    tag: bool = False
    sent_at: Moment | None = None


_decode_one = msgspec.json.Decoder(_Event).decode
_decode_many = msgspec.json.Decoder(list[_Event]).decode
_EMPTY_WORDS = (b'"null"', b'"undefined"', b'"none"', b'"nan"', b'"(not set)"', b'"[object object]"')
_LIMIT = 10**15


class _NotPlain(Exception):
    """The tolerant way must look at this hit."""


def quick_events(body: bytes, source: Source, most: int) -> list[Event] | None:
    """Return the events of a plain body, None for any other."""
    # an escape, a control character or another script in any text needs a closer look; so does what may be a text with
    # white space at its edges (compact JSON has none around quotes), an empty one, or a word for nothing
    if not body.isascii() or b"\\" in body or b"\x7f" in body or b'""' in body or b'" ' in body or b' "' in body:
        return None
    lower = body.lower()
    for word in _EMPTY_WORDS:  # any() costs more than what it asks
        if word in lower:
            return None
    try:
        if body[:1] == b"{":
            return [_event(_decode_one(body), source)]
        if body[:1] != b"[":
            return None
        many = _decode_many(body)
        return [_event(one, source) for one in many] if 0 < len(many) <= most else None
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, _NotPlain):
        return None


def _money(value: float | None) -> Decimal | None:
    if value is None:
        return None
    if not 0 <= value < _LIMIT:
        raise _NotPlain
    return Decimal(value) if isinstance(value, int) else Decimal(str(value))


def _event(given: _Event, source: Source) -> Event:
    name = canonical_name(given.event_name)
    order_id = given.order_id
    click_id = given.click_id
    url, language = given.event_source_url, given.language
    if url is not None and not url.startswith(("https://", "http://")):
        raise _NotPlain
    if language is not None and not (language.isalpha() and language.islower()):
        raise _NotPlain
    return Event(
        name=name,
        source_name=given.event_name,
        id=given.event_id,
        keys=_keys(source.event_names.get(given.event_name, name), order_id, given),
        time=None if given.event_time is None else float(given.event_time),
        sent_at=None if given.sent_at is None else float(given.sent_at),
        action_source=given.action_source,
        source_url=url,
        user=SILENT.user if given.user is None else _user(given.user),
        client=SILENT.client if given.client is None else _client(given.client),
        client_id=given.client_id,
        click_ids={} if click_id is None else {"epik": click_id},
        purchase=_purchase(given, order_id),
        language=language,
        limited_data=given.limited_data,
        opt_out=given.opt_out,
        tag=given.tag,
    )


def _keys(name: str, order_id: str | None, given: _Event) -> tuple[Key, ...]:
    if name not in ("checkout", "initiate_checkout"):
        return ()
    token = given.checkout_token
    order = (Key(kind="order", value=order_id),) if name == "checkout" and order_id is not None else ()
    return order if token is None else (*order, Key(kind="checkout", value=token))


def _user(given: _User) -> User:
    fields = {}
    for name in _User.__struct_fields__:
        text = getattr(given, name)
        if text is not None:
            fields[name] = (text,)
    return User(**fields)


def _client(given: _Client) -> Client:
    return Client(ip=given.ip, user_agent=given.user_agent)


def _purchase(given: _Event, order_id: str | None) -> Purchase:
    if (
        given.value is None
        and order_id is None
        and not given.items
        and given.currency is None
        and given.num_items is None
    ):
        return SILENT.purchase
    currency = given.currency
    if currency is not None and not (currency.isalpha() and currency.isupper()):
        raise _NotPlain
    value, num_items = _money(given.value), given.num_items
    items = tuple(_item(item) for item in given.items) if given.items else ()
    if items and (value is None or num_items is None):
        if value is None and all(item.price is not None for item in items):
            value = sum((item.price * _units(item) for item in items if item.price is not None), Decimal(0))
        if num_items is None:
            num_items = sum(_units(item) for item in items)
    return Purchase(value=value, currency=currency, order_id=order_id, items=items, num_items=num_items)


def _item(given: _Item) -> Item:
    if given == _NO_ITEM:
        raise _NotPlain
    return Item(
        id=given.id,
        name=given.name,
        price=_money(given.price),
        quantity=given.quantity,
        brand=given.brand,
        category=given.category,
    )


_NO_ITEM = _Item()


def _units(item: Item) -> int:
    return 1 if item.quantity is None else item.quantity
