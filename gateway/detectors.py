"""
What ids must not do: one explicit id told by many clients, which is a page that some cache keeps with its id in it.

Fed once an event, at the door, in memory: clients are only ever held as hashes under a key that ends with the process.
"""

from collections.abc import Callable

from gateway.event import Event, Struct

#: So many different clients of one id are no accident.
CLIENTS = 3
#: An id is watched for one to two windows, in seconds; each window watches so many ids, and keeps so many examples.
WINDOW_S, MOST_IDS, MOST_EXAMPLES = 3_600.0, 50_000, 50
#: Clients of one id that are told apart; beyond it the number is at least this.
_MOST_CLIENTS = 100
_LONGEST_ID = 100


class SharedId(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One id that many clients told; times are Unix s, ``clients`` at least so many. The id is hostile text."""

    source: str
    event: str
    event_id: str
    clients: int
    first_at: float
    last_at: float


class Detectors:
    """
    Watches explicit ids.

    ``clock`` gives Unix s. Memory is bounded: two generations of :data:`MOST_IDS` ids, :data:`MOST_EXAMPLES` examples.
    """

    def __init__(self, clock: Callable[[], float], window_s: float = WINDOW_S, most_ids: int = MOST_IDS) -> None:
        self._clock = clock
        self._window_s = window_s
        self._most_ids = most_ids
        self._started = clock()
        # hash of (source, name, id) → hash of its client, or the hashes of several
        self._ids: dict[int, int | set[int]] = {}
        self._before: dict[int, int | set[int]] = {}
        self._examples: dict[tuple[str, str, str], SharedId] = {}

    def note(self, source: str, event: Event) -> None:
        """Take notice of one event; only explicit ids with a known client count. Costs well under a microsecond."""
        event_id, client = event.id, event.client
        if event_id is None:
            return
        told: object = event.client_id
        if not told:
            if client.ip is None or client.user_agent is None:
                return
            told = (client.ip, client.user_agent)
        # Python keys its hashes of texts anew in every process: they lead back to nobody
        key = hash((event_id, event.name, source))
        who = hash(told)
        known = self._ids.get(key)
        if known is None:
            if len(self._ids) >= self._most_ids:
                self._turn(self._clock())
            known = self._before.pop(key, None)
            self._ids[key] = who if known is None else known
        if known is None or known == who:
            return
        self._several(key, known, who, source, event)

    def shared(self) -> list[SharedId]:
        """Return ids that several clients told lately, those of most clients first."""
        now = self._clock()
        if now - self._started >= self._window_s:
            self._turn(now)
        return sorted(self._examples.values(), key=lambda one: (-one.clients, -one.last_at))

    def _several(self, key: int, known: int | set[int], who: int, source: str, event: Event) -> None:
        clients = known if isinstance(known, set) else {known}
        if len(clients) < _MOST_CLIENTS:
            clients.add(who)
        self._ids[key] = clients
        if len(clients) < CLIENTS:
            return
        now = self._clock()
        if now - self._started >= self._window_s:
            self._turn(now)
            self._ids[key] = clients
        place = (source, event.name, (event.id or "")[:_LONGEST_ID])
        before = self._examples.pop(place, None)
        if len(self._examples) >= MOST_EXAMPLES:
            del self._examples[next(iter(self._examples))]
        self._examples[place] = SharedId(
            source=source, event=place[1], event_id=place[2], clients=len(clients),
            first_at=now if before is None else before.first_at, last_at=now,
        )  # fmt: skip

    def _turn(self, now: float) -> None:
        """Begin a new generation; what only the one before the last knew is forgotten."""
        stale = now - self._started >= 2 * self._window_s
        self._before = {} if stale else self._ids
        self._ids = {}
        self._started = now
        oldest = now - 24 * self._window_s
        self._examples = {place: one for place, one in self._examples.items() if one.last_at >= oldest}
