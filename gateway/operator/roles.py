"""
Who may do what on the operator's listener: each route has a role, and one without is refused to everybody.

Pages say theirs where they are made (:meth:`gateway.operator.pages.Pages.route`); this table is for the API.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import Scope

from gateway.operator.callback import CALLBACK
from gateway.operator.sessions import Role

Need = Literal["anyone", "viewer", "operator"]
Handler = Callable[[Request], Awaitable[Response]]

#: By path. "anyone" has no password: liveness, and the callback of a login, which proves itself by its state.
API: Mapping[str, Need] = {
    "/livez": "anyone",
    CALLBACK: "anyone",
    "/metrics": "viewer",
    "/api/status": "viewer",
    "/api/plugins": "viewer",
    "/api/health": "viewer",
    "/api/events": "viewer",
    "/api/events/stream": "viewer",
    "/api/dead": "viewer",
    "/api/dead/{unit}": "viewer",
    "/api/dead/replay": "operator",
    "/api/dead/discard": "operator",
    "/api/erase": "operator",
    "/api/export": "operator",
    "/api/backup": "operator",
    "/api/salvage": "operator",
    "/api/explain": "operator",
    "/api/import/{source}": "operator",
    "/api/alarms": "viewer",
    "/api/alarms/acknowledge": "operator",
    "/api/quarantine": "viewer",
    "/api/quarantine/replay": "operator",
    "/api/quarantine/discard": "operator",
    "/api/audiences": "viewer",
    "/api/audiences/sides": "viewer",
    "/api/audiences/groups": "viewer",
    "/api/audiences/accounts": "viewer",
    "/api/audiences/audiences": "viewer",
    "/api/audiences/jobs/{job}": "viewer",
    "/api/audiences/login": "operator",
    "/api/audiences/login/look": "operator",
    "/api/audiences/login/answer": "operator",
    "/api/audiences/account": "operator",
    "/api/audiences/connect": "operator",
    "/api/audiences/disconnect": "operator",
    "/api/audiences/sync": "operator",
    "/api/audiences/lookalike": "operator",
}


class PageRoute(Route):
    """A page: reached with a session, never with a password in a header."""

    def __init__(self, path: str, handler: Handler, need: Need, methods: Sequence[str]) -> None:
        super().__init__(path, handler, methods=list(methods))
        self.need: Need = need


def need_of(route: BaseRoute) -> Need | None:
    """Return who may use a route, None: nobody, for nothing is said of it."""
    if isinstance(route, PageRoute):
        return route.need
    if isinstance(route, Mount) and route.path == "/plugins":
        return "viewer"  # to change something takes the operator, whatever the path
    return API.get(getattr(route, "path", ""))


def matched(routes: Sequence[BaseRoute], scope: Scope) -> BaseRoute | None:
    """Return the route that will answer; one of the path with other methods, which will say so; or None."""
    partial = None
    for route in routes:
        match, _ = route.matches(scope)
        if match is Match.FULL:
            return route
        if match is Match.PARTIAL and partial is None:
            partial = route
    return partial


def may(role: Role, need: Need) -> bool:
    """Whether a role suffices."""
    return need in ("anyone", role) or role == "operator"
