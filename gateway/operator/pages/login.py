"""Logging in and out."""

import hashlib
import hmac
import math
import re
import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.operator.caller import Caller, caller_of
from gateway.operator.guard import session_cookie
from gateway.operator.sessions import LIFE_S

if TYPE_CHECKING:
    from gateway.operator.pages.framework import Pages

_FORM_S = 3_600
_SEED = re.compile(r"[A-Za-z0-9_-]{32}")


class Login:
    """The form, and what it changes."""

    def __init__(self, pages: "Pages") -> None:
        self._pages = pages
        self._key = secrets.token_bytes(32)

    async def show(self, request: Request) -> Response:
        """Show the form; its token is bound to a cookie, for there is no session yet."""
        return await self._form(request, 200, "", request.query_params.get("next", "/"))

    async def enter(self, request: Request) -> Response:
        """Log in."""
        pages, caller, form = self._pages, caller_of(request), self._pages.form(request)
        path = form.get("next", "/")
        seed = request.cookies.get(_seed_cookie(caller), "")
        if not seed or not hmac.compare_digest(self._token(seed), form.get("csrf", "").encode()):
            return await self._form(request, 403, "The form was out of date. Please try again.", path)
        wait_s = pages.throttle.wait_s(caller.address)
        if wait_s > 0:
            told = f"Too many wrong passwords. Try again in {math.ceil(wait_s)} seconds."
            answer = await self._form(request, 429, told, path)
            answer.headers["Retry-After"] = str(math.ceil(wait_s))
            return answer
        role = await pages.passwords.role_of(form.get("password", "").encode("utf-8", "surrogatepass"))
        if role is None:
            pages.throttle.failed(caller.address)
            pages.note(request, "login_failed", detail="the pages")
            return await self._form(request, 403, "That is not the operator's password, and not a viewer's.", path)
        pages.throttle.passed(caller.address)
        pages.sessions.end(caller.token)  # never the session of before the login
        token, caller.session = pages.sessions.begin(role)
        caller.role = role
        pages.note(request, "login")
        answer = RedirectResponse(_local(path), 303)
        self._set(answer, session_cookie(is_https=caller.is_https), token, caller, int(LIFE_S))
        answer.delete_cookie(_seed_cookie(caller), secure=caller.is_https, httponly=True, samesite="strict")
        return answer

    async def leave(self, request: Request) -> Response:
        """Log out."""
        caller = caller_of(request)
        self._pages.note(request, "logout")
        self._pages.sessions.end(caller.token)
        answer = RedirectResponse("/login", 303)
        name = session_cookie(is_https=caller.is_https)
        answer.delete_cookie(name, secure=caller.is_https, httponly=True, samesite="strict")
        return answer

    async def _form(self, request: Request, status: int, problem: str, path: str) -> Response:
        caller = caller_of(request)
        seed = request.cookies.get(_seed_cookie(caller), "")
        if not _SEED.fullmatch(seed):
            seed = secrets.token_urlsafe(24)
        # a link from elsewhere comes without the session's cookie: from here on it is sent again
        came_from_elsewhere = request.headers.get("sec-fetch-site") == "cross-site" and request.method == "GET"
        answer = await self._pages.render(
            request, "login.html", status, problem=problem, next=_local(path), token=self._token(seed).decode(),
            came_from_elsewhere=came_from_elsewhere,
        )  # fmt: skip
        self._set(answer, _seed_cookie(caller), seed, caller, _FORM_S)
        return answer

    def _token(self, seed: str) -> bytes:
        return hmac.new(self._key, seed.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest().encode()

    def _set(self, answer: Response, name: str, value: str, caller: Caller, life_s: int) -> None:
        answer.set_cookie(
            name, value, max_age=life_s, path="/", secure=caller.is_https, httponly=True, samesite="strict"
        )


def _seed_cookie(caller: Caller) -> str:
    return "__Host-login" if caller.is_https else "login"


def _local(path: str) -> str:
    """Return the path when it leads to a page of ours, else the first page."""
    is_text = path.isprintable() and path.isascii() and "\\" not in path and " " not in path
    if not is_text or not path.startswith("/") or path.startswith("//"):
        return "/"
    return "/" if urlsplit(path).path in ("/login", "/logout") else path


def routes(pages: "Pages") -> list[Route]:
    """Return the routes."""
    login = Login(pages)
    return [
        pages.open_route("/login", login.show, need="anyone"),
        pages.open_route("/login", login.enter, need="anyone", methods=("POST",)),
        pages.open_route("/logout", login.leave, need="viewer", methods=("POST",)),
    ]
