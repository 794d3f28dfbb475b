"""
What a plugin implements.

Objects are made once, at start-up, by the hooks of :mod:`gateway.hookspecs`; the pipeline then calls the objects.
Every class declares ``api = 1``: a later, incompatible interface would refuse it at start instead of misbehaving.
"""

import builtins
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import msgspec

from gateway.event import Event, Normalized, SealedEvent, Skipped, Struct, User
from gateway.hit import Hit, Source
from gateway.outcome import Settled

#: The interface version that this program speaks.
API = 1


class NoOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of a plugin that has none: any key is an error."""


class HttpClient(Protocol):
    """
    The gateway's one outgoing client: TLS verified, no redirects, bounded answer, bounded total time.

    ``request`` returns status, headers (lower-case names) and body; it raises :class:`Unreachable` when no answer came.
    """

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        timeout_s: float = 30.0,
        max_bytes: int = 1_048_576,
    ) -> "Answer":
        """Send one request."""
        ...


class Answer(Struct, frozen=True, kw_only=True):
    """What came back of one outgoing request; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Unreachable(Exception):
    """
    No usable answer came.

    ``sent`` tells whether the other side may have read the request: after a refused connection it is False and a retry
    is certain to be the first copy; after a timeout or a reset it is True.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Context(Struct, frozen=True, kw_only=True):
    """
    What every hook gets.

    ``trusted_proxies`` are CIDR texts; ``http`` is the one outgoing client (None while only the configuration is
    checked); ``options`` holds the tables ``[plugins.NAME]`` as plain dicts, each plugin reads its own; ``folder`` is
    the configuration file's, to which paths in it are relative; ``state`` is the store's, where a plugin may keep a
    small file of its own (None while there is no store).
    """

    http: Any = None  # HttpClient; a Protocol cannot be a Struct field type
    trusted_proxies: tuple[str, ...] = ()
    clock: Callable[[], float] = time.time
    options: Mapping[str, Mapping[str, Any]] = msgspec.field(default_factory=dict)
    folder: Path = Path()
    state: Path | None = None


class Asset(Struct, frozen=True, kw_only=True):
    """A static file of an adapter; ``media_type`` as in Content-Type (``text/javascript; charset=utf-8``)."""

    content: bytes
    media_type: str


class Adapter(ABC):
    """
    Turns the hits of one platform into canonical events.

    ``name`` is what ``adapter =`` says in the configuration. ``Options`` is the closed Struct of
    ``[sources.NAME.options]``. ``side`` says what a source of this adapter may be: ``server`` (needs ``secrets``),
    ``public`` (needs ``allowed_origins``) or ``either``. ``methods`` are the HTTP methods it takes besides OPTIONS.
    """

    api: ClassVar[int] = API
    name: ClassVar[str]
    side: ClassVar[Literal["server", "public", "either"]] = "either"
    methods: ClassVar[frozenset[str]] = frozenset({"POST"})
    Options: ClassVar[type[Struct]] = NoOptions

    def check(self, source: Source) -> str | None:  # noqa: ARG002 - for adapters to override
        """Say what is wrong with a source's configuration beyond types, None when nothing is."""
        return None

    @abstractmethod
    def verify(self, hit: Hit) -> None:
        """
        Prove that the hit is authentic; called before anything is read.

        Synchronous, on the event loop for our adapters, in a bounded thread for a stranger's. ``gateway.verify`` has
        the usual proofs: ``bearer``, ``basic``, ``hmac_sha256``, ``origin``.

        Raises:
            Rejected: 401 for a missing or wrong signature or secret, 403 for an origin or shop that is not this
                source's.
        """

    @abstractmethod
    def normalize(self, hit: Hit) -> Sequence[Normalized]:
        """
        Turn a verified hit into events: pure, synchronous, no I/O, no clock; the same hit gives the same result.

        Returns:
            One item for each thing the hit tells, in order: an :class:`Event`, or why there is none.

        Raises:
            Rejected: The body cannot be read at all. Any other exception is a bug: the hit is answered 503 and nothing
                is lost.
        """

    def asset(self, source: Source, name: str, url: str) -> Asset | None:  # noqa: ARG002 - for adapters to override
        """
        Return the static file that ``GET /in/{source}/{name}`` asks for, None when the request is a hit like any other.

        Pure, like ``normalize``; the file is public and cached for an hour. ``url`` is the source's own address as the
        client wrote it, such as ``https://tags.example.com/in/tag``.

        Raises:
            Rejected: There is no such file for this source; ``status=404``.
        """
        return None


class Enricher(ABC):
    """
    Completes an event with what the hit or a memory knows.

    ``on_error``: ``continue`` for data (the event goes on without it), ``refuse`` for privacy (503, nothing is
    accepted). ``order`` places it when the configuration does not: lower runs first; ours are 10 (client), 20
    (click_id), 30
    (privacy), 40 (bots).
    """

    api: ClassVar[int] = API
    name: ClassVar[str]
    on_error: ClassVar[Literal["continue", "refuse"]] = "continue"
    order: ClassVar[int] = 100

    @abstractmethod
    async def enrich(self, event: Event, hit: Hit) -> Event | Skipped | None:
        """
        Return the event, changed or not (``msgspec.structs.replace``); a :class:`Skipped` or None drops it with a
        reason.
        """


class Identifiers(Struct, frozen=True, kw_only=True):
    """
    Hashed identifiers under the destination's own field names, and what was dropped and why (``email: not_an_email``).
    """

    fields: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Delivered(Struct, frozen=True, kw_only=True):
    """The vendor took the event; ``warning`` is its own wording."""

    warning: str | None = None


class Refused(Struct, frozen=True, kw_only=True):
    """The vendor will never take this event: ``dead(reason)``."""

    reason: str


class Retry(Struct, frozen=True, kw_only=True):
    """
    The same event may succeed later.

    ``after_s`` is the vendor's own wish (``Retry-After``), None for the lane's back-off. ``ambiguous``: the vendor may
    have taken it.
    """

    reason: str
    after_s: float | None = None
    ambiguous: bool = False


class Unclear(Struct, frozen=True, kw_only=True):
    """The whole batch was refused without saying which event is at fault: the lane bisects."""

    reason: str


class Paused(Struct, frozen=True, kw_only=True):
    """Nothing can be delivered until an operator mends something (a token): everything is kept, the lane probes."""

    reason: str


Result = Delivered | Refused | Retry
Verdict = Sequence[Result] | Retry | Unclear | Paused


class Component(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    What a vendor measured of one component of the events of one name, in percent; ``issues`` in its own words.

    ``overlap`` is the share of a page's tag's events that came from a server too.
    """

    name: str
    event: str
    coverage: float
    overlap: float | None = None
    issues: tuple[str, ...] = ()


class Score(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """A vendor's own score of the events that came one way (``ingestion``) from one ``platform``, in its own words."""

    status: str
    platform: str
    ingestion: str
    lookback: str
    components: tuple[Component, ...] = ()


class Quality(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """What a vendor says of the events it got: its scores, or in ``problem`` why there are none, and what to do."""

    scores: tuple[Score, ...] = ()
    problem: str | None = None


class Batch(Struct, frozen=True, kw_only=True):
    """Up to ``batch_size`` sealed events of one kind: all live or all test, all offline or none."""

    events: tuple[SealedEvent, ...]
    test: bool = False
    offline: bool = False


class Destination(ABC):
    """
    Delivers sealed events to one account of one vendor: ``[destinations.NAME]`` with ``type =`` this class's ``type``.

    The class is registered, the host makes one object for each configured destination: ``cls(name, options, context)``.
    ``identifiers``, ``refuse`` and ``encode`` are synchronous and pure.
    """

    api: ClassVar[int] = API
    type: ClassVar[str]
    Options: ClassVar[builtins.type[Struct]] = NoOptions

    def __init__(self, name: str, options: Any, context: Context) -> None:
        self.name = name
        self.options = options
        self.context = context

    #: Advertiser-defined event names that are sent as they are.
    custom_names: frozenset[str] = frozenset()
    #: ``[pipeline] max_event_age_s``, for a destination that does not set its own; 0: no limit.
    default_max_age_s: int = 604_800

    @abstractmethod
    def identifiers(self, user: User, default_country: str | None) -> Identifiers:
        """Normalise and hash identifiers by this vendor's rules; never raises for bad input, notes it."""

    @abstractmethod
    def refuse(self, event: SealedEvent, now: float) -> str | None:
        """Say why this event can never be sent (``no_identity``, ``too_old``), None when it can."""

    @abstractmethod
    def encode(self, event: SealedEvent) -> Any:
        """Return the vendor's object for one event, ready for ``msgspec.json.encode``."""

    @abstractmethod
    async def send(self, batch: Batch) -> Verdict:
        """
        Send one batch in one call.

        Returns:
            One result for each event in order, or one verdict for the batch. Raising is a bug: the batch is retried and
            the plugin's name is logged.
        """

    async def probe(self) -> str | None:
        """
        Try the credentials without delivering anything; None when they work, else what is wrong. For ``check
        --online``.
        """
        return None

    async def quality(self, lookback: str) -> Quality | None:  # noqa: ARG002 - for destinations to override
        """
        Ask the vendor how good the events of ``lookback`` (``1d``, ``14d``) are; None: it keeps no score.

        One bounded call; whatever fails is a sentence in the answer and never raised.
        """
        return None


class Observer(ABC):
    """Hears of every settled unit; must be quick, and an exception costs only itself."""

    api: ClassVar[int] = API
    name: ClassVar[str]

    @abstractmethod
    def settled(self, settled: Settled) -> None:
        """Hear of one ended unit, on the event loop, after its outcome was committed."""
