"""
The canonical event, raw and sealed.

An :class:`Event` lives in memory only, between an adapter and the seal: its identifiers are as the source sent them.
A :class:`SealedEvent` is what may be written: every identifier in it is a SHA-256 hash, made by one destination.

Units: times are Unix seconds; money is :class:`decimal.Decimal` in major units of its currency (ISO-4217).
"""

from decimal import Decimal
from typing import Literal

import msgspec

ActionSource = Literal["web", "app_android", "app_ios", "offline"]
ACTION_SOURCES: frozenset[str] = frozenset({"web", "app_android", "app_ios", "offline"})

#: Source: Pinterest API v5.23.0, ``events/create``, ``event_name`` (15 names), and the seven newer names of its
#: developer pages (event table, read 2026-11).
STANDARD_NAMES: frozenset[str] = frozenset(
    {
        "add_payment_info", "add_to_cart", "add_to_wishlist", "app_install", "checkout", "custom",
        "initiate_checkout", "lead", "page_visit", "search", "signup", "subscribe", "view_category",
        "view_content", "watch_video",
        "app_open", "contact", "customize_product", "find_location", "schedule", "start_trial",
        "submit_application",
    }
)  # fmt: skip

#: Events of mere looking: the only ones that a bot flag may drop.
PAGE_EVENTS: frozenset[str] = frozenset({"page_visit", "search", "view_category", "view_content", "watch_video"})


class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The base of every public record: frozen, closed, keyword-only, with defaults."""


class User(Struct, frozen=True, kw_only=True):
    """
    Raw identifiers of one person, each a tuple of texts, plain or already hashed (64 hex digits).

    ``phone`` may be in any form; ``country`` is a code or a name; ``birth_date`` any common form.
    """

    email: tuple[str, ...] = ()
    phone: tuple[str, ...] = ()
    first_name: tuple[str, ...] = ()
    last_name: tuple[str, ...] = ()
    gender: tuple[str, ...] = ()
    birth_date: tuple[str, ...] = ()
    city: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    postal_code: tuple[str, ...] = ()
    country: tuple[str, ...] = ()
    external_id: tuple[str, ...] = ()
    mobile_ad_id: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Names the fields that are set, never a value."""
        return f"User({', '.join(name for name in self.__struct_fields__ if getattr(self, name))})"


class Client(Struct, frozen=True, kw_only=True):
    """The shopper's address and browser, as far as known: ``ip`` textual v4 or v6, ``user_agent`` unparsed."""

    ip: str | None = None
    user_agent: str | None = None


class Item(Struct, frozen=True, kw_only=True):
    """One product of an event; ``price`` is per unit, before any discount."""

    id: str | None = None
    name: str | None = None
    price: Decimal | None = None
    quantity: int | None = None
    brand: str | None = None
    category: str | None = None


class Purchase(Struct, frozen=True, kw_only=True):
    """
    Money and goods.

    ``value`` is the total of the event, best pre-tax and pre-shipping; ``num_items`` counts units, not lines;
    ``content_ids`` only where the source names products apart from ``items``.
    """

    value: Decimal | None = None
    currency: str | None = None
    order_id: str | None = None
    items: tuple[Item, ...] = ()
    content_ids: tuple[str, ...] = ()
    num_items: int | None = None
    predicted_ltv: Decimal | None = None


class Content(Struct, frozen=True, kw_only=True):
    """The page or product that an event is about."""

    name: str | None = None
    category: str | None = None
    brand: str | None = None


class App(Struct, frozen=True, kw_only=True):
    """The app of an ``app_*`` event; ``install_time`` in Unix seconds, window sizes in pixels."""

    id: str | None = None
    name: str | None = None
    version: str | None = None
    package_name: str | None = None
    store: str | None = None
    install_time: int | None = None
    user_agent: str | None = None
    window_height: int | None = None
    window_width: int | None = None


class Device(Struct, frozen=True, kw_only=True):
    """
    The device, told by the source or read from the user agent.

    Sizes of storage in GB, ``battery_level`` in percent, screen in pixels; ``languages`` ISO 639-1, ``locale`` BCP-47.
    """

    brand: str | None = None
    model: str | None = None
    type: str | None = None
    carrier: str | None = None
    form_factor: str | None = None
    os_family: str | None = None
    os_name: str | None = None
    os_version: str | None = None
    os_release_name: str | None = None
    kernel_version: str | None = None
    locale: str | None = None
    languages: tuple[str, ...] = ()
    network_type: str | None = None
    wifi: bool | None = None
    timezone: str | None = None
    timezone_abbr: str | None = None
    battery_level: int | None = None
    cpu_cores: int | None = None
    screen_density: int | None = None
    screen_height: int | None = None
    screen_width: int | None = None
    storage_size: int | None = None
    storage_free_space: int | None = None
    external_storage_size: int | None = None
    external_storage_free_space: int | None = None


class Consent(Struct, frozen=True, kw_only=True):
    """
    What the person chose, as far as the source says: None is silence, never a choice.

    ``marketing``: advertising may be measured (Shopify ``marketingAllowed``, Google ``ad_storage`` and
    ``ad_user_data``). ``sale_of_data``: False is an opt-out of sale or sharing (Shopify ``saleOfDataAllowed``).
    ``gpc``: Global Privacy Control. ``us_privacy`` and ``gpp``: the IAB strings, unparsed.
    """

    marketing: bool | None = None
    analytics: bool | None = None
    sale_of_data: bool | None = None
    gpc: bool | None = None
    us_privacy: str | None = None
    gpp: str | None = None
    gpp_sid: str | None = None


class Key(Struct, frozen=True, kw_only=True):
    """A business key of an event: ``kind`` is ``order`` or ``checkout`` (or a plugin's own), scoped to the site."""

    kind: str
    value: str


_NO_USER = User()
_NO_CLIENT = Client()
_NO_PURCHASE = Purchase()
_NO_CONTENT = Content()
_NO_APP = App()
_NO_DEVICE = Device()
_NO_CONSENT = Consent()


class Event(Struct, frozen=True, kw_only=True):
    """
    One conversion event as a source told it.

    Args:
        name: The canonical name the adapter proposes: one of :data:`STANDARD_NAMES`, another name (sent as it is when
            the destination knows it as advertiser-defined, else as ``custom``), or "" for a known event of the source
            that has no counterpart (dropped as ``unmapped`` unless ``event_names`` maps it).
        source_name: The source's own name (``purchase``, ``orders/create``): the key of ``event_names`` overrides.
        id: An explicit id, kept byte for byte. None: the pipeline derives one.
        keys: Business keys, already seen or not.
        time: The event's own time. None: unknown; the event is then stamped on receipt.
        fallback_time: The delivery's own trigger time, for an event time that cannot be right.
        sent_at: The sender's clock when it sent the hit; corrects a device clock that runs ahead.
        client_id: The source's id of the browser or app, for ids and joining; not sent.
        cart_token: The source's id of the cart, for finding an earlier hit of the same cart; not sent, no key.
        click_ids: Click ids by vendor name; Pinterest's is ``epik``.
        limited_data: An explicit limited-data flag of the source. None: not said.
        opt_out: Passed through when said; never set by the gateway.
        tag: The page's own Pinterest tag fired with this id.
        test: A test event: validated by the vendor, never recorded.
        is_bot: Set by an enricher.
        notes: Fields that were dropped and why (``email: not_an_email``); no values.
        extra: Namespaced additions of plugins (``acme.basket``); never personal.
    """

    name: str
    source_name: str = ""
    id: str | None = None
    keys: tuple[Key, ...] = ()
    time: float | None = None
    fallback_time: float | None = None
    sent_at: float | None = None
    action_source: ActionSource = "web"
    source_url: str | None = None
    user: User = _NO_USER
    client: Client = _NO_CLIENT
    client_id: str | None = None
    cart_token: str | None = None
    click_ids: dict[str, str] = msgspec.field(default_factory=dict)
    purchase: Purchase = _NO_PURCHASE
    content: Content = _NO_CONTENT
    search_string: str | None = None
    app: App = _NO_APP
    device: Device = _NO_DEVICE
    consent: Consent = _NO_CONSENT
    limited_data: bool | None = None
    opt_out: bool | None = None
    partner_id: str | None = None
    language: str | None = None
    tag: bool = False
    test: bool = False
    is_bot: bool = False
    notes: tuple[str, ...] = ()
    extra: dict[str, str] = msgspec.field(default_factory=dict)


class Skipped(Struct, frozen=True, kw_only=True):
    """
    Acknowledged, but nothing to send: ``dropped(reason)``.

    Reasons in use: ``test``, ``consent``, ``bot``, ``cancelled``, ``draft``, ``visitor_profile``, ``no_conversion``,
    ``no_identity``, ``unmapped``.
    """

    reason: str
    source_name: str = ""
    event_id: str | None = None


class Invalid(Struct, frozen=True, kw_only=True):
    """
    One item of an array that cannot be read: ``rejected(reason)``; ``field`` and ``message`` say where and what to do.
    """

    reason: str
    message: str
    field: str = ""
    event_id: str | None = None


class Erasure(Struct, frozen=True, kw_only=True):
    """
    A person's or a site's request, told by a source's compliance message.

    ``scope`` "customer": everything kept of ``user`` is erased; "site": everything of the source's site;
    "export": nothing is erased, an operator is told to export the subject's rows. ``customer_id`` is the source's own
    id of the person; ``requested_at`` bounds what a late copy may bring back.
    """

    scope: Literal["customer", "site", "export"]
    user: User = _NO_USER
    customer_id: str | None = None
    requested_at: float | None = None
    source_name: str = ""


class Alarm(Struct, frozen=True, kw_only=True):
    """Something an operator must hear of (an app was uninstalled); counted, logged loudly, and changes nothing else."""

    reason: str
    message: str
    source_name: str = ""


Normalized = Event | Skipped | Invalid | Erasure | Alarm


class SealedEvent(Struct, frozen=True, kw_only=True):
    """
    The event as one destination will get it, safe to write: identifiers are hashes, everything else is typed.

    ``user`` maps the destination's own field names to hashes (64 lower-case hex digits each). ``explicit_id`` tells an
    id that a source gave from a derived one, ``born`` which side of the wire saw the event. ``event_name`` may be
    advertiser-defined. ``origins`` says of each signal that another copy or the memory gave where it came from
    (``server:NAME``, ``browser:NAME``, ``memory:KEY``). ``unsigned``: a public copy that must not be sent before a
    server source tells the same (``checkout = "signed"``).
    """

    event_id: str
    event_name: str
    event_time: int
    accepted_at: float
    source: str
    site: str
    born: Literal["browser", "server"]
    action_source: ActionSource = "web"
    explicit_id: bool = False
    source_url: str | None = None
    user: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    client: Client = _NO_CLIENT
    click_ids: dict[str, str] = msgspec.field(default_factory=dict)
    purchase: Purchase = _NO_PURCHASE
    content: Content = _NO_CONTENT
    search_string: str | None = None
    app: App = _NO_APP
    device: Device = _NO_DEVICE
    limited_data: bool = False
    opt_out: bool | None = None
    partner_id: str | None = None
    language: str | None = None
    tag: bool = False
    test: bool = False
    notes: tuple[str, ...] = ()
    extra: dict[str, str] = msgspec.field(default_factory=dict)
    origins: dict[str, str] = msgspec.field(default_factory=dict)
    unsigned: bool = False

    @property
    def is_offline(self) -> bool:
        """Offline events are never deduplicated by Pinterest: they travel apart."""
        return self.action_source == "offline"
