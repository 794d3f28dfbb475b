"""
One's own proxies: which addresses are trusted to speak for another, and whose address a hit really has.

A header that a proxy writes (``X-Forwarded-For``, a CDN's country) counts only when the connection's peer is trusted.
"""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAX_FORWARDED = 100
#: Some load balancers write an address with its port.
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


class TrustedProxies:
    """
    The proxies of ``[server] trusted_proxies``.

    Args:
        ranges: CIDR texts or single addresses, as :class:`gateway.Context` has them.

    Raises:
        ValueError: One of them is no address and no range.
    """

    def __init__(self, ranges: Sequence[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(text, strict=False) for text in ranges)
        #: Whether an address is one of the proxies; remembered, for there are few.
        self.trusts = lru_cache(1_024)(lambda address: is_trusted(address, self._networks))

    def client(self, peer: str | None, forwarded: str) -> str | None:
        """Return whose address a connection of ``peer`` with this ``X-Forwarded-For`` ("" for none) has."""
        if not forwarded or peer is None or not self.trusts(peer):
            return peer
        return forwarded_client(peer, forwarded, self._networks)


def forwarded_client(peer: str | None, forwarded: str, trusted: Sequence[Network]) -> str | None:
    """
    Return the client's address: the peer, or the last address of ``X-Forwarded-For`` that no trusted proxy wrote for
    another.

    The header counts only when the peer is trusted; it is read from the right, past trusted proxies.
    """
    client = peer
    if peer is None or not is_trusted(peer, trusted):
        return peer
    for address in reversed([part.strip() for part in forwarded.split(",")][-_MAX_FORWARDED:]):
        if not address:
            continue
        client = address
        if not is_trusted(address, trusted):
            break
    return client


def is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    """Whether the address, with or without a port, lies in one of the networks; False for what is no address."""
    ported = _WITH_PORT.fullmatch(address)
    try:
        found = ipaddress.ip_address(address if ported is None else ported[1] or ported[2])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return any(found in network for network in trusted)
