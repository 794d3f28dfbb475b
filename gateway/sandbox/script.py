"""Scripted faults of the calls for lists, audiences and tokens (those of events have a script of their own)."""

from typing import Final, Literal

import msgspec

Kind = Literal["status", "answer", "cut_before", "cut_after", "delay", "end_early", "empty_page", "html", "truncated"]
Vendor = Literal["pinterest", "klaviyo"]

DONE: Final = frozenset({"answer", "cut_after", "end_early", "empty_page", "html", "truncated"})
"""Kinds that let the call do its work first."""


class CallFault(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """
    One thing that goes wrong.

    Args:
        kind: ``status``: nothing is done, the answer is ``status``. ``answer``: it is done, and the answer is
            ``status`` all the same. ``cut_before``, ``cut_after``: the connection breaks, with nothing or
            everything done.
            ``delay``: as usual, but late. ``end_early``: a page that says it is the last. ``empty_page``: the same
            without its items. ``html``, ``truncated``: a damaged body.
        vendor: Calls of this one only.
        method: Calls with this method only.
        path: Calls whose path contains this only.
        skip: So many calls that fit go unharmed first.
        times: So many calls are hit; 0: all from then on.
        status: Of ``status`` and ``answer``; an error.
        retry_after: A ``Retry-After`` header with the error: seconds or an HTTP date.
        delay_s: Seconds to wait before anything else, with any kind.
    """

    kind: Kind
    vendor: Vendor | None = None
    method: str = ""
    path: str = ""
    skip: int = 0
    times: int = 1
    status: int = 503
    retry_after: int | str | None = None
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        if not 400 <= self.status <= 599:
            raise ValueError("status must be between 400 and 599")
        if self.skip < 0 or self.times < 0 or self.delay_s < 0:
            raise ValueError("skip, times and delay_s must not be negative")

    def fits(self, vendor: str, method: str, path: str) -> bool:
        """Whether it is about this call."""
        return self.vendor in {None, vendor} and self.method in {"", method} and self.path in path

    @property
    def headers(self) -> dict[str, str]:
        """What the error carries beside the usual headers."""
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}


class Script:
    """What is going to go wrong, in the order in which it is tried."""

    def __init__(self) -> None:
        self._lines: list[tuple[CallFault, list[int]]] = []

    @property
    def waiting(self) -> int:
        """How many faults are not used up."""
        return len(self._lines)

    def add(self, *faults: CallFault) -> None:
        """Append faults."""
        self._lines.extend((fault, [fault.skip, fault.times]) for fault in faults)

    def clear(self) -> None:
        """Drop every fault."""
        self._lines.clear()

    def take(self, vendor: str, method: str, path: str) -> CallFault | None:
        """Return the fault of this call, the first that applies; None when all goes well."""
        for line in self._lines:
            fault, left = line
            if not fault.fits(vendor, method, path):
                continue
            if left[0]:
                left[0] -= 1
                continue
            left[1] -= 1
            if not left[1]:
                self._lines.remove(line)
            return fault
        return None
