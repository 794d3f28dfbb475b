"""IP address and user agent: what is sent in clear."""

import ipaddress
import re
from functools import lru_cache
from typing import Final

from gateway.identifiers.text import Unusable, is_placeholder, trimmed

MAX_USER_AGENT: Final = 1024
"""Characters of a user agent that are sent."""
_LINE_BREAKS: Final = re.compile("[\t-\r\x1c-\x1f\x85\u2028\u2029]+")
_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4: Final = re.compile(rf"({_OCTET})\.{_OCTET}\.{_OCTET}\.{_OCTET}")
#: Only under these is any address special (IANA IPv4 special-purpose registry, and multicast and above).
_SPECIAL_FIRST_OCTETS: Final = frozenset(
    {"0", "10", "100", "127", "169", "172", "192", "198", "203", *map(str, range(224, 256))}
)
_BRACKETED_IP: Final = re.compile(r"\[([^\]]*)\](?::[0-9]{1,5})?")
_IPV4_PORT: Final = re.compile(r"([0-9.]+):[0-9]{1,5}")


@lru_cache(4_096)  # a shopper's hits come close together; an address alone is in memory for as long anyway
def ip(text: str) -> str:
    """``client_ip_address`` (not hashed): a public address, compressed, without port; mapped IPv4 as IPv4.

    Reasons: "not_an_ip", "not_global".
    """
    if (octets := _IPV4.fullmatch(text)) and octets[1] not in _SPECIAL_FIRST_OCTETS:
        return text
    text = trimmed(text).strip('"')
    if wrapped := _BRACKETED_IP.fullmatch(text) or _IPV4_PORT.fullmatch(text):
        text = wrapped[1]
    if "%" in text:  # a zone: the address means something on one machine only
        raise Unusable("not_global")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise Unusable("placeholder" if is_placeholder(text) else "not_an_ip") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if not address.is_global or address.is_multicast:
        raise Unusable("not_global")
    return str(address)


def user_agent(text: str) -> str:
    """``client_user_agent`` (not hashed): trimmed, without control characters, its first 1,024 characters."""
    text = text[:MAX_USER_AGENT]
    if not text.isprintable():
        text = _LINE_BREAKS.sub(" ", text)
    text = trimmed(text, MAX_USER_AGENT)[:MAX_USER_AGENT].rstrip()  # NFC can be longer
    if is_placeholder(text):
        raise Unusable("placeholder")
    return text
