"""
Reading the memory beside the writer, with a filter in front that spares most events a look at the table.
"""

import asyncio
import sqlite3
import struct
import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from gateway.errors import Unavailable
from gateway.outbox import Remembered
from gateway.outbox.memories import Memories
from gateway.outbox.schema import connect_reader

#: The filter is filled in pieces, so that the event loop gets its turn.
_PIECE = 1_000
_PAUSE_S = 0.01
_KEYS = "SELECT digest FROM memory_key WHERE digest > ? ORDER BY digest LIMIT ?"


class Filter:
    """
    A Bloom filter of the keys in the table: "no" is certain, "maybe" costs a look.

    Keys are uniform already (they are keyed hashes), so their own bytes are the hash functions.
    """

    def __init__(self, limit: int) -> None:
        size = 1 << max(16, (16 * limit - 1).bit_length())  # 16 bits a key: 1 in 400 wrong, with three probes
        self._mask = size - 1
        self._bits = bytearray(size >> 3)
        #: Whether the keys that were in the table at the start are in it: until then everything is a "maybe".
        self.is_complete = False

    def add(self, digest: bytes) -> None:
        """Note a key."""
        bits, mask = self._bits, self._mask
        one, two, three = _parts(digest)
        bits[(one & mask) >> 3] |= 1 << (one & 7)
        bits[(two & mask) >> 3] |= 1 << (two & 7)
        bits[(three & mask) >> 3] |= 1 << (three & 7)

    def may_have(self, digest: bytes) -> bool:
        """Whether the key may have been added."""
        if not self.is_complete:
            return True
        return self.has(digest)

    def has(self, digest: bytes) -> bool:
        """Whether the key was added, or looks like some that were."""
        bits, mask = self._bits, self._mask
        one, two, three = _parts(digest)
        return bool(
            bits[(one & mask) >> 3] >> (one & 7) & bits[(two & mask) >> 3] >> (two & 7)
            & bits[(three & mask) >> 3] >> (three & 7) & 1
        )  # fmt: skip


_parts = struct.Struct("<III").unpack


class Recollection:
    """
    Looks up what is remembered.

    Args:
        path: The store. ``memories`` are its tables. ``clock`` gives wall time, Unix seconds.
        limit: How many keys are remembered at most.
    """

    def __init__(self, path: Path, memories: Memories, clock: Callable[[], float], limit: int) -> None:
        self._path = path
        self._memories = memories
        self._clock = clock
        self._limit = limit
        self._filter = Filter(limit)
        self._next: Filter | None = None
        self._added = 0
        #: Two threads fill the filters.
        self._filling = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._reading = threading.Lock()
        self._pool = ThreadPoolExecutor(2, "outbox-reader")  # one looks, one fills the filter
        self._stopping = threading.Event()
        self._pool.submit(self._fill, self._filter)

    def may_have(self, digest: bytes) -> bool:
        """Whether a look may find something under the key."""
        return self._filter.may_have(digest)

    async def look(self, digests: Collection[bytes]) -> dict[bytes, Remembered]:
        """
        Return what is remembered under these keys.

        Raises:
            Unavailable: The store cannot be read.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._look, digests)
        except (sqlite3.Error, RuntimeError) as error:
            raise Unavailable("store_failed", "The memory cannot be read.", retry_after_s=5) from error

    def _look(self, digests: Collection[bytes]) -> dict[bytes, Remembered]:
        with self._reading:
            if self._reader is None:
                self._reader = connect_reader(self._path)
            return self._memories.read(self._reader, digests, self._clock())

    def added(self, digests: Iterable[bytes]) -> None:
        """Note keys that were written; called on the writer's thread."""
        new = 0
        with self._filling:
            for digest in digests:
                if not self._filter.has(digest):
                    new += 1
                    self._filter.add(digest)
                if self._next is not None:
                    self._next.add(digest)
            self._added += new
            if self._added > self._limit and self._next is None:
                # keys that expired are still in it: a filter of the keys that there are takes its place
                self._added, self._next = 0, Filter(self._limit)
                self._pool.submit(self._fill, self._next)

    def _fill(self, filling: Filter) -> None:
        try:
            with closing(connect_reader(self._path)) as reader:
                self._read_keys(reader, filling)
        except sqlite3.Error:
            # an incomplete filter only costs looks; another one is tried after as many keys again
            with self._filling:
                self._next = None

    def _read_keys(self, reader: sqlite3.Connection, filling: Filter) -> None:
        last = b""
        with self._filling:
            for digest in self._memories.unindexed():
                filling.add(digest)
        while not self._stopping.is_set():
            rows = reader.execute(_KEYS, (last, _PIECE)).fetchall()
            with self._filling:
                for (digest,) in rows:
                    filling.add(digest)
                if len(rows) < _PIECE:
                    filling.is_complete = True
                    self._filter, self._next = filling, None
                    return
            last = rows[-1][0]
            self._stopping.wait(_PAUSE_S)

    def close(self) -> None:
        """End the reading thread."""
        self._stopping.set()
        self._pool.shutdown(wait=True)
        if self._reader is not None:
            self._reader.close()
            self._reader = None
