"""A set of SHA-256 hashes that stays small: about 40 bytes for each of a million."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

_REST: Final = 30
"""Bytes of a hash behind the two that choose its bucket."""


class HashSet:
    """
    32-byte hashes without order. A bucket for each two leading bytes holds the rest of its hashes in one byte string.

    ``digest`` is the XOR of all members as hex: equal sets have equal digests, whatever the order of the changes.
    """

    def __init__(self) -> None:
        self._buckets: dict[bytes, bytearray] = {}
        self._count = 0
        self._xor = 0

    @classmethod
    def of(cls, members: Iterable[bytes]) -> "HashSet":
        """Return the set of these."""
        found = cls()
        for member in members:
            found.add(member)
        return found

    def __len__(self) -> int:
        return self._count

    def __contains__(self, member: bytes) -> bool:
        bucket = self._buckets.get(member[:2])
        return bucket is not None and _find(bucket, member[2:]) >= 0

    def __iter__(self) -> Iterator[bytes]:
        for start, bucket in self._buckets.items():
            for at in range(0, len(bucket), _REST):
                yield start + bytes(bucket[at : at + _REST])

    @property
    def digest(self) -> str:
        """64 hex characters."""
        return f"{self._xor:064x}"

    def add(self, member: bytes) -> bool:
        """Add one; False when it was there."""
        bucket = self._buckets.setdefault(member[:2], bytearray())
        if _find(bucket, member[2:]) >= 0:
            return False
        bucket += member[2:]
        self._count += 1
        self._xor ^= int.from_bytes(member)
        return True

    def remove(self, member: bytes) -> bool:
        """Take one out; False when it was not there."""
        bucket = self._buckets.get(member[:2])
        at = -1 if bucket is None else _find(bucket, member[2:])
        if bucket is None or at < 0:
            return False
        last = bytes(bucket[-_REST:])
        bucket[at : at + _REST] = last
        del bucket[-_REST:]
        self._count -= 1
        self._xor ^= int.from_bytes(member)
        return True


def digest_of(text: str) -> bytes:
    """Return the SHA-256 of a text, 32 bytes."""
    return hashlib.sha256(text.encode()).digest()


def _find(bucket: bytearray, rest: bytes) -> int:
    at = bucket.find(rest)
    while at >= 0 and at % _REST:
        at = bucket.find(rest, at + 1)
    return at
