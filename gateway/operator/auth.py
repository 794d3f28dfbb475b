"""
The operator's password: HTTP Basic (any user name) or Bearer; state-changing calls must be JSON, which no foreign page
can send.
"""

import base64
import binascii

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.hit import Secret
from gateway.operator.callback import CALLBACK
from gateway.verify import matches

#: The callback of a login proves itself by its state.
_OPEN = frozenset({"/livez", CALLBACK})


class Password:
    """Middleware that demands one of the passwords; ``viewer`` may only read."""

    def __init__(self, app: ASGIApp, password: Secret, viewer: Secret | None = None) -> None:
        self._app = app
        self._password = password
        self._viewer = viewer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 403, or go on."""
        if scope["type"] != "http" or scope["path"] in _OPEN:
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        given = _credential(headers.get(b"authorization", b"").decode("latin-1"))
        is_operator = given is not None and matches(given, [self._password])
        is_viewer = given is not None and self._viewer is not None and matches(given, [self._viewer])
        problem = None
        if not (is_operator or is_viewer):
            hint = "Use HTTP Basic or Bearer with [operator] password."
            problem = JSONResponse(
                _error("unauthorized", "The operator's password is needed.", hint),
                401,
                {"WWW-Authenticate": 'Basic realm="tag-gateway"'},
            )
        elif scope["method"] not in ("GET", "HEAD"):
            if not is_operator:
                problem = JSONResponse(
                    _error("forbidden", "This password may only read.", "Use [operator] password."), 403
                )
            elif not headers.get(b"content-type", b"").startswith(b"application/json"):
                problem = JSONResponse(
                    _error("not_json", "Changes must be sent as JSON.", "Set Content-Type: application/json."), 415
                )
        await (problem or self._app)(scope, receive, send)


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


def _error(code: str, message: str, hint: str) -> dict[str, dict[str, str]]:
    return {"error": {"code": code, "message": message, "hint": hint}}
