"""
Signing in at a vendor by OAuth 2: the authorization code flow, with PKCE where the vendor has it, and fresh tokens.

Knows no vendor: a plugin says where and with which scopes (:class:`OAuthApp`) and offers the :class:`OAuth` as its
``login``; the operator's commands drive it: :meth:`OAuth.authorize_url`, then :meth:`OAuth.complete` in the callback.
"""

import asyncio
import base64
import hashlib
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from gateway.audience import AudienceError
from gateway.event import Struct
from gateway.hit import Secret
from gateway.interfaces import Answer, Context, HttpClient, Unreachable
from gateway.pacing import retry_after_s
from gateway.tokens import TokenFile, Tokens

#: Seconds before its end at which an access token is replaced.
MARGIN_S = 120.0
#: When a token endpoint in trouble may be asked again; never 0, which says of a scan that it must start anew.
_AGAIN_S = 5.0


class OAuthApp(Struct, frozen=True, kw_only=True):
    """
    An app registered at a vendor.

    Args:
        vendor: Its name, for messages.
        where: The table of the configuration, for messages, such as ``[audience_sinks.pinterest]``.
        client_id: The app's id.
        client_secret: Its secret, sent by HTTP Basic to ``token_url`` only.
        authorize_url: Where the operator's browser goes.
        token_url: Where codes and refresh tokens are exchanged.
        scope: As the vendor writes it: comma- or space-separated.
        pkce: Whether the vendor takes a code challenge (S256, RFC 7636).
        extra: Further fields of each exchange.
    """

    vendor: str
    where: str
    client_id: str
    client_secret: Secret
    authorize_url: str
    token_url: str
    scope: str
    pkce: bool = False
    extra: dict[str, str] = msgspec.field(default_factory=dict)


class _Granted(Struct, frozen=True, kw_only=True):
    """A token endpoint's answer (RFC 6749, 5.1, and Pinterest's and Klaviyo's additions)."""

    access_token: str
    expires_in: float = 0.0
    refresh_token: str | None = None
    refresh_token_expires_in: float = 0.0
    scope: str | None = None


def new_verifier() -> str:
    """Return a random text for ``state`` or as PKCE verifier: 43 characters, 256 bits."""
    return secrets.token_urlsafe(32)


class OAuth:
    """
    One sign-in: its tokens in a file, refreshed before they end.

    Args:
        app: The vendor's and the app's side.
        path: The file of the tokens.
        context: For the clock and the outgoing client.
        timeout_s: For one call.
    """

    def __init__(self, app: OAuthApp, path: Path, context: Context, timeout_s: float = 30.0) -> None:
        self.app = app
        self.file = TokenFile(path)
        self._context = context
        self._timeout_s = timeout_s
        self._refreshing = asyncio.Lock()

    def authorize_url(self, redirect_uri: str, state: str, verifier: str = "") -> str:
        """
        Return the address to open in a browser.

        Args:
            redirect_uri: Exactly one of those registered for the app.
            state: Comes back with the code; compare it before :meth:`complete`.
            verifier: From :func:`new_verifier`, needed where ``app.pkce``; give the same to :meth:`complete`.
        """
        query = {
            "client_id": self.app.client_id,
            "redirect_uri": redirect_uri,
            "response_type": "code",
            "scope": self.app.scope,
            "state": state,
        }
        if self.app.pkce:
            digest = hashlib.sha256(verifier.encode()).digest()
            query["code_challenge"] = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            query["code_challenge_method"] = "S256"
        return f"{self.app.authorize_url}?{urlencode(query)}"

    async def complete(self, code: str, redirect_uri: str, verifier: str = "") -> None:
        """
        Exchange the code that came to the callback, and keep the tokens.

        Raises:
            AudienceError: The vendor refuses the code or the app, or cannot be reached.
        """
        fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, **self.app.extra}
        if self.app.pkce:
            fields["code_verifier"] = verifier
        granted = await self._exchange(
            fields, f"{self.app.vendor} does not accept the code: it was used, or is too old"
        )
        await self._keep(granted, None)

    async def bearer(self, refused: str = "") -> str:
        """
        Return an access token, refreshed when it ends soon or is ``refused``, the one that the vendor did not take.

        Raises:
            AudienceError: Nobody has signed in, or the sign-in has ended; the message says what to do.
        """
        async with self._refreshing:
            tokens = await asyncio.to_thread(self.file.read)
            if tokens is None:
                raise AudienceError(f"Nobody has signed in at {self.app.vendor} for {self.app.where}: {_SIGN_IN}.")
            ends = tokens.expires_at
            if tokens.access.value == refused or (ends and ends - self._context.clock() < MARGIN_S):
                tokens = await self._refreshed(tokens)
            return tokens.access.value

    async def _refreshed(self, tokens: Tokens) -> Tokens:
        ended = f"The sign-in at {self.app.vendor} for {self.app.where} has ended"
        if tokens.refresh is None:
            raise AudienceError(f"{ended}: {_SIGN_IN}.")
        fields = {"grant_type": "refresh_token", "refresh_token": tokens.refresh.value, **self.app.extra}
        return await self._keep(await self._exchange(fields, ended), tokens)

    async def _keep(self, granted: _Granted, before: Tokens | None) -> Tokens:
        now = self._context.clock()
        refresh = before.refresh if before else None
        if granted.refresh_token:
            refresh = Secret(value=granted.refresh_token)
        ends = now + granted.refresh_token_expires_in if granted.refresh_token_expires_in else 0.0
        tokens = Tokens(
            access=Secret(value=granted.access_token),
            refresh=refresh,
            expires_at=now + granted.expires_in if granted.expires_in else 0.0,
            refresh_expires_at=ends if granted.refresh_token or before is None else before.refresh_expires_at,
            scope=granted.scope or (before.scope if before else ""),
        )
        await asyncio.to_thread(self.file.write, tokens)
        return tokens

    async def _exchange(self, fields: dict[str, str], refusal: str) -> _Granted:
        basic = base64.b64encode(f"{self.app.client_id}:{self.app.client_secret.value}".encode()).decode()
        http: HttpClient = self._context.http
        try:
            answer = await http.request(
                "POST",
                self.app.token_url,
                headers={
                    "authorization": f"Basic {basic}",
                    "content-type": "application/x-www-form-urlencoded",
                    "accept": "application/json",
                },
                content=urlencode(fields).encode(),
                timeout_s=self._timeout_s,
            )
        except Unreachable as error:
            raise AudienceError(
                f"{self.app.vendor} gave no answer about the sign-in: {error}.",
                retry_after_s=_AGAIN_S,
                ambiguous=error.sent,
            ) from None
        return self._granted(answer, refusal)

    def _granted(self, answer: Answer, refusal: str) -> _Granted:
        vendor, status = self.app.vendor, answer.status
        if status == 429 or status >= 500:
            after = retry_after_s(answer.headers, self._context.clock())
            raise AudienceError(f"{vendor} cannot sign in now ({status}).", retry_after_s=after or _AGAIN_S)
        if status == 401 or _error(answer.body) == "invalid_client":
            raise AudienceError(f"{vendor} does not accept the app's id and secret ({status}): check {self.app.where}.")
        if status in (400, 403):
            raise AudienceError(f"{refusal} ({status}): {_SIGN_IN}.")
        try:
            if 200 <= status < 300:
                return msgspec.json.decode(answer.body, type=_Granted)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            pass  # not chained: the decoder's message may quote a token
        raise AudienceError(
            f"{vendor}'s answer about the sign-in ({status}) is not one: check {self.app.where} base_url."
        )


_SIGN_IN = "run 'tag-gateway audiences login'"


def _error(body: bytes) -> Any:
    """Return the error code of RFC 6749, 5.2."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return found.get("error") if isinstance(found, dict) else None
