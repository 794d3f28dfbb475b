"""
What became of each event, by its number, in three bytes each: millions of them fit in memory.

*Accepted* is what a client read a 2xx for; *lost* is accepted and neither delivered nor dead nor queued; *phantom* is
delivered and never accepted (nor in doubt), or of a kind that must never arrive; *corrupt* arrived and is not what its
number says; *disowned* arrived although every copy was answered with 503; *duplicated out* arrived more than once,
*unexplained* more often than kills and lost answers explain.
"""

import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from gateway.event import Struct
from gateway.outbox.records import unpack
from soak.traffic import CODES, NEVER, ORDERS, PREFIXES, number_of
from soak.vendor import Line

SENT, UNKNOWN, ACCEPTED, REFUSED, BROWSER_ID, SERVER_ID, DISOWNED = 1, 2, 4, 8, 16, 32, 64
_GROW = 1 << 18
_MOST = 255
_ID_BYTES = 8
_SHOWN = 5
_BLOCK = 1 << 22
_GOOD = frozenset({"accepted", "merged", "duplicate"})


class Leftover(Struct, frozen=True, kw_only=True):
    """A store as the end of its process left it."""

    is_sound: bool
    in_flight: tuple[str, ...]


def leftover(store: Path, *, check: bool) -> Leftover:
    """Read a copy of the store's files, as opening the file itself would do the recovery that is to be tested."""
    with tempfile.TemporaryDirectory(dir=store.parent) as folder:
        copy = Path(folder) / store.name
        for suffix in ("", "-wal"):
            part = store.with_name(store.name + suffix)
            if part.exists():
                shutil.copy(part, copy.with_name(copy.name + suffix))
        connection = sqlite3.connect(copy)
        try:
            verdict = connection.execute("PRAGMA integrity_check").fetchone()[0] if check else "ok"
            units = [number for (packed,) in connection.execute("SELECT units FROM lease") for number in _ids(packed)]
            found = []
            for number in units:
                row = connection.execute("SELECT event FROM unit WHERE id = ?", (number,)).fetchone()
                found += [unpack(row[0]).event_id] if row else []
        finally:
            connection.close()
    return Leftover(is_sound=verdict == "ok", in_flight=tuple(found))


def _ids(packed: bytes) -> Iterable[int]:
    return (int.from_bytes(packed[at : at + _ID_BYTES], "big") for at in range(0, len(packed), _ID_BYTES))


class Balance(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The account of a run; all are numbers of events, ``copies`` of their further copies."""

    accepted: int
    delivered: int
    dead: int
    queued: int
    lost: int
    phantom: int
    corrupt: int
    duplicated_out: int
    copies: int
    copies_bound: int
    unexplained: int
    two_ids: int
    dead_without_cause: int
    delivered_and_dead: int
    disowned: int
    late: int
    examples: dict[str, list[str]]


class Account:
    """
    Watches what clients were told and what the vendor's ledger says.

    Attributes:
        outcomes: Answers by outcome, a count of copies. ``in_doubt``: copies that a kill or a lost answer may double.
    """

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._read = 0
        self._flags = bytearray(_GROW)
        self._copies = bytearray(_GROW)
        self._doubts = bytearray(_GROW)
        self._decoder = msgspec.json.Decoder(Line)
        self.outcomes: Counter[str] = Counter()
        self.in_doubt = 0
        self._corrupt: list[str] = []
        self._alien: list[str] = []
        self.corrupt = 0
        self.late = 0
        self.arrived = 0

    def sent(self, numbers: Iterable[int]) -> None:
        """Note that copies are about to be sent."""
        for number in numbers:
            self._set(number, SENT)

    def unknown(self, numbers: Iterable[int]) -> None:
        """Note that nobody knows whether these were accepted."""
        for number in numbers:
            self._set(number, UNKNOWN)

    def disowned(self, numbers: Iterable[int]) -> None:
        """Note that the sender was told to try again."""
        for number in numbers:
            self._set(number, DISOWNED)

    def answered(self, number: int, outcome: str) -> None:
        """Note what a 2xx said of a copy."""
        self.outcomes[outcome] += 1
        if outcome in _GOOD:
            self._set(number, ACCEPTED)

    def in_flight(self, ids: Iterable[str]) -> None:
        """Note what was on its way when the process ended: it may arrive once more."""
        for event_id in ids:
            self._doubt(number_of(event_id))

    def look(self) -> None:
        """Read what the ledger says since the last look."""
        if not self._ledger.exists():
            return
        with self._ledger.open("rb") as ledger:
            while True:
                ledger.seek(self._read)
                block = ledger.read(_BLOCK)
                whole = block[: block.rfind(b"\n") + 1]
                if not whole:
                    return
                self._read += len(whole)
                for line in self._decoder.decode_lines(whole):
                    self._arrived(line)

    def settle(self, dead: Iterable[str], queued: int) -> Balance:
        """Return the balance, with the ids of dead letters and the number that waits."""
        self.look()
        buried = {number_of(event_id) for event_id in dead}
        found: dict[str, list[str]] = {"corrupt": self._corrupt, "phantom": list(self._alien)}
        counts: Counter[str] = Counter(phantom=len(self._alien))

        def count(what: str, number: int) -> None:
            counts[what] += 1
            examples = found.setdefault(what, [])
            if len(examples) < _SHOWN:
                examples.append(f"{'/'.join(PREFIXES[number % CODES])}-{number}")

        for number, flags in enumerate(self._flags):
            if not flags:
                continue
            self._judge(number, flags, number in buried, counts, count)
        shown = {what: ids[:_SHOWN] for what, ids in found.items() if ids and what in _TROUBLE}
        return Balance(
            accepted=counts["accepted"], delivered=counts["delivered"], dead=len(buried), queued=queued,
            lost=counts["lost"], phantom=counts["phantom"], corrupt=self.corrupt,
            duplicated_out=counts["duplicated_out"], copies=counts["copies"], copies_bound=self.in_doubt,
            unexplained=counts["unexplained"], two_ids=counts["two_ids"],
            dead_without_cause=counts["dead_without_cause"], delivered_and_dead=counts["delivered_and_dead"],
            disowned=counts["disowned"],
            late=self.late, examples=shown,
        )  # fmt: skip

    def _judge(self, number: int, flags: int, is_dead: bool, counts: Counter[str], count: Any) -> None:
        copies = self._copies[number]
        is_accepted = bool(flags & ACCEPTED)
        counts["accepted"] += is_accepted
        counts["delivered"] += bool(copies)
        if is_accepted and not copies and not is_dead:
            count("lost", number)
        if copies and (not flags & (ACCEPTED | UNKNOWN) or number % CODES in NEVER):
            if flags & DISOWNED and number % CODES not in NEVER:
                counts["disowned"] += 1
            else:
                count("phantom", number)
        if copies > 1:
            count("duplicated_out", number)
            counts["copies"] += copies - 1
            if copies - 1 > self._doubts[number]:
                count("unexplained", number)
        if flags & BROWSER_ID and flags & SERVER_ID:
            count("two_ids", number)
        if is_dead and not flags & REFUSED:
            count("dead_without_cause", number)
        if is_dead and copies and not self._doubts[number]:
            count("delivered_and_dead", number)

    def _arrived(self, line: Line) -> None:
        number = number_of(line.event_id)
        if number < 0 or not self._has(number):
            self._alien += [line.event_id] if len(self._alien) < 1_000 else []
            return
        if not line.kept:
            self._set(number, REFUSED)
            return
        self.arrived += 1
        self.late += line.late
        if not line.sound:
            self.corrupt += 1
            self._corrupt += [line.event_id] if len(self._corrupt) < _SHOWN else []
        if number % CODES in ORDERS:
            self._set(number, SERVER_ID if line.event_id.startswith("shop-") else BROWSER_ID)
        self._copies[number] = min(_MOST, self._copies[number] + 1)
        if line.doubtful:
            self._doubt(number)

    def _doubt(self, number: int) -> None:
        if self._has(number):
            self.in_doubt += 1
            self._doubts[number] = min(_MOST, self._doubts[number] + 1)

    def _has(self, number: int) -> bool:
        return 0 <= number < len(self._flags) and self._flags[number] != 0

    def _set(self, number: int, flag: int) -> None:
        while number >= len(self._flags):
            for array in (self._flags, self._copies, self._doubts):
                array.extend(bytes(_GROW))
        self._flags[number] |= flag


_TROUBLE = frozenset({
    "lost", "phantom", "corrupt", "unexplained", "two_ids", "dead_without_cause", "delivered_and_dead",
})  # fmt: skip
