"""
The pages and calls of OAuth, Pinterest's and Klaviyo's.

Source: Pinterest's OpenAPI description (``/oauth/token``) and its guide to authentication; Klaviyo's guide to OAuth
(PKCE with S256, ``a.klaviyo.com/oauth/token``). The owner of the account says yes at once, or
no when the settings say so.
Pinterest's codes of refused grants are documented nowhere: 400 with code 4196 is this sandbox's own.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

import msgspec
from starlette.routing import Route

from gateway.sandbox import answers
from gateway.sandbox.answers import Answer
from gateway.sandbox.grants import Granted, GrantRefused, Grants

if TYPE_CHECKING:
    from gateway.sandbox.audiences import AudienceSandbox
    from gateway.sandbox.calls import Call
    from gateway.sandbox.klaviyo import KlaviyoSandbox


def pinterest_routes(sandbox: AudienceSandbox) -> list[Route]:
    """Return Pinterest's page of consent (both spellings) and its token call."""

    def authorize(call: Call) -> Answer:
        args = call.args
        given = {**args, "client_id": args.get("client_id") or args.get("consumer_id", "")}
        scope = " ".join(args.get("scope", "").replace(",", " ").split())
        return _consent(sandbox.grants, given, scope, deny=sandbox.settings.deny)

    def token(call: Call) -> Answer:
        client_id = _client(sandbox.grants, call, {})
        if client_id is None:
            return answers.error(401)
        form = _form(call)
        kind = form.get("grant_type", "")
        try:
            granted = _granted(sandbox.grants, client_id, form)
        except GrantRefused as error:
            return answers.error(400, f"Invalid request: {error}")
        left = int(granted.refresh_expires_at - sandbox.clock())
        shown = {
            **_token(granted, sandbox.clock()),
            "response_type": kind,
            "refresh_token_expires_in": left,
            "refresh_token_expires_at": int(granted.refresh_expires_at),
        }
        return Answer(status=200, content=msgspec.json.encode(shown))

    return [
        *(Route(path, sandbox.endpoint("/oauth/", authorize), methods=["GET"]) for path in ("/oauth", "/oauth/")),
        Route("/v5/oauth/token", sandbox.endpoint("/oauth/token", token), methods=["POST"]),
    ]


def klaviyo_routes(sandbox: KlaviyoSandbox) -> list[Route]:
    """Return Klaviyo's page of consent and its token calls."""

    def authorize(call: Call) -> Answer:
        if call.args.get("code_challenge_method") != "S256" or not call.args.get("code_challenge"):
            return _oauth_error(400, "invalid_request", "code_challenge with method S256 is required.")
        return _consent(sandbox.grants, call.args, call.args.get("scope", ""), deny=sandbox.settings.deny)

    def token(call: Call) -> Answer:
        form = _form(call)
        client_id = _client(sandbox.grants, call, form)
        if client_id is None:
            return _oauth_error(401, "invalid_client", "The app is unknown or its secret is wrong.")
        try:
            granted = _granted(sandbox.grants, client_id, form)
        except GrantRefused as error:
            return _oauth_error(400, "invalid_grant", str(error))
        return Answer(status=200, content=msgspec.json.encode(_token(granted, sandbox.clock())))

    def revoke(call: Call) -> Answer:
        form = _form(call)
        if _client(sandbox.grants, call, form) is None:
            return _oauth_error(401, "invalid_client", "The app is unknown or its secret is wrong.")
        sandbox.grants.revoke(form.get("token", ""))
        return Answer(status=200, content=b"{}")

    return [
        Route("/oauth/authorize", sandbox.endpoint("/oauth/authorize", authorize), methods=["GET"]),
        Route("/oauth/token", sandbox.endpoint("/oauth/token", token), methods=["POST"]),
        Route("/oauth/revoke", sandbox.endpoint("/oauth/revoke", revoke), methods=["POST"]),
    ]


def _consent(grants: Grants, given: Mapping[str, str], scope: str, *, deny: bool) -> Answer:
    redirect_uri, client_id = given.get("redirect_uri", ""), given.get("client_id", "")
    if client_id not in grants.apps or not redirect_uri or given.get("response_type") != "code":
        return _oauth_error(400, "invalid_request", "client_id, redirect_uri and response_type=code are required.")
    state = {"state": given["state"]} if "state" in given else {}
    if deny:
        result = {"error": "access_denied"}
    else:
        result = {"code": grants.allow(client_id, redirect_uri, scope, given.get("code_challenge", ""))}
    joint = "&" if "?" in redirect_uri else "?"
    return Answer(status=302, content=b"", headers={"location": f"{redirect_uri}{joint}{urlencode(result | state)}"})


def _granted(grants: Grants, client_id: str, form: Mapping[str, str]) -> Granted:
    kind = form.get("grant_type", "")
    if kind == "authorization_code":
        verifier = form.get("code_verifier", "")
        return grants.exchange(client_id, form.get("code", ""), form.get("redirect_uri", ""), verifier)
    if kind == "refresh_token":
        return grants.refresh(client_id, form.get("refresh_token", ""))
    raise GrantRefused("grant_type must be authorization_code or refresh_token.")


def _token(granted: Granted, now: float) -> dict[str, Any]:
    return {
        "access_token": granted.access_token,
        "refresh_token": granted.refresh_token,
        "token_type": "bearer",
        "expires_in": int(granted.expires_at - now),
        "scope": granted.scope,
    }


def _client(grants: Grants, call: Call, form: Mapping[str, str]) -> str | None:
    """Return the app that calls, by HTTP Basic (or, where the vendor takes it, by the form); None: a stranger."""
    scheme, _, text = call.headers.get("authorization", "").partition(" ")
    client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
    if scheme.lower() == "basic":
        try:
            client_id, _, secret = base64.b64decode(text, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
    return client_id if client_id in grants.apps and grants.apps[client_id] == secret else None


def _form(call: Call) -> dict[str, str]:
    return dict(parse_qsl(call.body.decode("latin-1"), keep_blank_values=True))


def _oauth_error(status: int, code: str, text: str) -> Answer:
    return Answer(status=status, content=msgspec.json.encode({"error": code, "error_description": text}))
