"""A sealed event becomes the API's event object. Pure: the same event gives the same object."""

from decimal import Decimal

from gateway import Client, Content, Item, Purchase, SealedEvent, coerce
from gateway.plugins.pinterest import objects
from gateway.plugins.pinterest.device import app_info, device_info
from gateway.plugins.pinterest.objects import ConversionEvent, CustomData, UserData

#: Integers are int64 in the API; a larger one would refuse the whole call.
_MAX_INT = 2**63 - 1
#: Digits before or after the point of an amount; nothing that money is counted in needs more.
_MAX_DIGITS = 30

_NO_CLIENT = Client()
_NO_PURCHASE = Purchase()
_NO_CONTENT = Content()
_NOTHING_BOUGHT = objects.Content()


def encode(event: SealedEvent, partner_name: str | None = None) -> ConversionEvent:
    """
    Return the event as ``events/create`` takes it: closed objects, absent values left out.

    Flat ``device_*`` fields are sent for every event; events of an app also have ``app_info`` and ``device_info``,
    which describe the same more closely.
    """
    app, device = event.app, event.device
    in_app = event.action_source in ("app_android", "app_ios")
    return ConversionEvent(
        event_name=event.event_name,
        action_source=event.action_source,
        event_time=event.event_time,
        event_id=event.event_id,
        user_data=_user_data(event),
        event_source_url=event.source_url or None,
        custom_data=_custom_data(event),
        opt_out=event.opt_out,
        language=_language(event.language),
        partner_name=partner_name,
        app_id=app.id or None if in_app else None,
        app_name=app.name or None if in_app else None,
        app_version=app.version or None if in_app else None,
        app_info=app_info(app) if in_app else None,
        device_brand=device.brand or None,
        device_carrier=device.carrier or None,
        device_model=device.model or None,
        device_type=device.type or None,
        os_version=device.os_version or None,
        wifi=device.wifi,
        device_info=device_info(device) if in_app else None,
    )


def has_identity(event: SealedEvent) -> bool:
    """Whether the API takes the event: an e-mail, a mobile ad id, or address and user agent together."""
    user, client = event.user, event.client
    return bool(user.get("em") or user.get("hashed_maids") or (client.ip and client.user_agent))


def _user_data(event: SealedEvent) -> UserData:
    get, client = event.user.get, event.client
    return UserData(
        em=get("em") or None,
        ph=get("ph") or None,
        ge=get("ge") or None,
        db=get("db") or None,
        ln=get("ln") or None,
        fn=get("fn") or None,
        ct=get("ct") or None,
        st=get("st") or None,
        zp=get("zp") or None,
        country=get("country") or None,
        external_id=get("external_id") or None,
        hashed_maids=get("hashed_maids") or None,
        client_ip_address=client.ip or None,
        client_user_agent=client.user_agent or None,
        click_id=event.click_ids.get("epik") or None,
        partner_id=event.partner_id or None,
    )


def _custom_data(event: SealedEvent) -> CustomData | None:
    """Return money, goods, content and the limited-data flag, which belongs here and not to ``user_data``."""
    bought, content = event.purchase, event.content
    limited = "LDP" if event.limited_data else None
    if bought == _NO_PURCHASE and content == _NO_CONTENT and not event.search_string:
        return CustomData(opt_out_type=limited) if limited else None
    items = bought.items
    contents = tuple(found for item in items if (found := _content(item)) != _NOTHING_BOUGHT) if items else ()
    # One id for each line, as the lines stand: a product bought in two colours is named twice.
    ids = tuple(found.id for found in contents if found.id) or bought.content_ids
    num_items = bought.num_items if bought.num_items is not None else _units(items)
    custom = CustomData(
        value=plain(bought.value),
        currency=_currency(bought.currency),
        content_ids=ids or None,
        contents=contents or None,
        num_items=_integer(num_items),
        order_id=bought.order_id or None,
        search_string=event.search_string or None,
        content_name=content.name or None,
        content_category=content.category or None,
        content_brand=content.brand or None,
        predicted_ltv=plain(bought.predicted_ltv),
        opt_out_type=limited,
    )
    return custom if custom != _NO_CUSTOM_DATA else None


_NO_CUSTOM_DATA = CustomData()


def _content(item: Item) -> objects.Content:
    return objects.Content(
        id=item.id or None,
        item_name=item.name or None,
        item_brand=item.brand or None,
        item_category=item.category or None,
        item_price=plain(item.price),
        quantity=_integer(item.quantity),
    )


def _units(items: tuple[Item, ...]) -> int | None:
    """Return the sum of quantities, an unknown one counting once; None without items."""
    return sum(1 if item.quantity is None else item.quantity for item in items) if items else None


def _integer(number: int | None) -> int | None:
    return number if number is not None and 0 <= number <= _MAX_INT else None


def plain(amount: Decimal | None) -> str | None:
    """Return an amount as text without an exponent ("600.00" keeps its zeros); None for no number or an absurd one."""
    if amount is None:
        return None
    text = str(amount)
    if len(text) <= _MAX_DIGITS and text.replace(".", "", 1).isdigit():
        return text
    if not amount.is_finite() or not -_MAX_DIGITS <= amount.adjusted() <= _MAX_DIGITS or len(text) > 2 * _MAX_DIGITS:
        return None
    return f"{amount:f}"


def _currency(code: str | None) -> str | None:
    """Return a three-letter code in upper case; any other would fail the event at Pinterest."""
    if code is None or len(code) != 3 or not (code.isascii() and code.isalpha()):
        return None
    return code.upper()


def _language(tag: str | None) -> str | None:
    """Return the two letters of a language tag: ``en-US`` is ``en``."""
    if tag is None or (len(tag) == 2 and tag.isascii() and tag.isalpha() and tag.islower()):
        return tag
    return coerce.language(tag)
