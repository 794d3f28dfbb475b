"""
Exports: what is kept of a person, as a file for that person.

The file names nobody, and holds what the store holds: hashes, never an address that was hashed.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from gateway.errors import Unavailable
from gateway.event import Struct
from gateway.outbox import ALLOWED, LIMITED, OPTED_OUT, Kept, KeptUnit, Outbox, Remembered

FOLDER = "exports"
_ABOUT = (
    "This is everything that this gateway keeps of one person. It passes on what happened in a shop or an app to "
    "advertising platforms, and keeps an event until it is delivered. Names, e-mail addresses, phone numbers and other "
    "identifiers are kept as SHA-256 hashes only. What was delivered is not kept here any more: the platform that "
    "'destination' names has it."
)
_EVENTS = {
    False: "Waits to be delivered; is deleted when it is, or some days after its delivery failed for good.",
    True: "Could not be delivered; is deleted at the time in 'kept_until'.",
}
_MEMORY = (
    "Remembered under a browser's, cart's or person's key, so that a later event of the shop can be completed by it; "
    "address and browser for 24 hours at most."
)
_ERASED = "An earlier request for erasure: events from before this time are refused."
_SALE = {ALLOWED: "allowed", OPTED_OUT: "refused", LIMITED: "limited"}


class Exported(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Where an export is, and how many rows it has."""

    path: str
    events: int
    memories: int


async def export(outbox: Outbox, subjects: Sequence[bytes], now: float, file: Path | None = None) -> Exported:
    """
    Write everything that is kept of these subjects to a new file, readable by its owner only.

    Args:
        now: Unix seconds.
        file: Where; without it a file with a random name in the folder ``exports`` beside the store.

    Raises:
        Unavailable: The store cannot be read, or the file cannot be written; what the operator asked for by name is an
            OSError instead.
    """
    kept = await outbox.of_subjects(subjects)
    content = msgspec.json.format(msgspec.json.encode(_document(kept, now)), indent=2)
    try:
        path = await asyncio.to_thread(_write, file or _new_file(outbox.folder, now), content)
    except OSError as error:
        if file is not None:
            raise
        raise Unavailable(
            "not_written", f"The export cannot be written ({error.strerror}).", retry_after_s=60
        ) from error
    return Exported(path=str(path), events=len(kept.units), memories=len(kept.memories))


def _new_file(folder: Path, now: float) -> Path:
    day = datetime.fromtimestamp(now, UTC).date().isoformat()
    return folder / FOLDER / f"export-{day}-{secrets.token_hex(8)}.json"


def _write(path: Path, content: bytes) -> Path:
    if path.parent.name == FOLDER:
        path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return path


def _document(kept: Kept, now: float) -> dict[str, Any]:
    document: dict[str, Any] = {
        "about": _ABOUT,
        "written_at": _time(now),
        "events": [_event(unit) for unit in kept.units],
        "remembered": [_memory(record) for record in kept.memories],
    }
    if kept.erased_before is not None:
        document["erased"] = {"what": _ERASED, "before": _time(kept.erased_before)}
    return document


def _event(unit: KeptUnit) -> dict[str, Any]:
    row = {
        "what": _EVENTS[unit.is_dead],
        "destination": unit.destination,
        "accepted_at": _time(unit.accepted_at),
        "attempts": unit.attempts,
        "reason": unit.reason,
        "kept_until": _time(unit.until),
        "purpose": "to measure and improve advertising at the destination",
        "event": msgspec.to_builtins(unit.event),
    }
    return {name: value for name, value in row.items() if value is not None}


def _memory(record: Remembered) -> dict[str, Any]:
    row = {
        "what": _MEMORY,
        "click_ids": record.clicks,
        "clicked_at": _time(record.click_at) if record.clicks else None,
        "client_ip": record.ip,
        "client_user_agent": record.user_agent,
        "seen_at": _time(record.seen_at) if record.ip or record.user_agent else None,
        "marketing_allowed": record.marketing,
        "marketing_chosen_at": _time(record.marketing_at) if record.marketing is not None else None,
        "sale_of_data": None if record.sale is None else _SALE[record.sale],
        "sale_chosen_at": _time(record.sale_at) if record.sale is not None else None,
        "kept_until": _time(float(record.expires)),
        "purpose": "to complete later events of the same person, and to follow the person's choices",
    }
    return {name: value for name, value in row.items() if value is not None}


def _time(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
