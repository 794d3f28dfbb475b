"""Who asks: found out once by the guard, read by pages and by the audit log."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.audit import Audit
from gateway.operator.sessions import Role, Session

Handler = Callable[[Request], Awaitable[Response]]
_KEY = "operator.caller"
#: Fields of calls that may stand in the audit log.
_NAMES = ("connection", "destination", "reason", "event_name", "source", "sink", "kind", "group", "account", "site")


class Caller:
    """
    The sender of one request.

    Attributes:
        role: What it may do; None before a login.
        address: Where it is, behind one's own proxies; None over the control socket.
        session: Its login, None for the API.
        token: The id of its session as its browser sent it, "" when none.
        form: What it sent, for a change from a page.
        is_https: Whether its browser speaks https.
    """

    def __init__(self, address: str | None, *, is_https: bool = False) -> None:
        self.role: Role | None = None
        self.address = address
        self.session: Session | None = None
        self.token = ""
        self.form: Mapping[str, str] = {}
        self.is_https = is_https

    def put(self, scope: Any) -> None:
        """Let :func:`caller_of` find it."""
        scope[_KEY] = self


def caller_of(request: Request) -> Caller:
    """Return who asks; over the control socket a command, which nobody had to guard against."""
    found = request.scope.get(_KEY)
    if isinstance(found, Caller):
        return found
    command = Caller(None)
    command.role = "operator"
    return command


def noted(request: Request, audit: Audit, what: str, count: int | None = None, detail: str = "") -> None:
    """Write who did something to the audit log."""
    caller = caller_of(request)
    who = (caller.role or "-") if caller.address is not None else "command"
    audit.note(who, what, address=caller.address, count=count, detail=detail)


def audited(audit: Audit, what: str, key: str | None, handler: Handler, *, streams: bool = False) -> Handler:
    """
    Write each call of the API that changed something to the audit log.

    ``key`` is where the answer's JSON counts what was changed; a rehearsal (``dry_run``) and a refusal changed nothing.
    ``streams``: the handler takes the body in pieces, and there is nothing left to look at.
    """

    async def answer(request: Request) -> Response:
        response = await handler(request)
        if response.status_code < 400:
            asked = dict(request.path_params) if streams else _object(await request.body())
            found = _object(bytes(response.body))
            if asked.get("dry_run") is not True:
                count = found.get(key) if key is not None else None
                noted(request, audit, what, len(count) if isinstance(count, list) else count, _which(asked))
        return response

    return answer


def _object(body: bytes) -> dict[str, Any]:
    found = msgspec.json.decode(body or b"{}")
    return found if isinstance(found, dict) else {}


def _which(asked: Mapping[str, Any]) -> str:
    """Return what a call named, of the names that are never personal."""
    named = [f"{key} {asked[key]}" for key in _NAMES if isinstance(asked.get(key), str | int)]
    return ", ".join(named)
