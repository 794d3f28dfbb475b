"""
What stands before every route of the operator's listener: passwords, sessions, roles, and that no foreign page acts.

The API takes ``[operator] password`` as HTTP Basic or Bearer, and changes as JSON, which no foreign page can send.
Pages take a session, and changes as a form with the session's token, sent by a page of this origin.
"""

import base64
import binascii
import math
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from gateway.hit import Secret
from gateway.operator.caller import Caller, noted
from gateway.operator.headers import hardened
from gateway.operator.passwords import Passwords
from gateway.operator.roles import Need, PageRoute, matched, may, need_of
from gateway.operator.sessions import Sessions
from gateway.operator.throttle import Throttle
from gateway.proxies import TrustedProxies
from gateway.runtime import Gateway
from gateway.verify import matches

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_MAX_FORM, _MAX_FIELDS = 2 << 20, 2_000
#: Renders an error as a page: request, status, title, what to do.
Problem = Callable[[Request, int, str, str], Awaitable[Response]]


def session_cookie(*, is_https: bool) -> str:
    """Return the cookie's name; with the prefix a browser takes it from this host alone, and only over https."""
    return "__Host-session" if is_https else "session"


class _Over(OSError):
    """The session ended while something was streamed to it."""


class Guard:
    """
    Middleware.

    Args:
        app: The operator's app; its routes say who may use them.
        gateway: For the clock, the audit log and ``[server] trusted_proxies``.
        problem: Renders an error for a browser.
    """

    def __init__(
        self, app: Starlette, gateway: Gateway, passwords: Passwords, sessions: Sessions, throttle: Throttle,
        problem: Problem,
    ) -> None:  # fmt: skip
        self._app = app
        self._gateway = gateway
        self._passwords = passwords
        self._sessions = sessions
        self._throttle = throttle
        self._problem = problem
        self._proxies: tuple[tuple[str, ...], TrustedProxies] = ((), TrustedProxies(()))

    def adopt(self, password: Secret, viewer: Secret | None) -> None:
        """Take passwords over from a reloaded file; who logged in with another one is logged out."""
        changed = self._passwords.adopt(password, viewer)
        if changed:
            ended = self._sessions.end_all(changed)
            self._throttle.clear()
            self._gateway.audit.note("signal", "passwords_changed", count=ended, detail=", ".join(sorted(changed)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        caller = self._caller(request)
        caller.put(scope)
        send = hardened(send, is_https=caller.is_https)
        route = matched(self._app.routes, scope)
        need = None if route is None else need_of(route)
        if route is not None and need is None:
            await _refusal("forbidden", "Nobody may use this.", "", 403)(scope, receive, send)
        elif isinstance(route, PageRoute) or (route is None and caller.session is not None):
            await self._page(request, caller, need or "viewer", send)
        elif need == "anyone":
            await self._app(scope, receive, send)
        else:
            problem = await self._call(request, caller, need or "viewer")
            await (problem or self._app)(scope, receive, send)

    # -- pages

    async def _page(self, request: Request, caller: Caller, need: Need, send: Send) -> None:
        scope, changes = request.scope, request.method not in _SAFE
        problem: Response | None = None
        receive: Receive = request.receive
        if changes:
            body, problem = await self._form(request, caller)
            receive = _replayed(body)
        if problem is None and need != "anyone":
            problem = await self._refuse(request, caller, need, changes=changes)
        if problem is not None:
            await problem(scope, receive, send)
            return
        await self._stream(caller, scope, receive, send)

    async def _form(self, request: Request, caller: Caller) -> tuple[bytes, Response | None]:
        """Read the fields of a change, and refuse what a foreign page sent."""
        if self._is_foreign(request):
            told = "Another site tried to change something here. Nothing was changed."
            return b"", await self._problem(request, 403, "Not from here", told)
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > _MAX_FORM:
                return b"", await self._problem(request, 413, "Too large", f"At most {_MAX_FORM >> 20} MB can be sent.")
        try:
            text = body.decode("utf-8")
            fields = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
        except ValueError:
            return b"", await self._problem(request, 400, "Not a form", "Go back, reload the page, and try again.")
        caller.form = dict(fields)
        return bytes(body), None

    async def _refuse(self, request: Request, caller: Caller, need: Need, *, changes: bool) -> Response | None:
        session = caller.session
        if session is None:
            if is_for_reader(request):
                path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                back = quote(path, safe="/") if request.method in _SAFE else "/"
                return RedirectResponse(f"/login?next={back}" if back != "/" else "/login", 303)
            # asked by a page itself, a challenge would make the browser open a dialog of its own
            is_challenged = not _is_background(request.headers)
            return _unauthorized("Log in at /login: pages take a session.", challenge=is_challenged)
        if changes:
            token = request.headers.get("x-csrf-token") or caller.form.get("csrf", "")
            if not matches(token, [Secret(value=session.csrf)]):
                told = "This form was made for an earlier login. Go back, reload the page, and try again."
                return await self._problem(request, 403, "Out of date", told)
        if not may(session.role, need):
            told = "You are logged in as a viewer, who may only read. Log out, and log in with [operator] password."
            return await self._problem(request, 403, "Only for the operator", told)
        return None

    def _is_foreign(self, request: Request) -> bool:
        """
        Whether another site's page sent it.

        ``Origin`` is "null" under our own ``Referrer-Policy`` (Fetch standard, section 3.2, "append a request Origin
        header"), so that ``Sec-Fetch-Site`` decides where the browser sends it, and otherwise the token does.
        """
        site = request.headers.get("sec-fetch-site")
        if site is not None:
            return site not in ("same-origin", "none")
        origin = request.headers.get("origin", "null")
        if origin == "null":
            return False
        url = self._gateway.parts.config.operator.url
        own = {request.headers.get("host", ""), urlsplit(url).netloc if url else ""} - {""}
        return urlsplit(origin).netloc not in own

    async def _stream(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a page; one that goes on ends with the session."""
        session, streams = caller.session, False

        async def watched(message: Message) -> None:
            nonlocal streams
            if session is not None and streams and not self._sessions.is_alive(session):
                raise _Over
            await send(message)
            streams = streams or message.get("more_body", False)

        try:
            await self._app(scope, receive, watched)
        except (_Over, ClientDisconnect):
            if session is not None and self._sessions.is_alive(session):
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    # -- the API

    async def _call(self, request: Request, caller: Caller, need: Need) -> Response | None:
        """Return why a call of the API is refused."""
        caller.role = caller.session = None  # a cookie, which a browser adds to whatever is asked, opens no call
        given = _credential(request.headers.get("authorization", ""))
        if given:
            wait_s = self._throttle.wait_s(caller.address)
            if wait_s > 0:
                return throttled(wait_s)
            caller.role = await self._passwords.role_of(given)
            if caller.role is None:
                self.failed(request, caller)
            else:
                self._throttle.passed(caller.address)
        if caller.role is None:
            return _unauthorized("Use HTTP Basic or Bearer with [operator] password.")
        changes = request.method not in ("GET", "HEAD")
        if not may(caller.role, "operator" if changes else need):
            return _refusal("forbidden", "This password may only read.", "Use [operator] password.", 403)
        if changes and not request.headers.get("content-type", "").startswith("application/json"):
            hint = "Set Content-Type: application/json."
            return _refusal("not_json", "Changes must be sent as JSON.", hint, 415)
        return None

    def failed(self, request: Request, caller: Caller) -> None:
        """Count a wrong password, and write it down."""
        self._throttle.failed(caller.address)
        noted(request, self._gateway.audit, "login_failed", detail="the API")

    # -- who asks

    def _caller(self, request: Request) -> Caller:
        config, headers = self._gateway.parts.config, request.headers
        proxies = self._trusted(config.server.trusted_proxies)
        peer = request.client.host if request.client else None
        is_ours = peer is not None and proxies.trusts(peer)
        is_https = request.url.scheme == "https" or (config.operator.url or "").startswith("https://")
        is_https = is_https or (is_ours and headers.get("x-forwarded-proto", "").strip().lower() == "https")
        caller = Caller(proxies.client(peer, headers.get("x-forwarded-for", "")) or "-", is_https=is_https)
        caller.token = request.cookies.get(session_cookie(is_https=is_https), "")
        if caller.token and "authorization" not in headers:
            caller.session = self._sessions.find(caller.token, touch=not _is_background(headers))
            caller.role = caller.session.role if caller.session is not None else None
        return caller

    def _trusted(self, ranges: tuple[str, ...]) -> TrustedProxies:
        if self._proxies[0] != ranges:
            self._proxies = (ranges, TrustedProxies(ranges))
        return self._proxies[1]


def _is_background(headers: Headers) -> bool:
    """Whether a page asks by itself, for its fragments and streams: that keeps nobody logged in."""
    return "x-refresh" in headers or "text/event-stream" in headers.get("accept", "")


def is_for_reader(request: Request) -> bool:
    """Whether a browser shows the answer to somebody, and it should be a page."""
    return "text/html" in request.headers.get("accept", "") and "x-refresh" not in request.headers


def _credential(header: str) -> bytes | None:
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return None
    return None


def _replayed(body: bytes) -> Receive:
    """Return a ``receive`` that gives a body that was read already."""
    waiting: list[Mapping[str, object]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return dict(waiting.pop()) if waiting else {"type": "http.disconnect"}

    return receive


def throttled(wait_s: float) -> Response:
    """Return the answer to a password that was tried too often."""
    seconds = math.ceil(wait_s)
    answer = _refusal("throttled", "Too many wrong passwords.", f"Try again in {seconds} s.", 429)
    answer.headers["Retry-After"] = str(seconds)
    return answer


def _unauthorized(hint: str, *, challenge: bool = True) -> Response:
    answer = _refusal("unauthorized", "The operator's password is needed.", hint, 401)
    if challenge:
        answer.headers["WWW-Authenticate"] = 'Basic realm="tag-gateway"'
    return answer


def _refusal(code: str, message: str, hint: str, status: int) -> Response:
    return JSONResponse({"error": {"code": code, "message": message, "hint": hint}}, status)
