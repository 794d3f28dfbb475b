"""What every page is made with: routes with a role, templates, forms, messages, the audit log."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from typing import Any

import msgspec
from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from gateway.audience import AudienceError
from gateway.errors import ConfigError, GatewayError, Rejected
from gateway.operator.caller import Caller, caller_of, noted
from gateway.operator.pages import login
from gateway.operator.pages.statics import Statics
from gateway.operator.pages.templating import environment
from gateway.operator.passwords import Passwords
from gateway.operator.roles import Need, PageRoute
from gateway.operator.sessions import Role, Session, Sessions
from gateway.operator.throttle import Throttle
from gateway.runtime import Gateway

Handler = Callable[[Request], Awaitable[Response]]
#: Whose request this task serves.
_serving: ContextVar[Session | None] = ContextVar("_serving", default=None)

#: Path, name and module of each page, in the order of the navigation.
NAVIGATION: tuple[tuple[str, str, str], ...] = (
    ("/", "Overview", "overview"),
    ("/live", "Live events", "live"),
    ("/deduplication", "Deduplication", "deduplication"),
    ("/health", "Health", "health"),
    ("/deliveries", "Deliveries", "deliveries"),
    ("/audiences", "Audiences", "audiences"),
    ("/test-events", "Test events", "testing"),
    ("/privacy", "Privacy", "privacy"),
    ("/plugins", "Plugins and configuration", "plugins"),
)


class Pages:
    """
    The pages of one gateway.

    Args:
        gateway: What they show and change.
        passwords: Who may log in.
        sessions: Who did.
        throttle: How often a wrong password may be tried.
    """

    def __init__(self, gateway: Gateway, passwords: Passwords, sessions: Sessions, throttle: Throttle) -> None:
        self.gateway = gateway
        self.passwords = passwords
        self.sessions = sessions
        self.throttle = throttle
        self.statics, self._templates = _shared()

    def route(
        self, path: str, handler: Handler, *, role: Role = "viewer", methods: Sequence[str] = ("GET",)
    ) -> PageRoute:
        """Return the route of a page or of a change; changes (POST) are the operator's."""
        if role != "operator" and set(methods) - {"GET", "HEAD"}:
            raise ValueError(f"{path}: what changes something needs role='operator'.")
        return self.open_route(path, handler, need=role, methods=methods)

    def open_route(self, path: str, handler: Handler, *, need: Need, methods: Sequence[str] = ("GET",)) -> PageRoute:
        """As :meth:`route`, for what is not the operator's business: logging in and out, static files."""
        return PageRoute(path, self._guarded(handler), need, methods)

    async def render(self, request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
        """
        Return a page.

        Beside ``context`` a template has ``caller`` (role), ``nav``, ``path``, ``csrf`` (the token of its forms),
        ``messages`` (shown once), ``alarm_count``, ``now`` (Unix s) and ``static(name)``.
        """
        return HTMLResponse(self.html(request, template, **context), status)

    def html(self, request: Request, template: str, **context: Any) -> str:
        """Return the text of a template, see :meth:`render`."""
        caller = caller_of(request)
        session = caller.session
        messages: tuple[str, ...] = ()
        if session is not None and "x-refresh" not in request.headers:
            messages, session.messages = tuple(session.messages), []
        values: dict[str, Any] = {
            "role": caller.role,
            "is_operator": caller.role == "operator",
            "nav": [(path, name, _is_below(request.url.path, path)) for path, name, _ in NAVIGATION],
            "path": request.url.path,
            "csrf": session.csrf if session is not None else "",
            "messages": messages,
            "alarm_count": sum(not one.acknowledged for one in self.gateway.alarms.active()),
            "now": self.gateway.clock(),
        }
        return self._templates.get_template(template).render({**values, **context})

    def form(self, request: Request) -> Mapping[str, str]:
        """Return the fields of a change (of a field given twice the last); its token was checked before."""
        return caller_of(request).form

    def caller(self, request: Request) -> Caller:
        """Return who asks."""
        return caller_of(request)

    def redirect(self, path: str, message: str | None = None) -> Response:
        """Lead the browser on after a change; the next page shows the message."""
        session = _serving.get()
        if message is not None and session is not None:
            session.messages.append(message)
        return RedirectResponse(path, 303)

    def note(self, request: Request, what: str, count: int | None = None, detail: str = "") -> None:
        """Write a change to the audit log: the action, how many, and in a few words which; nothing personal."""
        noted(request, self.gateway.audit, what, count, detail)

    async def problem(self, request: Request, status: int, title: str, remedy: str) -> HTMLResponse:
        """Return a page that says what went wrong and what to do."""
        return await self.render(request, "error.html", status, title=title, remedy=remedy)

    def _guarded(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            _serving.set(caller_of(request).session)
            try:
                return await handler(request)
            except (msgspec.ValidationError, msgspec.DecodeError, ValueError, OverflowError, Rejected) as error:
                return await self.problem(request, 400, "That cannot be done", str(error))
            except (AudienceError, ConfigError) as error:
                return await self.problem(request, 409, "That cannot be done", str(error))
            except GatewayError as error:
                return await self.problem(request, 503, "Not now", str(error))

        return answer


@cache
def _shared() -> tuple[Statics, Environment]:
    """Return the files and templates, which no gateway changes: read and compiled once in a process."""
    statics = Statics()
    return statics, environment(statics.url)


def page_routes(pages: Pages) -> list[Route]:
    """Return the routes of all pages."""
    found = [import_module(f"gateway.operator.pages.{module}").routes(pages) for _, _, module in NAVIGATION]
    return [*login.routes(pages), *pages.statics.routes(), *(route for routes in found for route in routes)]


def _is_below(path: str, page: str) -> bool:
    return path == page or (page != "/" and path.startswith(f"{page}/"))
