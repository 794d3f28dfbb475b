"""
The quarantine: authentic hits that today's code fails to read, kept encrypted until the fix.

One file for each hit in a folder beside the store, written whole and fsynced before anybody is told. Its first line is
what lists show of it: nothing of the payload. The rest is the hit under AES-256-GCM, bound to that line; without the
key nobody reads it, and a changed file is noticed. What is under another key is left alone until its time is over.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gateway.errors import ConfigError, Unreadable
from gateway.event import Struct
from gateway.hit import Hit
from gateway.vault import Content, Damaged, Key, Label, Vault, content_of, label_of

T = TypeVar("T")
_log = logging.getLogger("gateway.quarantine")
#: One source may fill so much of the quarantine, so that a flood of one leaves room for the others.
SHARE = 0.5
#: So many hits may wait to be written; a sender gives up on an answer sooner than more of them would be.
MOST_WAITING = 32
#: What a file takes on the disk is a multiple of this; it bounds the number of files.
_BLOCK = 4_096
_SWEEP_S = 60.0

Count = Callable[[str, str, int], None]
Alarm = Callable[[str, str, str], None]


class Terms(Struct, frozen=True, kw_only=True):
    """``key`` None: nothing is kept. Seconds and bytes; ``min_free_bytes`` of the disk are left to the store."""

    key: Key | None = None
    keep_s: float = 259_200
    max_bytes: int = 256 << 20
    min_free_bytes: int = 0


class Kept(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """
    What a list shows of one hit; times are Unix seconds.

    ``state``: ``kept``, ``refused`` (the last replay was answered 4xx, with ``error`` as its reason), ``another_key``
    (under a key that is not this one), ``damaged`` (the file is not what was written).
    """

    id: str
    source: str
    plugin: str
    error: str
    where: str
    received_at: float
    expires_at: float
    tries: int
    bytes: int
    state: str


class Quarantine:
    """
    The hits that are kept.

    Args:
        folder: Made when the first hit is kept.
        terms: Replaced by :meth:`adopt`.
        clock: Wall time, Unix seconds.
        count: Called with (source, what, number) for metrics: ``kept``, ``full``, ``failed``, ``expired``,
            ``replayed``, ``discarded``, ``erased``.
        alarm: Called with (reason, message, source) for what an operator must hear.
    """

    def __init__(self, folder: Path, terms: Terms, clock: Callable[[], float], count: Count, alarm: Alarm) -> None:
        self._vault = Vault(folder)
        self._clock = clock
        self._count = count
        self._alarm = alarm
        self._labels: dict[str, tuple[Label, int]] = {}
        self._sizes: Counter[str] = Counter()
        self._damaged: set[str] = set()
        self._alarmed: set[tuple[str, str]] = set()
        self._pool = ThreadPoolExecutor(1, "quarantine")
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._terms = terms
        for label, size in self._vault.scan():
            self._note(label, size)
            if label.is_damaged:
                self._damaged.add(label.id)

    # -- keeping

    def adopt(self, terms: Terms) -> None:
        """Go on under other terms; hits under the former key stay as they are."""
        self._terms = terms

    async def keep(self, hit: Hit, failure: Unreadable) -> None:
        """
        Keep a hit; returns once it is durable.

        Raises:
            Unreadable: ``failure`` itself: there is no key or no room, or it cannot be written.
        """
        terms = self._terms
        if terms.key is None:
            raise failure
        label = label_of(hit, failure, terms.key)
        size = _on_disk(len(hit.body) + sum(map(len, hit.headers.values())) + len(hit.query) + 1_024)
        if self._waiting >= MOST_WAITING or not self._has_room(hit.source.name, size, terms):
            self._lose("full", hit.source.name, "it is full, or too many hits come at once")
            raise failure
        self._waiting += 1
        self._note(label, size)
        task = self._spawn(self._write(terms, terms.key, label, content_of(hit)))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            # the sender is told to repeat it, or has gone: it must not be here too
            self._spawn(self._withdraw(task, label.id))
            raise
        except OSError as error:
            self._lose("failed", hit.source.name, f"it cannot be written ({error.strerror})")
            raise failure from error
        self._count(hit.source.name, "kept", 1)
        self._tell(hit.source.name, failure)

    async def _write(self, terms: Terms, key: Key, label: Label, content: Content) -> None:
        try:
            written = await self._run(lambda: self._vault.write(key, label, content, terms.min_free_bytes))
        except BaseException:
            self._drop(label.id)
            raise
        finally:
            self._waiting -= 1
        self._note(label, written)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _withdraw(self, writing: asyncio.Task[None], name: str) -> None:
        await asyncio.gather(writing, return_exceptions=True)
        with contextlib.suppress(OSError):
            await self.remove((name,), "failed")

    def _has_room(self, source: str, size: int, terms: Terms) -> bool:
        total = sum(self._sizes.values())
        return total + size <= terms.max_bytes and self._sizes[source] + size <= terms.max_bytes * SHARE

    def _tell(self, source: str, failure: Unreadable) -> None:
        self._alarmed.discard(("quarantine_full", source))
        if ("quarantined", failure.plugin) not in self._alarmed:
            self._alarmed.add(("quarantined", failure.plugin))
            text = (
                f"The plugin '{failure.plugin}' fails to read hits ({failure.error} at {failure.where or 'unknown'}). "
                "They are kept: mend or update it, then run 'tag-gateway quarantine replay --all'."
            )
            self._alarm("quarantined", text, source)

    def _lose(self, what: str, source: str, why: str) -> None:
        self._count(source, what, 1)
        if ("quarantine_full", source) not in self._alarmed:
            self._alarmed.add(("quarantine_full", source))
            text = f"A hit that cannot be read is answered 503 instead of being kept in quarantine: {why}."
            self._alarm("quarantine_full", text, source)

    def succeeded(self, plugin: str) -> None:
        """Note that the plugin read a hit: its next failure is news again."""
        if self._alarmed:
            self._alarmed.discard(("quarantined", plugin))

    # -- looking

    def counts(self) -> dict[str, int]:
        """Return how many hits are kept, by source."""
        found: Counter[str] = Counter()
        for label, _ in self._labels.values():
            found[label.source] += 1
        return dict(found)

    def listing(self, source: str | None = None, ids: Sequence[str] = ()) -> list[Kept]:
        """Return what is kept, oldest first; of one source, or of these ids."""
        chosen = sorted(self._labels) if not ids else sorted(set(ids).intersection(self._labels))
        return [self._kept(one) for one in chosen if source in (None, self._labels[one][0].source)]

    def _kept(self, name: str) -> Kept:
        label, size = self._labels[name]
        key = self._terms.key
        state = "kept" if not label.refused else "refused"
        if name in self._damaged:
            state = "damaged"
        elif key is None or label.key != key.id:
            state = "another_key"
        return Kept(
            id=name, source=label.source, plugin=label.plugin, error=label.error, where=label.where,
            received_at=label.received_at, expires_at=label.received_at + self._terms.keep_s, tries=label.tries,
            bytes=size, state=state,
        )  # fmt: skip

    async def open(self, name: str) -> Content | None:
        """Return a hit's content; None when it is damaged, under another key, or not there."""
        key = self._terms.key
        if key is None or name not in self._labels or self._kept(name).state not in ("kept", "refused"):
            return None
        label = self._labels[name][0]
        try:
            return await self._run(lambda: self._vault.read(key, label))
        except FileNotFoundError:
            self._drop(name)
        except (Damaged, OSError):
            self._damaged.add(name)
            _log.error("quarantine_damaged", extra={"id": name, "source": label.source})
        return None

    # -- ending

    async def renew(self, name: str, content: Content, *, error: str, where: str, refused: bool) -> None:
        """Write down what came of a replay that did not succeed."""
        key = self._terms.key
        if key is None or name not in self._labels:
            return
        label = self._labels[name][0].again(error=error, where=where, refused=refused)
        try:
            self._note(label, await self._run(lambda: self._vault.write(key, label, content, 0)))
        except OSError as problem:
            _log.error("quarantine_not_written", extra={"id": name, "error": type(problem).__name__})

    async def remove(self, names: Sequence[str], what: str) -> int:
        """
        Delete hits and count them as ``what``; returns how many there were.

        Raises:
            OSError: A file cannot be deleted.
        """
        found = [name for name in names if name in self._labels]
        await self._run(lambda: self._vault.remove(found))
        by_source = Counter(self._labels[name][0].source for name in found if name in self._labels)
        for name in found:
            self._drop(name)
        for source, number in by_source.items():
            self._count(source, what, number)
        return sum(by_source.values())

    async def expire(self) -> int:
        """Delete what was kept for ``keep_s``; returns how many: each is a hit that is lost, and alarmed."""
        end = self._clock() - self._terms.keep_s
        old = [name for name, (label, _) in self._labels.items() if label.received_at <= end]
        if not old:
            return 0
        by_source = Counter(self._labels[name][0].source for name in old)
        gone = await self.remove(old, "expired")
        for source, number in sorted(by_source.items()):
            text = f"{number} hits that could not be read were deleted from quarantine: nobody replayed them in time."
            self._alarm("quarantine_expired", text, source)
        return gone

    def start(self) -> None:
        """Delete what expires from now on; harmless twice."""
        if self._sweeper is None:
            self._sweeper = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        while True:
            try:
                await self.expire()
            except OSError as error:
                _log.error("quarantine_not_deleted", extra={"error": type(error).__name__})
            await asyncio.sleep(_SWEEP_S)

    async def close(self) -> None:
        """Finish what is being written."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
            self._sweeper = None
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pool.shutdown(wait=True)

    # -- the index

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _note(self, label: Label, size: int) -> None:
        self._drop(label.id)
        self._labels[label.id] = (label, _on_disk(size))
        self._sizes[label.source] += _on_disk(size)

    def _drop(self, name: str) -> None:
        found = self._labels.pop(name, None)
        self._damaged.discard(name)
        if found is not None:
            self._sizes[found[0].source] -= found[1]


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def key_of(text: str, where: str) -> Key:
    """
    Return the key that base64 text holds.

    Raises:
        ConfigError: It is not 32 bytes in base64; ``where`` is named.
    """
    key = Key.parse(text)
    if key is None:
        raise ConfigError(f"{where}: must be 32 random bytes in base64. Make one with 'openssl rand -base64 32'.")
    return key
