"""
The Admin API of one shop: GraphQL calls and REST pages, with their throttles and refusals.

Sources: Shopify, api/usage/limits (GraphQL: ``THROTTLED`` with the cost in ``extensions``; REST: 429 with
``Retry-After``), api/admin-rest/usage/pagination, and authentication-authorization/client-credentials-grant: apps of
the Dev Dashboard get a token for 24 hours against client id and secret.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn
from urllib.parse import urlencode

import msgspec

from adapters.shopify.order import WebhookOptions
from gateway import Answer, CommandFailed, HttpClient, Source, Unreachable, check_url, coerce

_VERSION = re.compile(r"20\d\d-(?:01|04|07|10)|unstable")
#: The first version in which a webhook's address is called ``uri`` (changelog of 2025-08-08).
_FIRST_VERSION = "2025-10"
_TRIES = 8
_LONGEST_WAIT_S = 60.0
#: A page of 250 orders has 1 to 10 MB.
_MOST_BYTES = 64 << 20
Sleep = Callable[[float], Awaitable[object]]


class Denied(CommandFailed):
    """A GraphQL call was refused; ``code`` is Shopify's, such as ``ACCESS_DENIED``."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def wrong_option(source: Source) -> str | None:
    """Say what is wrong with the options of the Admin API."""
    options: WebhookOptions = source.options
    if not _VERSION.fullmatch(options.api_version) or options.api_version < _FIRST_VERSION:
        return f'options.api_version must be a version of the Admin API from {_FIRST_VERSION} on, such as "2026-10"'
    if options.admin_base_url is not None:
        try:
            check_url("options.admin_base_url", options.admin_base_url)
        except ValueError as error:
            return str(error)
    return None


class Admin:
    """
    The Admin API as one source may use it.

    Args:
        http: The outgoing client.
        source: Its options say which shop, which version, which token.
        sleep: Waits so many seconds.

    Raises:
        CommandFailed: The source has no shop, or neither ``admin_token`` nor ``client_id``.
    """

    def __init__(self, http: HttpClient, source: Source, sleep: Sleep = asyncio.sleep) -> None:
        options: WebhookOptions = source.options
        where = f"[sources.{source.name}.options]"
        if not options.shop:
            raise CommandFailed(f'{where} needs shop = "….myshopify.com": whose Admin API is it?')
        if options.admin_token is None and options.client_id is None:
            raise CommandFailed(
                f'{where} needs admin_token = {{ env = "SHOPIFY_ADMIN_TOKEN" }}, or client_id for an app of the Dev '
                "Dashboard (its client secret is the source's secret). See docs/shopify.md."
            )
        self._http = http
        self._source = source
        self._options = options
        self._sleep = sleep
        self._where = where
        self._base = (options.admin_base_url or f"https://{options.shop}").rstrip("/")
        self._token = None if options.admin_token is None else options.admin_token.value

    async def query(self, document: str, *, is_read: bool = False, **variables: Any) -> Mapping[str, Any]:
        """
        Make one GraphQL call; returns its ``data``.

        Args:
            is_read: It may be sent again when an answer got lost.

        Raises:
            Denied: Shopify refused the call. CommandFailed: No usable answer came.
        """
        content = msgspec.json.encode({"query": document, "variables": variables})
        for _ in range(_TRIES):
            answer = await self._send("POST", "graphql.json", content, is_read=is_read)
            body = coerce.mapping(_decoded(answer))
            errors = coerce.sequence(body.get("errors"))
            if not errors:
                return coerce.mapping(body.get("data"))
            code = coerce.text(coerce.mapping(coerce.mapping(errors[0]).get("extensions")).get("code")) or ""
            if code != "THROTTLED":
                _deny(coerce.mapping(errors[0]), code)
            await self._sleep(_restored_in(body))
        raise CommandFailed("Shopify still throttles the app's calls. Try again in a minute.")

    async def get(self, path: str, query: Mapping[str, str]) -> Answer:
        """
        Get one REST resource.

        Raises:
            CommandFailed: No usable answer came; the message says what to do.
        """
        answer = await self._send("GET", f"{path}?{urlencode(query)}", None, is_read=True)
        if len(answer.body) >= _MOST_BYTES:
            raise CommandFailed("Shopify's answer is larger than 64 MB. Ask for less with --page-size.")
        return answer

    async def _send(self, method: str, path: str, content: bytes | None, *, is_read: bool) -> Answer:
        url = f"{self._base}/admin/api/{self._options.api_version}/{path}"
        headers = {"X-Shopify-Access-Token": await self._access_token(), "Accept": "application/json"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        answer = await self._patiently(method, url, headers, content, is_read=is_read)
        if answer.status != 200:
            self._explain(answer.status)
        return answer

    async def _patiently(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, *, is_read: bool
    ) -> Answer:
        """Send one request, again while Shopify says that it is too much or not now."""
        problem = ""
        for attempt in range(_TRIES):
            try:
                answer = await self._http.request(
                    method, url, headers=headers, content=content, max_bytes=_MOST_BYTES, timeout_s=60.0
                )
            except Unreachable as error:
                if error.sent and not is_read:
                    raise CommandFailed(
                        f"Shopify did not answer ({error}); whether it did what was asked is not known. Run it again."
                    ) from error
                problem, wait_s = str(error), 0.5 * 2**attempt
            else:
                if answer.status != 429 and answer.status < 500:
                    return answer
                problem, wait_s = f"HTTP {answer.status}", _retry_after(answer, 0.5 * 2**attempt)
            if attempt < _TRIES - 1:
                await self._sleep(min(wait_s, _LONGEST_WAIT_S))
        raise CommandFailed(f"{self._base} gives no usable answer ({problem}). Try again later.")

    async def _access_token(self) -> str:
        if self._token is not None:
            return self._token
        status = 0
        for secret in self._source.secrets:  # while it is rotated, either may be the one
            form = {
                "grant_type": "client_credentials", "client_id": self._options.client_id or "",
                "client_secret": secret.value,
            }  # fmt: skip
            headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
            url = f"{self._base}/admin/oauth/access_token"
            answer = await self._patiently("POST", url, headers, urlencode(form).encode(), is_read=True)
            status = answer.status
            if status == 200:
                self._token = coerce.text(coerce.mapping(_decoded(answer)).get("access_token"))
                if self._token is not None:
                    return self._token
        raise CommandFailed(
            f"Shopify gives no token for client_id of {self._where} (HTTP {status}). The source's secret must be that "
            "app's client secret, the app installed in the shop, and both of one organisation; else use admin_token."
        )

    def _explain(self, status: int) -> NoReturn:
        """Say what a status means and what to do about it; the answer's body stays unread."""
        version = self._options.api_version
        reasons = {
            401: f"Shopify refuses the token of {self._where} (401). It is wrong, was revoked, or has expired: tokens "
            "of Dev Dashboard apps live 24 hours, so give client_id instead of admin_token.",
            402: "The shop is frozen (402): its owner must settle the account with Shopify.",
            403: "Shopify forbids it (403). Give the app the scopes read_orders and read_customers, release the new "
            "version and accept it in the shop; orders also need access to protected customer data.",
            404: f"Shopify knows no such resource (404). Compare shop ({self._options.shop}) and api_version "
            f"({version}) of {self._where}.",
            423: "The shop is locked (423). Try again later, or ask Shopify's support.",
        }
        raise CommandFailed(reasons.get(status, f"Shopify answered HTTP {status}, which this command does not expect."))


def _decoded(answer: Answer) -> Any:
    try:
        return msgspec.json.decode(answer.body)
    except msgspec.DecodeError:
        raise CommandFailed("Shopify's answer is not JSON: is admin_base_url or shop another server?") from None


def _deny(error: Mapping[str, Any], code: str) -> NoReturn:
    message = coerce.text(error.get("message")) or "Shopify refused the call."
    raise Denied(message, code)


def _restored_in(body: Mapping[str, Any]) -> float:
    """Return the seconds until the bucket holds what the call costs."""
    cost = coerce.mapping(coerce.mapping(body.get("extensions")).get("cost"))
    state = coerce.mapping(cost.get("throttleStatus"))
    asked, left, rate = (
        float(coerce.decimal(value) or 0)
        for value in (cost.get("requestedQueryCost"), state.get("currentlyAvailable"), state.get("restoreRate"))
    )
    return min(max(asked - left, 0.0) / rate if rate > 0 else 2.0, _LONGEST_WAIT_S)


def _retry_after(answer: Answer, otherwise_s: float) -> float:
    given = coerce.decimal(answer.headers.get("retry-after"))
    return otherwise_s if given is None or given < 0 else float(given)
