"""
The stand-in of Pinterest's event quality score: ``GET /v5/ad_accounts/{ad_account_id}/conversion_eqs``.

Source: Pinterest's OpenAPI description v5.23.0 (parameters, shape, enums). Documented nowhere, and thus the sandbox's
own: how the overall status follows from the components, and when an issue is told. It looks at the newest kept events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.routing import Route

from gateway.sandbox.audiences import Refused

if TYPE_CHECKING:
    from gateway.sandbox.calls import Call
    from gateway.sandbox.pinterest import PinterestSandbox

LOOKBACKS: Final = {"1d": 86_400.0, "14d": 1_209_600.0}
PLATFORMS: Final = {"web": "WEB", "app_android": "MOBILE_ANDROID", "app_ios": "MOBILE_IOS", "offline": "OFFLINE"}
#: The other values that the parameters may have: nothing of the sandbox came that way.
_OTHER_PLATFORMS: Final = {"MOBILE", "PINTEREST_WEB", "PINTEREST_ANDROID", "PINTEREST_IOS", "POINT_OF_SALE"}
_INGESTIONS: Final = {"TAG", "MMP", "FILE_UPLOAD", "CONVERSIONS_API", "NATIVE"}
_COMPONENTS: Final = {
    "hashed_email": ("user_data", "em"),
    "hashed_maid": ("user_data", "hashed_maids"),
    "ip_address": ("user_data", "client_ip_address"),
    "user_agent": ("user_data", "client_user_agent"),
    "click_id_epik": ("user_data", "click_id"),
    "advertiser_external_id": ("user_data", "external_id"),
    "external_event_id": ("event_id",),
    "order_id": ("custom_data", "order_id"),
    "order_value": ("custom_data", "value"),
    "product_id": ("custom_data", "content_ids"),
    "source_url": ("event_source_url",),
}
_SPARSE: Final = 10.0


def quality_route(sandbox: PinterestSandbox) -> Route:
    """Return the route of the score."""

    def answer(call: Call) -> list[dict[str, Any]]:
        args = call.args
        lookback, platform = args.get("lookback_period", ""), args.get("source_platform", "")
        if lookback not in LOOKBACKS:
            raise Refused(400, "Invalid request: lookback_period is not one of 1d, 14d")
        if platform and platform not in {*PLATFORMS.values(), *_OTHER_PLATFORMS}:
            raise Refused(400, "Invalid request: source_platform is not a platform")
        ingestion = args.get("ingestion_source", "CONVERSIONS_API")
        if ingestion not in _INGESTIONS:
            raise Refused(400, "Invalid request: ingestion_source is not a source")
        if ingestion != "CONVERSIONS_API":
            return []
        since = sandbox.audiences.clock() - LOOKBACKS[lookback]
        account = call.params["ad_account_id"]
        events = [one for one in sandbox.record.of_account(account) if one.get("event_time", 0) >= since]
        return [score for score in _scores(events, lookback) if platform in ("", score["source_platform"])]

    return sandbox.audiences.read_route("/ad_accounts/{ad_account_id}/conversion_eqs", answer)


def _scores(events: list[dict[str, Any]], lookback: str) -> list[dict[str, Any]]:
    by_platform: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_platform.setdefault(PLATFORMS[event["action_source"]], []).append(event)
    return [
        {
            "overall_status": _status(found),
            "quality_components": {name: _details(found, path) for name, path in _COMPONENTS.items()},
            "ingestion_source": "CONVERSIONS_API",
            "source_platform": platform,
            "lookback_period": lookback,
        }
        for platform, found in sorted(by_platform.items())
    ]


def _details(events: list[dict[str, Any]], path: tuple[str, ...]) -> dict[str, Any]:
    by_name: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_name.setdefault(event["event_name"], []).append(event)
    found = {}
    for name, some in sorted(by_name.items()):
        coverage = round(_coverage(some, path), 1)
        found[name] = {"coverage": coverage, "issues": _issues(path[-1], coverage)}
    return found


def _issues(field: str, coverage: float) -> list[dict[str, str]]:
    if coverage >= _SPARSE:
        return []
    reason = f"{field} is in {coverage:g} % of events."
    return [{"id": f"sparse_{field}", "name": f"Few events with {field}", "reason": reason}]


def _coverage(events: list[dict[str, Any]], path: tuple[str, ...]) -> float:
    return 100.0 * sum(1 for event in events if _has(event, path)) / len(events)


def _has(event: Any, path: tuple[str, ...]) -> bool:
    for step in path:
        event = (event or {}).get(step)
    return bool(event)


def _status(events: list[dict[str, Any]]) -> str:
    """Return GOOD for identifiers that resilience asks for, FAIR for address and browser alone."""
    client = min(_coverage(events, ("user_data", name)) for name in ("client_ip_address", "client_user_agent"))
    people = min(_coverage(events, ("user_data", name)) for name in ("em", "external_id"))
    if client >= 90 and people >= _SPARSE:
        return "GOOD"
    return "FAIR" if client >= 90 or people >= _SPARSE else "NEEDS_IMPROVEMENT"
