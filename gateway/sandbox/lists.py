"""Pinterest's customer lists and audiences as things: what they hold, count and report of themselves."""

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from gateway.sandbox.hashset import HashSet, digest_of

SMALLEST: Final = 100
"""People with a Pinterest account that a list needs (`CustomerList.status`, `Audience.status`)."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_OTHER_HASH: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{40}")
_EMAIL: Final = re.compile(r"[^\sA-Z@]+@[^\sA-Z@]+")


class CustomerList:
    """
    One customer list. Records count as in the description: each one sent, whether or not it changes anything.

    A hash belongs to someone with a Pinterest account when its third byte is under ``match_rate`` of 256.
    """

    def __init__(self, list_id: str, account: str, name: str, match_rate: float, now: float) -> None:
        self.id = list_id
        self.account = account
        self.name = name
        self.hashes = HashSet()
        self.matched = 0
        self.batches = self.added = self.removed = self.plain = self.invalid = 0
        self.created = self.updated = self.ready_at = now
        self._edge = round(match_rate * 256)

    def change(self, operation: str, records: Iterable[str], now: float, processing_s: float) -> None:
        """Take in one call's records: ``ADD`` or ``REMOVE``."""
        is_add = operation == "ADD"
        for record in records:
            member = self._member(record)
            if is_add:
                self.added += 1
                changed = member is not None and self.hashes.add(member)
            else:
                self.removed += 1
                changed = member is not None and self.hashes.remove(member)
            if changed and member is not None and member[2] < self._edge:
                self.matched += 1 if is_add else -1
        self.batches += 1
        self.updated = now
        self.ready_at = now + processing_s

    def rate(self, match_rate: float) -> None:
        """Count anew who has a Pinterest account."""
        self._edge = round(match_rate * 256)
        self.matched = sum(member[2] < self._edge for member in self.hashes)

    def status(self, now: float) -> str:
        """Return ``PROCESSING`` until the newest records are read, then ``READY`` or ``TOO_SMALL``."""
        if now < self.ready_at:
            return "PROCESSING"
        return "READY" if self.matched >= SMALLEST else "TOO_SMALL"

    def resource(self, now: float) -> dict[str, Any]:
        """Return it as Pinterest shows it."""
        return {
            "id": self.id,
            "ad_account_id": self.account,
            "name": self.name,
            "status": self.status(now),
            "num_batches": self.batches,
            "num_uploaded_user_records": self.added,
            "num_removed_user_records": self.removed,
            "exceptions": {"invalid_records": self.invalid} if self.invalid else {},
            "created_time": int(self.created),
            "updated_time": int(self.updated),
            "type": "customerlist",
        }

    def _member(self, record: str) -> bytes | None:
        if _SHA256.fullmatch(record):
            return bytes.fromhex(record)
        if _OTHER_HASH.fullmatch(record):
            return digest_of(record)
        if _EMAIL.fullmatch(record):
            self.plain += 1
            return digest_of(record)
        self.invalid += 1
        return None


class Audience(msgspec.Struct, kw_only=True):
    """One audience; ``feed`` is the customer list behind it, where it has one."""

    id: str
    account: str
    name: str
    type: str
    rule: dict[str, Any]
    created: float
    updated: float
    ready_at: float
    description: str | None = None
    feed: CustomerList | None = None

    def status(self, now: float) -> str:
        """Return ``INITIALIZING``, ``TOO_SMALL`` or ``READY``."""
        if now < self.ready_at:
            return "INITIALIZING"
        return "TOO_SMALL" if self.feed is not None and self.feed.matched < SMALLEST else "READY"

    def size(self, now: float) -> int | None:
        """People in it, None until it is known; a made-up number where no list is behind it."""
        if now < self.ready_at:
            return None
        return self.feed.matched if self.feed is not None else 100_000 * int(self.rule.get("percentage", 1))

    def resource(self, now: float) -> dict[str, Any]:
        """Return it as Pinterest shows it."""
        return {
            "id": self.id,
            "ad_account_id": self.account,
            "name": self.name,
            "audience_type": self.type,
            "description": self.description,
            "rule": self.rule,
            "size": self.size(now),
            "status": self.status(now),
            "type": "audience",
            "created_by_company_name": None,
            "created_timestamp": int(self.created),
            "updated_timestamp": int(self.updated),
        }
