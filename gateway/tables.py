"""The tables of ``gateway.toml``; :mod:`gateway.config` reads and checks them."""

from typing import Any, Literal

import msgspec

from gateway.event import Struct


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""

    def __repr__(self) -> str:
        """Only the kind: a table may hold a literal secret."""
        return f"{type(self).__name__}(…)"


class SecretRef(Table, frozen=True, kw_only=True):
    """Where a secret is: exactly one of the two."""

    env: str | None = None
    file: str | None = None


SecretValue = SecretRef | str


class Server(Table, frozen=True, kw_only=True):
    """
    ``[server]``: the public listener.

    ``hosts`` are the only host names served, empty: any. ``max_connections`` may be open, ``max_requests`` under way
    with bodies of ``max_body_mb`` together. ``rate_per_s`` and ``rate_burst`` bound the hits of one address at one
    public source (0: not at all).
    """

    bind: str = "127.0.0.1:8000"
    engine: Literal["hypercorn", "uvicorn"] = "hypercorn"
    trusted_proxies: tuple[str, ...] = ("127.0.0.1/32",)
    hosts: tuple[str, ...] = ()
    graceful_s: float = 10.0
    max_connections: int = 2_000
    max_requests: int = 1_000
    max_body_mb: int = 64
    rate_per_s: float = 50.0
    rate_burst: int = 1_000


class Operator(Table, frozen=True, kw_only=True):
    """
    ``[operator]``: pages, API and metrics, never on the public listener. Without a password it is not served on TCP.
    ``url`` is its address as the operator's browser sees it, where that is not ``http://`` and ``bind``.
    """

    bind: str = "127.0.0.1:8081"
    password: SecretValue | None = None
    viewer_password: SecretValue | None = None
    url: str | None = None


class Store(Table, frozen=True, kw_only=True):
    """
    ``[store]``: ``linger_ms`` is how long a hit waits for others to share its commit.

    Hits are refused while the disk has less than ``min_free_mb`` free, or ``max_waiting`` events wait. ``ballast_mb``
    is kept in a file that is given up to finish what is under way on a full disk.
    """

    url: str = "sqlite:///var/gateway.db"
    linger_ms: float = 1.0
    min_free_mb: int = 256
    ballast_mb: int = 16
    max_waiting: int = 10_000_000


class Pipeline(Table, frozen=True, kw_only=True):
    """
    ``[pipeline]``: windows in seconds; ``enrichers`` names them in order, empty: by their own order.

    ``memory_s`` is how long click ids and choices are remembered (0: not at all), ``memory_keys`` under how many keys
    at most. ``rollup_keep_s`` is how long counts by hour are kept.
    """

    dedup_window_s: int = 172_800
    business_key_s: int = 2_592_000
    max_event_age_s: int = 604_800
    retry_life_s: int = 604_800
    dead_keep_s: int = 1_209_600
    memory_s: int = 2_592_000
    memory_keys: int = 1_000_000
    rollup_keep_s: int = 7_776_000
    enrichers: tuple[str, ...] = ()


class Audiences(Table, frozen=True, kw_only=True):
    """
    ``[audiences]``: seconds between passes, shares (0 to 1) beyond which a pass waits for the operator's word, and how
    many connections are synced at a time; :class:`gateway.audiences.Settings` says the rest.
    """

    quick_every_s: float = 300.0
    full_every_s: float = 86_400.0
    max_removal: float = 0.2
    max_missing: float = 0.05
    include_suppressed: bool = False
    parallel: int = 4


class Alerts(Table, frozen=True, kw_only=True):
    """``[alerts]``: where alarms are sent to, and after how many seconds one that stands is sent again."""

    url: SecretValue | None = None
    repeat_s: float = 21_600.0


class Site(Table, frozen=True, kw_only=True):
    """``[sites.NAME]``: what sources of one shop share. ``event_id`` is the template of ids derived from an order."""

    hold_s: float = 30.0
    default_country: str | None = None
    checkout: Literal["any", "signed"] = "any"
    event_id: str = "{site}-{order_id}"


class SourceTable(Table, frozen=True, kw_only=True):
    """``[sources.NAME]``."""

    adapter: str
    destinations: tuple[str, ...]
    site: str | None = None
    secrets: tuple[SecretValue, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    event_names: dict[str, str] = msgspec.field(default_factory=dict)


class Quarantine(Table, frozen=True, kw_only=True):
    """
    ``[quarantine]``: where hits are kept, encrypted under ``key``, that an adapter failed to read.

    Without a key none is kept: the sender is asked to try again. They are deleted after ``keep_s``, and take
    ``max_mb`` at most.
    """

    key: SecretValue | None = None
    keep_s: int = 259_200
    max_mb: int = 256
