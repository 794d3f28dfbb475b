"""Stand-ins for what surrounds an adapter: a clock, a destination, a source and its hits."""

import builtins
import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from gateway.event import SealedEvent, Struct, User
from gateway.hit import Hit, Secret, Source
from gateway.interfaces import Adapter, Batch, Context, Delivered, Destination, Identifiers, NoOptions, Verdict

#: 22 November 2026, 00:00 UTC: where frozen clocks stand and example hits are received.
NOW = 1_795_305_600.0
#: The secret of a source that these doubles make.
SECRET = "s3cret"  # noqa: S105 - it guards nothing
#: The origin of a public one.
ORIGIN = "https://shop.example"
_HEX = frozenset("0123456789abcdef")


class Clock:
    """A clock that stands still: call it for Unix seconds, :meth:`advance` it by hand."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class RecordingDestination(Destination):
    """
    A destination that keeps what it is given.

    Identifiers are hashed plainly: SHA-256 of the trimmed, lower-case text, a hash as it is. ``sent`` holds every
    batch; ``verdicts`` are answered in turn, then everything is delivered.
    """

    type: ClassVar[str] = "recording"
    Options: ClassVar[builtins.type[Struct]] = NoOptions

    def __init__(self, name: str = "recording", options: Any = None, context: Context | None = None) -> None:
        super().__init__(name, options or NoOptions(), context or Context())
        self.sent: list[Batch] = []
        self.verdicts: deque[Verdict] = deque()

    @property
    def events(self) -> list[SealedEvent]:
        """Every event of every batch."""
        return [event for batch in self.sent for event in batch.events]

    def identifiers(self, user: User, default_country: str | None) -> Identifiers:  # noqa: ARG002 - the interface's
        """Hash each value under the field's own name."""
        given = {field: getattr(user, field) for field in user.__struct_fields__}
        return Identifiers(fields={field: tuple(map(_hash, values)) for field, values in given.items() if values})

    def refuse(self, event: SealedEvent, now: float) -> str | None:  # noqa: ARG002 - the interface's
        """Take every event."""
        return None

    def encode(self, event: SealedEvent) -> Any:
        """Return the event as plain objects."""
        return msgspec.to_builtins(event)

    async def send(self, batch: Batch) -> Verdict:
        """Keep the batch; answer with the next of ``verdicts``."""
        self.sent.append(batch)
        return self.verdicts.popleft() if self.verdicts else [Delivered() for _ in batch.events]


def _hash(value: str) -> str:
    text = value.strip().lower()
    if len(text) == 64 and _HEX.issuperset(text):
        return text
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def source(
    adapter: Adapter | str,
    *,
    name: str = "example",
    site: str = "shop",
    options: Mapping[str, Any] | None = None,
    secrets: Sequence[str] | None = None,
    allowed_origins: Sequence[str] = (),
    event_names: Mapping[str, str] | None = None,
    default_country: str | None = None,
) -> Source:
    """
    Return a source of the adapter: a server source with secret ``s3cret``, unless ``allowed_origins`` make it public.

    ``options`` are decoded as at start-up.
    """
    if secrets is None:
        secrets = () if allowed_origins else (SECRET,)
    kind = NoOptions if isinstance(adapter, str) else adapter.Options
    return Source(
        name=name,
        adapter=adapter if isinstance(adapter, str) else adapter.name,
        site=site,
        destinations=("recording",),
        options=msgspec.convert(dict(options or {}), kind),
        secrets=tuple(Secret(value=secret) for secret in secrets),
        allowed_origins=tuple(allowed_origins),
        event_names=dict(event_names or {}),
        default_country=default_country,
    )


def hit(
    of: Source,
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
    tail: str = "",
    query: str = "",
    peer: str | None = "198.51.100.7",
    received_at: float = NOW,
) -> Hit:
    """
    Return a hit of the source; ``body`` is the exact bytes or text, or anything that JSON can hold.

    Without ``headers`` it is authentic where that needs no signature: a server source's carries its first secret as
    Bearer, a public one's its first origin.
    """
    if headers is None:
        headers = {"Content-Type": "application/json"}
        if of.secrets:
            headers["Authorization"] = f"Bearer {of.secrets[0].value}"
        elif of.allowed_origins:
            headers["Origin"] = of.allowed_origins[0]
    return Hit(
        source=of,
        method=method,
        tail=tail,
        query=query,
        headers={name.lower(): value for name, value in headers.items()},
        body=_bytes(body),
        peer=peer,
        received_at=received_at,
    )


def _bytes(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else msgspec.json.encode(body)
