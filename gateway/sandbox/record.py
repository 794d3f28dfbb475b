"""What the sandbox received: counters, the newest events, and every id with its number of copies."""

from collections import Counter, deque
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from gateway.sandbox.schema import Event

REFUSALS_KEPT: Final = 100


class Counts(msgspec.Struct, kw_only=True):
    """Numbers of events, each over all copies that came in full, in requests that the schema allows."""

    received: int = 0
    processed: int = 0
    """Copies that were kept: each is either a conversion or a duplicate."""
    failed: int = 0
    unique: int = 0
    """Conversions after Pinterest's own deduplication."""
    duplicate: int = 0
    offline: int = 0
    """Kept copies that Pinterest never deduplicates: offline events, and those that came late."""
    by_name: dict[str, int] = msgspec.field(default_factory=dict)
    """Conversions by event name."""


class Line(msgspec.Struct, kw_only=True, frozen=True):
    """One kept copy in the record's file; `received_at` is in Unix seconds."""

    ad_account_id: str
    event_name: str
    event_id: str
    offline: bool
    received_at: float


class _Account:
    """The ids of one ad account; most come once, so that only further copies need a number."""

    def __init__(self) -> None:
        self.first: dict[str, float] = {}
        self.again: dict[str, int] = {}
        self.offline: dict[str, int] = {}


class Record:
    """What one sandbox received, per ad account, as Pinterest would count it.

    Deduplication: the first copy of (ad account, event_name, event_id) within `window_s` seconds is the
    conversion (Pinterest removes duplicates before reporting; it documents neither the window nor the key, so
    both are this project's reading). Copies classed offline leave no mark and meet none.

    Args:
        keep: How many of the newest kept events stay readable by `events`.
        keep_ids: Whether `ids` is complete; if not, an id is forgotten when its window has passed.
        window_s: Length of the deduplication window, in seconds.
        path: A file to which each kept copy is appended as a JSON line, and from which a new record starts.
    """

    def __init__(
        self,
        *,
        keep: int = 10_000,
        keep_ids: bool = True,
        window_s: float = 172_800,
        path: Path | None = None,
    ) -> None:
        self.counts = Counts()
        self.calls = 0
        self.answers: Counter[int] = Counter()
        self.refusals: deque[str] = deque(maxlen=REFUSALS_KEPT)
        self._keep_ids = keep_ids
        self._window_s = window_s
        self._path = path
        self._accounts: dict[str, _Account] = {}
        self._newest: deque[tuple[str, bytes, str]] = deque(maxlen=keep)
        self._file: TextIO | None = None
        self._load()

    def add(
        self,
        ad_account_id: str,
        events: Sequence[Event],
        raws: Iterable[msgspec.Raw],
        failed: Container[int],
        *,
        late_before: float,
        now: float,
    ) -> None:
        """Count one request's events and keep those whose index is not in `failed`.

        Args:
            ad_account_id: The account they were sent to.
            events: The decoded events.
            raws: Their JSON texts, in the same order.
            failed: Indexes of the events that were not processed.
            late_before: An event_time before this (Unix s) makes the event offline, as its action_source may.
            now: The time of receipt, Unix s.
        """
        self.counts.received += len(events)
        lines = []
        for index, (event, raw) in enumerate(zip(events, raws, strict=True)):
            if index in failed:
                self.counts.failed += 1
                continue
            offline = event.action_source == "offline" or event.event_time < late_before
            self._mark(ad_account_id, event.event_name, event.event_id, offline, now)
            self._newest.append((event.event_name, bytes(raw), ad_account_id))
            if self._path is not None:
                lines.append(
                    Line(
                        ad_account_id=ad_account_id,
                        event_name=event.event_name,
                        event_id=event.event_id,
                        offline=offline,
                        received_at=now,
                    )
                )
        self._write(lines)

    def events(self, *, limit: int | None = None, name: str | None = None) -> list[dict[str, Any]]:
        """Return the newest kept events as sent, oldest first; duplicates included, failed ones not."""
        return [msgspec.json.decode(raw, type=dict[str, Any]) for raw in self.raw_events(limit=limit, name=name)]

    def raw_events(self, *, limit: int | None = None, name: str | None = None) -> list[bytes]:
        """Return the same as `events`, as JSON texts."""
        found = [raw for event_name, raw, _ in list(self._newest) if name is None or event_name == name]
        return found if limit is None else found[max(0, len(found) - limit) :]

    def of_account(self, ad_account_id: str) -> list[dict[str, Any]]:
        """Return the newest kept events of one ad account, as sent."""
        kept = [raw for _, raw, account in list(self._newest) if account == ad_account_id]
        return [msgspec.json.decode(raw, type=dict[str, Any]) for raw in kept]

    def ids(self, ad_account_id: str | None = None) -> dict[str, int]:
        """Return `"event_name event_id"` with its number of kept copies, of one ad account or of all."""
        counts: dict[str, int] = {}
        for name, account in list(self._accounts.items()):
            if ad_account_id is not None and name != ad_account_id:
                continue
            for key in list(account.first):
                counts[key] = counts.get(key, 0) + 1 + account.again.get(key, 0)
            for key, copies in list(account.offline.items()):
                counts[key] = counts.get(key, 0) + copies
        return counts

    def clear(self) -> None:
        """Forget everything, also in the file."""
        self.counts = Counts()
        self.calls = 0
        self.answers.clear()
        self.refusals.clear()
        self._accounts.clear()
        self._newest.clear()
        if self._path is not None and self._path.exists():
            self.close()
            self._path.write_text("", encoding="utf-8")

    def close(self) -> None:
        """Close the file, if there is one; the next event opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _mark(self, ad_account_id: str, name: str, event_id: str, offline: bool, now: float) -> None:
        account = self._accounts.get(ad_account_id)
        if account is None:
            account = self._accounts[ad_account_id] = _Account()
        key = f"{name} {event_id}"
        counts = self.counts
        counts.processed += 1
        if offline:
            counts.offline += 1
            if self._keep_ids:
                account.offline[key] = account.offline.get(key, 0) + 1
        else:
            first = account.first.get(key)
            if first is not None and self._keep_ids:
                account.again[key] = account.again.get(key, 0) + 1
            if first is not None and now - first < self._window_s:
                counts.duplicate += 1
                return
            self._start_window(account, key, now)
        counts.unique += 1
        counts.by_name[name] = counts.by_name.get(name, 0) + 1

    def _start_window(self, account: _Account, key: str, now: float) -> None:
        account.first.pop(key, None)
        account.first[key] = now
        if self._keep_ids:
            return
        # The dictionary is in the order of its windows, so the oldest are in front.
        for _ in range(2):
            oldest = next(iter(account.first))
            if now - account.first[oldest] < self._window_s:
                return
            del account.first[oldest]

    def _load(self) -> None:
        if self._path is None or not self._path.exists():
            return
        whole = self._path.read_bytes()
        complete = whole[: whole.rfind(b"\n") + 1]
        for line in msgspec.json.Decoder(Line).decode_lines(complete):
            self.counts.received += 1
            self._mark(line.ad_account_id, line.event_name, line.event_id, line.offline, line.received_at)
        if len(complete) < len(whole):
            # A killed sandbox may have left half a line; the next one must not be glued to it.
            self._path.write_bytes(complete)

    def _write(self, lines: Sequence[Line]) -> None:
        if self._path is None or not lines:
            return
        if self._file is None:
            self._file = self._path.open("a", encoding="utf-8")
        self._file.write(msgspec.json.Encoder().encode_lines(lines).decode())
        self._file.flush()
