"""
Sealed events as bytes: a format number, a checksum, then MessagePack. Read by today's code, whatever code wrote them.

SQLite notices a damaged page by its structure, not by its content: the checksum does.
"""

import struct
import zlib

import msgspec

from gateway.errors import StoreError
from gateway.event import SealedEvent
from gateway.outbox.failures import DamagedRow

#: Grows when a stored event can no longer be read as the current Struct; older formats are then converted here.
#: 1 had no checksum; it covers the format number too.
FORMAT = 2
_HEAD = struct.Struct(">BI")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SealedEvent)

#: Bytes of a mark's or subject's digest: 96 bits, so that ten million keys meet a new one by accident once in 10^22.
DIGEST_SIZE = 12


def pack(event: SealedEvent) -> bytes:
    """Encode a sealed event."""
    body = _encoder.encode(event)
    return _HEAD.pack(FORMAT, zlib.crc32(body, FORMAT)) + body


def unpack(stored: bytes) -> SealedEvent:
    """
    Decode a stored event.

    Raises:
        DamagedRow: The bytes are not those that were written.
        StoreError: The format is newer than this program.
    """
    body = _body(stored)
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise DamagedRow("A stored event cannot be read: the store is damaged.") from error


def is_sound(stored: object) -> bool:
    """Whether a stored event is what was written, as far as a checksum tells."""
    if not isinstance(stored, bytes):
        return False
    try:
        unpack(stored) if stored[:1] == b"\x01" else _body(stored)
    except StoreError:
        return False
    return True


def _body(stored: bytes) -> memoryview:
    if not stored:
        raise DamagedRow("A stored event is empty: the store is damaged.")
    if stored[0] == 1:
        return memoryview(stored)[1:]
    body = memoryview(stored)[_HEAD.size :]
    if len(stored) < _HEAD.size or zlib.crc32(body, stored[0]) != _HEAD.unpack_from(stored)[1]:
        raise DamagedRow("A stored event is not what was written: the store is damaged.")
    if stored[0] != FORMAT:
        raise StoreError(
            f"A stored event has format {stored[0]}, this program knows {FORMAT}: run the newer version that wrote it."
        )
    return body


def split(digests: bytes) -> list[bytes]:
    """Return the digests of a concatenation."""
    return [digests[start : start + DIGEST_SIZE] for start in range(0, len(digests), DIGEST_SIZE)]
