"""
Calls to a vendor's API as audience plugins make them: paced, signed in, with what passes told from what must be mended.
"""

import hmac
import ipaddress
import re
from collections.abc import Mapping
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec

from gateway.audience import AudienceError
from gateway.event import Struct
from gateway.hit import Secret
from gateway.interfaces import Answer, Context, HttpClient, Unreachable
from gateway.pacing import Pace, retry_after_s

T = TypeVar("T")
#: Answers 429 in a row to one call after which the engine is told to come back later.
_REFUSALS = 8
#: The longest pause after failures in a row, in seconds; the first is one second.
_LAST_PAUSE_S = 60.0
#: Bytes of an answer that are read: a page of 250 audiences or 100 profiles is far smaller.
_MAX_BYTES = 8_388_608
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
#: The only IPv6 addresses that belong to hosts of the Internet. Source: IANA, IPv6 address space.
_UNICAST = ipaddress.IPv6Network("2000::/3")
_NUMERIC = re.compile(r"[0-9]*|0x[0-9a-f]*")


class Credential(Protocol):
    """What opens the vendor's door: :class:`gateway.oauth.OAuth` or :class:`FixedToken`."""

    async def bearer(self, refused: str = "") -> str:
        """Return a token; another one than ``refused``, which the vendor did not take, where there can be one."""
        ...


class FixedToken:
    """A token or key of the configuration; there is no other."""

    def __init__(self, token: Secret) -> None:
        self._token = token

    async def bearer(self, refused: str = "") -> str:  # noqa: ARG002 - there is no other
        """Return the token."""
        return self._token.value.strip()


class Call(Struct, frozen=True, kw_only=True):
    """One request; ``writes``: an unclear end may have changed something."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | None = None

    @property
    def writes(self) -> bool:
        """Whether it changes something at the vendor."""
        return self.method != "GET"


class Calls:
    """
    The calls of one plugin object.

    Args:
        vendor: Its name, for messages.
        context: For the clock and the outgoing client.
        credential: Where the token comes from.
        scheme: What stands before the token in ``Authorization``, such as ``Bearer``.
        timeout_s: For one call.
        max_wait_s: The longest wait for the rate limit within one call; beyond it AudienceError names the rest.
    """

    def __init__(
        self,
        vendor: str,
        context: Context,
        credential: Credential,
        scheme: str = "Bearer",
        *,
        timeout_s: float = 30.0,
        max_wait_s: float = 120.0,
    ) -> None:
        self.vendor = vendor
        self._context, self._credential, self._scheme = context, credential, scheme
        self._timeout_s, self._max_wait_s = timeout_s, max_wait_s
        self._pause_s = 1.0

    async def send(self, pace: Pace, call: Call) -> Answer:
        """
        Send a request when the rate limit allows it; a refused access token is refreshed once, a 429 waited for.

        Returns:
            An answer of the kinds 2xx and 4xx, for the plugin to judge; never 429.

        Raises:
            AudienceError: No answer, 5xx, or a longer wait than ``max_wait_s``: with ``retry_after_s`` above 0.
        """
        token = await self._credential.bearer()
        answer = await self._limited(pace, call, token)
        if answer.status == 401:
            fresh = await self._credential.bearer(token)
            if not hmac.compare_digest(fresh.encode(), token.encode()):
                answer = await self._limited(pace, call, fresh)
        if answer.status >= 500:
            raise self._failed(call, f"{self.vendor} is in trouble ({answer.status})", answer)
        if 300 <= answer.status < 400:
            raise AudienceError(f"The address redirects ({answer.status}), which is not followed: check base_url.")
        return answer

    async def _limited(self, pace: Pace, call: Call, token: str) -> Answer:
        for _ in range(_REFUSALS):
            await pace.turn(self._max_wait_s)
            answer = await self._sent(call, token)
            pace.learn(answer.status, answer.headers)
            if answer.status != 429:
                return answer
        raise AudienceError(
            f"{self.vendor} refused {_REFUSALS} times that its rate limit was kept (429): another program uses the "
            "same account's quota. It goes on by itself; lower the configured calls a minute if it stays so.",
            retry_after_s=max(pace.wait_s(), 1.0),
        )

    async def _sent(self, call: Call, token: str) -> Answer:
        http: HttpClient = self._context.http
        try:
            return await http.request(
                call.method,
                call.url,
                headers={**call.headers, "authorization": f"{self._scheme} {token}"},
                content=call.content,
                timeout_s=self._timeout_s,
                max_bytes=_MAX_BYTES,
            )
        except Unreachable as error:
            raise AudienceError(
                f"{self.vendor} gave no answer: {error}. It is tried again by itself; if it stays so, check base_url "
                "and the network.",
                retry_after_s=self._pause(),
                ambiguous=error.sent and call.writes,
            ) from None

    def decoded(self, call: Call, answer: Answer, kind: type[T]) -> T:
        """
        Return the answer's JSON as ``kind``.

        Raises:
            AudienceError: It is something else, cut short, or a page of a proxy; nothing of it is quoted.
        """
        try:
            found = msgspec.json.decode(answer.body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # not chained: the decoder's message may quote a person's data
            raise self._failed(call, f"{self.vendor}'s answer ({answer.status}) cannot be read", answer) from None
        self._pause_s = 1.0
        return found

    def _failed(self, call: Call, what: str, answer: Answer) -> AudienceError:
        after = retry_after_s(answer.headers, self._context.clock())
        return AudienceError(
            f"{what}: it is tried again by itself.", retry_after_s=after or self._pause(), ambiguous=call.writes
        )

    def _pause(self) -> float:
        pause, self._pause_s = self._pause_s, min(self._pause_s * 2, _LAST_PAUSE_S)
        return pause


def check_url(name: str, url: str) -> None:
    """
    Refuse an address that is not https, or http to this machine, or holds more than scheme, host, port and path; also
    the address of a private network, and one written so that only some programs read it as an address.

    A name that leads to a private address passes: there the certificate, which is always verified, is the guard.

    Raises:
        ValueError: The message names the option.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{name} is not a URL.") from None
    if not host or parts.scheme not in ("https", "http") or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{name} is not a URL.")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise ValueError(f"{name} must use https: http is allowed for 127.0.0.1, ::1 and localhost only.")
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ValueError(f"{name} must not hold credentials, a query or a fragment.")
    if "\\" in url or "%" in parts.netloc or not _is_public(host):
        raise ValueError(f"{name} must name a public host, or this machine as 127.0.0.1, ::1 or localhost.")


def _is_public(host: str) -> bool:
    """Whether a host is a name, a public address in its usual writing, or one of the names of this machine."""
    if host in _LOOPBACK:
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        # 0x7f.1, 0177.1 and 2130706433 are addresses to the C library; no name ends in such a label
        return _NUMERIC.fullmatch(host.rstrip(".").rpartition(".")[2]) is None
    if isinstance(found, ipaddress.IPv6Address) and (found not in _UNICAST or found.sixtofour or found.teredo):
        return False
    return found.is_global and not found.is_multicast
