"""
Step examples: one file is a test, an input of ``tag-gateway explain``, and documentation.

``examples/NAME.json``::

    {"title": "An order of a guest, paid in yen",
     "source": {"site": "shop", "options": {...}, "secrets": ["s3cret"], "allowed_origins": [], "default_country":
     "US"}, "hit": {"method": "POST", "tail": "", "query": "", "headers": {"Name": "value"}, "peer": "198.51.100.7",
             "received_at": 1795305600, "body": <JSON> or "raw": "<the exact text>"},
     "events": [{"event": {...}} | {"skipped": {...}} | {"invalid": {...}} | {"erasure": {...}} | {"alarm": {...}}]}

Each object under ``events`` is ``msgspec.to_builtins`` of the Struct: defaults left out, decimals as text. A hit that
is refused has ``"rejected": {"reason": "...", "status": 401}`` in place of ``events``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from gateway.errors import Rejected
from gateway.event import Normalized
from gateway.hit import Hit, Secret, Source
from gateway.interfaces import Adapter


class SourceExample(msgspec.Struct, forbid_unknown_fields=True):
    """The part of a source's configuration that matters to the example."""

    name: str = "example"
    site: str = "shop"
    options: dict[str, Any] = {}
    secrets: list[str] = []
    allowed_origins: list[str] = []
    default_country: str | None = None


class HitExample(msgspec.Struct, forbid_unknown_fields=True):
    """A request; ``raw`` is the exact text, ``body`` any JSON."""

    method: str = "POST"
    tail: str = ""
    query: str = ""
    headers: dict[str, str] = {}
    peer: str | None = "198.51.100.7"
    received_at: float = 1_795_305_600.0
    body: Any = None
    raw: str | None = None


class Example(msgspec.Struct, forbid_unknown_fields=True):
    """One example file."""

    title: str
    hit: HitExample
    source: SourceExample = msgspec.field(default_factory=SourceExample)
    events: list[dict[str, Any]] = []
    rejected: dict[str, Any] | None = None


def load(path: Path) -> Example:
    """Read one example file; a misspelt key is an error."""
    return msgspec.json.decode(path.read_bytes(), type=Example)


def files(folder: Path) -> list[Path]:
    """Return the example files of a folder, sorted; an adapter without any is a mistake."""
    return sorted(folder.glob("*.json"))


def hit_of(example: Example, adapter: Adapter) -> Hit:
    """Build the hit that the example describes, with the adapter's options decoded as at start-up."""
    source = Source(
        name=example.source.name,
        adapter=adapter.name,
        site=example.source.site,
        destinations=("pinterest",),
        options=msgspec.convert(example.source.options, adapter.Options),
        secrets=tuple(Secret(value=value) for value in example.source.secrets),
        allowed_origins=tuple(example.source.allowed_origins),
        default_country=example.source.default_country,
    )
    given = example.hit
    if given.raw is not None:
        body = given.raw.encode()
    else:
        body = b"" if given.body is None else msgspec.json.encode(given.body)
    return Hit(
        source=source,
        method=given.method,
        tail=given.tail,
        query=given.query,
        headers={name.lower(): value for name, value in given.headers.items()},
        body=body,
        peer=given.peer,
        received_at=given.received_at,
    )


def normalized(adapter: Adapter, hit: Hit) -> list[dict[str, Any]]:
    """Verify and normalise the hit; return its items in the form of the example files."""
    adapter.verify(hit)
    return plain(adapter.normalize(hit))


def plain(items: Sequence[Normalized]) -> list[dict[str, Any]]:
    """Return items in the form of the example files."""
    return [{type(item).__name__.lower(): msgspec.json.decode(msgspec.json.encode(item))} for item in items]


def check(path: Path, adapter: Adapter) -> None:
    """
    Run one example file against its adapter.

    Raises:
        AssertionError: What came out is not what the file says.
    """
    example = load(path)
    hit = hit_of(example, adapter)
    try:
        found: object = normalized(adapter, hit)
    except Rejected as rejected:
        found = {"reason": rejected.reason, "status": rejected.status}
    found = _lean(found)
    wanted: object = example.events if example.rejected is None else example.rejected
    if found != _lean(wanted):
        readable = msgspec.json.format(msgspec.json.encode(found)).decode()
        raise AssertionError(f"{path.name}: {example.title}\nthe adapter gives:\n{readable}")


def _lean(value: Any) -> Any:
    """Leave empty objects out: ``"user": {}`` says nothing more than no user."""
    if isinstance(value, dict):
        return {key: _lean(item) for key, item in value.items() if item != {}}
    return [_lean(item) for item in value] if isinstance(value, list) else value
