"""Sealed events as bytes: a format number, then MessagePack. Read by today's code, whatever code wrote them."""

import msgspec

from gateway.errors import StoreError
from gateway.event import SealedEvent

#: Grows when a stored event can no longer be read as the current Struct; older formats are then converted here.
FORMAT = 1
_PREFIX = bytes([FORMAT])
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SealedEvent)

#: Bytes of a mark's or subject's digest: 96 bits, so that ten million keys meet a new one by accident once in 10^22.
DIGEST_SIZE = 12


def pack(event: SealedEvent) -> bytes:
    """Encode a sealed event."""
    return _PREFIX + _encoder.encode(event)


def unpack(stored: bytes) -> SealedEvent:
    """
    Decode a stored event.

    Raises:
        StoreError: The format is newer than this program.
    """
    if stored[0] != FORMAT:
        raise StoreError(
            f"A stored event has format {stored[0]}, this program knows {FORMAT}: run the newer version that wrote it."
        )
    return _decoder.decode(memoryview(stored)[1:])


def split(digests: bytes) -> list[bytes]:
    """Return the digests of a concatenation."""
    return [digests[start : start + DIGEST_SIZE] for start in range(0, len(digests), DIGEST_SIZE)]
