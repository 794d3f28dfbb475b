"""What OAuth 2.0 hands out: codes for once, access tokens that expire, refresh tokens, PKCE (RFC 6749, RFC 7636)."""

import base64
import hashlib
import secrets
from collections.abc import Callable
from typing import Final

import msgspec

CODE_S: Final = 600
"""Life of a code, in seconds (RFC 6749, 4.1.2, advises at most ten minutes)."""


class App(msgspec.Struct, kw_only=True, frozen=True):
    """An app that may ask."""

    client_id: str
    secret: str


class Granted(msgspec.Struct, kw_only=True, frozen=True):
    """One access token with its refresh token; ``scope`` is separated by spaces, times are Unix s."""

    access_token: str
    refresh_token: str
    client_id: str
    scope: str
    expires_at: float
    refresh_expires_at: float


class GrantRefused(ValueError):
    """The code or refresh token is unknown, used up, expired, or another app's; the text says which."""


class _Asked(msgspec.Struct, kw_only=True, frozen=True):
    client_id: str
    redirect_uri: str
    scope: str
    challenge: str
    expires_at: float


class Grants:
    """
    The tokens of one vendor.

    Args:
        clock: Unix seconds now.
        apps: Who may ask.
        prefix: Of every token.
        is_rotating: Whether a refresh gives a new refresh token and ends the old one.
        refresh_s: Life of a refresh token, in seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        apps: tuple[App, ...],
        prefix: str,
        is_rotating: bool,
        refresh_s: int = 5_184_000,
    ) -> None:
        self.apps = {app.client_id: app.secret for app in apps}
        self.access_s = 3600
        self.refresh_s = refresh_s
        self._clock = clock
        self._prefix = prefix
        self._is_rotating = is_rotating
        self._codes: dict[str, _Asked] = {}
        self._access: dict[str, Granted] = {}
        self._refresh: dict[str, Granted] = {}

    def clear(self) -> None:
        """Make every code and token worthless."""
        self._codes.clear()
        self._access.clear()
        self._refresh.clear()

    def expire(self) -> None:
        """Make every access token worthless; refresh tokens still work."""
        self._access.clear()

    def allow(self, client_id: str, redirect_uri: str, scope: str, challenge: str = "") -> str:
        """Return a code for this app."""
        code = self._new("code")
        expires_at = self._clock() + CODE_S
        self._codes[code] = _Asked(
            client_id=client_id, redirect_uri=redirect_uri, scope=scope, challenge=challenge, expires_at=expires_at
        )
        return code

    def exchange(self, client_id: str, code: str, redirect_uri: str, verifier: str = "") -> Granted:
        """
        Return tokens for a code, once.

        Raises:
            GrantRefused: The code, the address or the verifier is not what it should be.
        """
        asked = self._codes.pop(code, None)
        if asked is None or asked.expires_at <= self._clock() or asked.client_id != client_id:
            raise GrantRefused("The authorization code is invalid or has expired.")
        if asked.redirect_uri != redirect_uri:
            raise GrantRefused("redirect_uri is not the one of the authorization.")
        if asked.challenge and asked.challenge != _challenge(verifier):
            raise GrantRefused("code_verifier does not fit the code_challenge.")
        return self._grant(client_id, asked.scope, self._new("refresh"))

    def refresh(self, client_id: str, refresh_token: str) -> Granted:
        """
        Return new tokens for a refresh token.

        Raises:
            GrantRefused: It is unknown, used up or expired.
        """
        old = self._refresh.get(refresh_token)
        if old is None or old.client_id != client_id or old.refresh_expires_at <= self._clock():
            raise GrantRefused("The refresh token is invalid, has been used or has expired.")
        if self._is_rotating:
            del self._refresh[refresh_token]
        return self._grant(client_id, old.scope, self._new("refresh") if self._is_rotating else refresh_token)

    def access(self, token: str) -> Granted | None:
        """Return what an access token opens, None when it is unknown or has expired."""
        found = self._access.get(token)
        return found if found is not None and self._clock() < found.expires_at else None

    def revoke(self, token: str) -> None:
        """Make one token worthless, with a refresh token the access tokens that it gave."""
        self._access.pop(token, None)
        if self._refresh.pop(token, None) is not None:
            for access in [one for one, granted in self._access.items() if granted.refresh_token == token]:
                del self._access[access]

    def _grant(self, client_id: str, scope: str, refresh_token: str) -> Granted:
        now = self._clock()
        granted = Granted(
            access_token=self._new("access"),
            refresh_token=refresh_token,
            client_id=client_id,
            scope=scope,
            expires_at=now + self.access_s,
            refresh_expires_at=now + self.refresh_s,
        )
        self._access[granted.access_token] = self._refresh[refresh_token] = granted
        return granted

    def _new(self, kind: str) -> str:
        return f"{self._prefix}_{kind}_{secrets.token_urlsafe(24)}"


def _challenge(verifier: str) -> str:
    """Return the S256 challenge of a verifier."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
