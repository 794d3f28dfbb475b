"""How often a wrong password may be tried: by one address, and by all together."""

import ipaddress
from collections import OrderedDict, deque
from collections.abc import Callable

WINDOW_S = 60.0
#: Wrong passwords of one address in a window; then it waits, with the right one too.
PER_ADDRESS = 5
#: Of all addresses together; those that knew a password lately are served on.
TOGETHER = 60
_KNOWN_S = 86_400.0
_MOST = 10_000


class Throttle:
    """Counts wrong passwords; ``clock`` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()
        self._all: deque[float] = deque(maxlen=TOGETHER)
        self._known: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, address: str | None) -> float:
        """Return how long an address must wait before its next try, 0: not at all."""
        now, network = self._clock(), _network(address)
        own = self._wrong.get(network)
        waits = 0.0
        if own is not None and len(own) >= PER_ADDRESS:
            waits = WINDOW_S - (now - own[0])
        is_known = now - self._known.get(network, -_KNOWN_S) < _KNOWN_S
        if len(self._all) >= TOGETHER and not is_known:
            waits = max(waits, WINDOW_S - (now - self._all[0]))
        return max(0.0, waits)

    def failed(self, address: str | None) -> None:
        """Count a wrong password."""
        now, network = self._clock(), _network(address)
        self._wrong.setdefault(network, deque(maxlen=PER_ADDRESS)).append(now)
        self._wrong.move_to_end(network)
        self._all.append(now)
        while len(self._wrong) > _MOST:
            self._wrong.popitem(last=False)

    def passed(self, address: str | None) -> None:
        """Remember that an address knew a password."""
        network = _network(address)
        self._known[network] = self._clock()
        self._known.move_to_end(network)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)

    def clear(self) -> None:
        """Forget all tries."""
        self._wrong.clear()
        self._all.clear()


def _network(address: str | None) -> str:
    """Return what one party holds: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return "-"
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(getattr(found, "ipv4_mapped", None) or found)
