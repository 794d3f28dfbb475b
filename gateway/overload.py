"""
The budget of the public listener: what requests under way take together, and who is refused first when it runs out.

Four things are bounded: requests under way, the bytes of their bodies, the events that wait on disk, and the last room
on the disk before the store itself refuses everything. The fuller one of them is, the more is refused, with 503 and a
Retry-After that differs from one to the next:

===========  ==================================================================================
beyond       are refused
===========  ==================================================================================
50 %         page events of public sources, once they are known to be nothing else
75 %         the same before they are decoded, as far as the look of the body tells
90 %         everything of public sources, at the door
100 %        everything
===========  ==================================================================================

So the last tenth is always left to server sources (signed webhooks, own servers), and the last two fifths of the public
part to conversions. Nothing waits for room: who does not fit is told so at once.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence

from gateway.errors import Unavailable
from gateway.event import PAGE_EVENTS, Event, Normalized, Skipped, Struct
from gateway.hit import Hit, Source

#: Shares of each budget; beyond the first page events go, and so on.
SHARES = (0.5, 0.75, 0.9, 1.0)
PAGES, LIKELY_PAGES, PUBLIC, ALL = range(4)
#: Retry-After is between one and so many seconds: who is refused together should not return together.
RETRY_S = 5
#: The same while events that wait fill the store: that lasts longer.
DISK_RETRY_S = 60
#: So often what waits on disk, and the room there, is asked for.
_ASK_EVERY_S = 0.5
#: A body longer than this is decoded to know what it is.
_SCREENED_BYTES = 65_536
#: What a conversion's name has in it, in whatever system it was named; more only costs work.
_CONVERSION_WORDS = (
    b"cart", b"checkout", b"contact", b"customi", b"install", b"lead", b"location", b"open", b"order", b"payment",
    b"purchase", b"regist", b"schedule", b"sign", b"submi", b"subscri", b"transaction", b"trial", b"wish",
)  # fmt: skip
_PAGE_WORDS = (b"view", b"visit", b"search", b"watch")
_SAID = {
    "requests": "More hits are under way than the gateway takes.",
    "bytes": "The bodies of the hits under way take more memory than they may.",
    "waiting": "More events wait for delivery than the store may hold.",
    "disk": "The disk is nearly full.",
}


class Overloaded(Unavailable):
    """
    There is no room; nothing was accepted, or nobody can say whether it was (``is_certain`` is False).

    Args:
        why: ``requests``, ``bytes``, ``waiting`` (events on disk), ``disk`` (room there), ``commit`` (the disk
            does not keep up) or ``time``: a label of ``gateway_shed_total``.
        message: One sentence for a person.
        most_s: The Retry-After is between one second and this.
    """

    def __init__(self, why: str, message: str, *, most_s: int = RETRY_S) -> None:
        retry_after_s = random.randint(1, most_s)  # noqa: S311 - no secret
        super().__init__("overloaded", message, retry_after_s=retry_after_s)
        self.why = why
        self.is_certain = why != "time"


class Limits(Struct, frozen=True, kw_only=True):
    """The budget: ``requests`` and ``body_bytes`` under way, ``waiting`` events on disk."""

    requests: int = 1_000
    body_bytes: int = 64 << 20
    waiting: int = 10_000_000


class Share:
    """What one request has of the budget; it must :meth:`leave` at its end, whatever the end is."""

    __slots__ = ("_body_bytes", "_budget", "_mark")

    def __init__(self, budget: "Budget", mark: int) -> None:
        self._budget = budget
        self._mark = mark
        self._body_bytes = 0

    def grow(self, size: int) -> None:
        """
        Take so many bytes of body that have arrived.

        What was announced is not reserved: announcing costs a sender nothing.

        Raises:
            Overloaded: There is no room for them.
        """
        budget = self._budget
        total = budget.body_bytes + size
        if total > budget.bytes_at[self._mark]:
            raise refusal("bytes")
        budget.body_bytes = total
        self._body_bytes += size

    def leave(self) -> None:
        """Give everything back."""
        budget = self._budget
        budget.requests -= 1
        budget.body_bytes -= self._body_bytes
        self._body_bytes = 0


class Budget:
    """
    Counts, on the event loop.

    Args:
        limits: See :meth:`limit`.
        waiting: Returns how many events wait on disk; asked twice a second, as ``room`` is.
        room: See :attr:`gateway.outbox.Outbox.room`. At 0.0 the store refuses by itself, and says why.
        clock: Monotonic seconds.

    Attributes:
        requests: Under way.
        body_bytes: Bytes of their bodies.
    """

    def __init__(
        self,
        limits: Limits,
        waiting: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        room: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.requests = 0
        self.body_bytes = 0
        self._ask = waiting
        self._clock = clock
        self._waiting = 0
        self._room = room
        #: Share of the disk's last room that is taken.
        self._disk = 0.0
        self._ask_at = float("-inf")
        self.limit(limits)

    def limit(self, limits: Limits) -> None:
        """Set the limits; what is under way keeps what it has."""
        self._requests_at = [max(1, int(limits.requests * share)) for share in SHARES]
        #: What the bodies may take at each mark.
        self.bytes_at = [int(limits.body_bytes * share) for share in SHARES]
        self._waiting_at = [int(limits.waiting * share) for share in SHARES]

    def enter(self, source: Source) -> Share:
        """
        Let a request in.

        Raises:
            Overloaded: There is no room for one of this source.
        """
        mark = PUBLIC if not source.secrets else ALL
        now = self._clock()
        if now >= self._ask_at:
            self._ask_at = now + _ASK_EVERY_S
            self._waiting = self._ask()
            room = self._room()
            self._disk = 1.0 - room if room else 0.0
        if self.requests >= self._requests_at[mark]:
            raise refusal("requests")
        if self.body_bytes >= self.bytes_at[mark]:
            raise refusal("bytes")
        if self._waiting >= self._waiting_at[mark]:
            raise refusal("waiting")
        if self._disk >= SHARES[mark]:
            raise refusal("disk")
        self.requests += 1
        return Share(self, mark)

    def screen(self, hit: Hit) -> None:
        """
        Refuse what seems to be a mere look at a page, when it must not even cost its decoding.

        Raises:
            Overloaded: It does.
        """
        if self._is_calm(LIKELY_PAGES):
            return
        if not hit.source.secrets and is_likely_page(hit.body, hit.source.event_names):
            raise refusal(self._fullest(LIKELY_PAGES))

    def judge(self, source: Source, items: Sequence[Normalized]) -> None:
        """
        Refuse page events of a public source when room must be kept for others.

        Raises:
            Overloaded: The hit brought nothing else.
        """
        if self._is_calm(PAGES):
            return
        if not source.secrets and is_page(items, source.event_names):
            raise refusal(self._fullest(PAGES))

    def _is_calm(self, mark: int) -> bool:
        return (
            self.requests <= self._requests_at[mark]
            and self.body_bytes <= self.bytes_at[mark]
            and self._waiting <= self._waiting_at[mark]
            and self._disk <= SHARES[mark]
        )

    def _fullest(self, mark: int) -> str:
        if self.requests > self._requests_at[mark]:
            return "requests"
        if self.body_bytes > self.bytes_at[mark]:
            return "bytes"
        return "waiting" if self._waiting > self._waiting_at[mark] else "disk"


def refusal(why: str) -> Overloaded:
    """Return the error of a budget that is used up."""
    return Overloaded(why, _SAID[why], most_s=DISK_RETRY_S if why in ("waiting", "disk") else RETRY_S)


def is_page(items: Sequence[Normalized], event_names: Mapping[str, str]) -> bool:
    """Whether there are page events in it, or ones that are not wanted, and nothing that counts for more."""
    found = False
    for item in items:
        if isinstance(item, Event):
            name = event_names.get(item.source_name, item.name)
            if name and name not in PAGE_EVENTS:
                return False
            found = True
        elif isinstance(item, Skipped):
            found = True
    return found


def is_likely_page(body: bytes, event_names: Mapping[str, str]) -> bool:
    """
    Whether the body has words of looking in it and none of converting.

    It is searched as text, not read: a conversion taken for a page event is one whose name has no usual word in it
    and is not in ``event_names``. One that is not sure is decoded.
    """
    if not body or len(body) > _SCREENED_BYTES:
        return False
    text = body.lower()
    if any(word in text for word in _CONVERSION_WORDS) or not any(word in text for word in _PAGE_WORDS):
        return False
    return not any(
        name.lower().encode() in text for name, canonical in event_names.items() if canonical not in PAGE_EVENTS
    )
