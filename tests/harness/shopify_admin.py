"""A stand-in of one shop's Admin API on a free port: subscriptions, web pixel, orders, tokens, and scripted faults."""

import base64
import json
import re
import threading
from collections import deque
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

SHOP = "example.myshopify.com"
TOKEN = "shpat_a-token-that-nobody-may-see"
VERSION = "2026-10"
Reply = tuple[int, dict[str, str], Any]

THROTTLED: Reply = (
    200,
    {},
    {
        "errors": [{"message": "Throttled", "extensions": {"code": "THROTTLED"}}],
        "extensions": {
            "cost": {
                "requestedQueryCost": 110,
                "actualQueryCost": None,
                "throttleStatus": {"maximumAvailable": 100.0, "currentlyAvailable": 10, "restoreRate": 50.0},
            }
        },
    },
)


def denied(field: str, scope: str) -> dict[str, Any]:
    """Return what GraphQL answers an app without a scope."""
    message = f"Access denied for {field} field. Required access: `{scope}` access scope."
    return {"errors": [{"message": message, "extensions": {"code": "ACCESS_DENIED"}}], "data": None}


class ShopifyAdmin:
    """
    One shop, one app.

    ``subscriptions``, ``orders`` and ``pixel`` are its state; ``refusals`` maps a topic to the message with which it is
    refused; each of ``faults`` answers one call in place of the shop; ``calls`` are the root fields and REST paths
    asked for, in order.
    """

    def __init__(self) -> None:
        self.token = TOKEN
        self.client: tuple[str, str] | None = None
        self.subscriptions: list[dict[str, Any]] = []
        self.page = 100
        self.orders: list[dict[str, Any]] = []
        self.refusals: dict[str, str] = {}
        self.pixel: dict[str, Any] | None = None
        self.has_extension = True
        self.may_pixel = True
        self.faults: deque[Reply] = deque()
        self.calls: list[str] = []
        self._made = 0

    def __enter__(self) -> Self:
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, body: bytes) -> None:
                status, headers, answer = shop.answer(self.path, dict(self.headers.items()), body)
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
                """Stay silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it listens: ``admin_base_url``."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def topics(self) -> dict[str, str]:
        """Return each subscribed topic with its address."""
        return {one["topic"]: one["uri"] for one in self.subscriptions}

    def add(self, topic: str, uri: str, **more: Any) -> None:
        """Add a subscription."""
        self._made += 1
        one = {"id": f"gid://shopify/WebhookSubscription/{self._made}", "topic": topic, "uri": uri, "format": "JSON"}
        self.subscriptions.append({**one, "filter": None, "includeFields": [], **more})

    def answer(self, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer one request."""
        if self.faults:
            self.calls.append("fault")
            return self.faults.popleft()
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/admin/oauth/access_token":
            return self._grant(body)
        if headers.get("X-Shopify-Access-Token") != self.token:
            return 401, {}, {"errors": "[API] Invalid API key or access token (unrecognized login or wrong password)"}
        if not parts.path.startswith(f"/admin/api/{VERSION}/"):
            return 404, {}, {"errors": "Not Found"}
        resource = parts.path.removeprefix(f"/admin/api/{VERSION}/")
        if resource == "graphql.json":
            return 200, {}, self._graphql(json.loads(body))
        self.calls.append(resource)
        if resource == "orders/count.json":
            return 200, {}, {"count": len(self._chosen(query))}
        return self._orders(query) if resource == "orders.json" else (404, {}, {"errors": "Not Found"})

    def _grant(self, body: bytes) -> Reply:
        self.calls.append("token")
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if form.get("grant_type") != "client_credentials" or self.client != (form["client_id"], form["client_secret"]):
            return 400, {}, {"error": "invalid_client"}
        return 200, {}, {"access_token": self.token, "scope": "read_orders", "expires_in": 86_399}

    def _graphql(self, call: dict[str, Any]) -> dict[str, Any]:
        found = re.search(r"\{\s*(\w+)", call["query"])
        assert found
        self.calls.append(found[1])
        variables = call["variables"]
        handler = {
            "webhookSubscriptions": self._list,
            "webhookSubscriptionCreate": self._create,
            "webhookSubscriptionUpdate": self._update,
            "webPixel": self._pixel,
            "webPixelCreate": self._pixel_create,
            "webPixelUpdate": self._pixel_update,
        }[found[1]]
        data = handler(variables)
        return data if "errors" in data else {"data": {found[1]: data["value"]}}

    def _list(self, variables: dict[str, Any]) -> dict[str, Any]:
        start = int(variables["after"] or 0)
        end = start + self.page
        info = {"hasNextPage": end < len(self.subscriptions), "endCursor": str(end)}
        return {"value": {"nodes": self.subscriptions[start:end], "pageInfo": info}}

    def _create(self, variables: dict[str, Any]) -> dict[str, Any]:
        topic, wanted = variables["topic"], variables["subscription"]
        if topic in self.refusals:
            return _refused(self.refusals[topic])
        if any(one["topic"] == topic and one["uri"] == wanted["uri"] for one in self.subscriptions):
            return _refused("Address for this topic has already been taken")
        self.add(topic, wanted["uri"], format=wanted["format"])
        return {"value": {"webhookSubscription": {"id": "new"}, "userErrors": []}}

    def _update(self, variables: dict[str, Any]) -> dict[str, Any]:
        for one in self.subscriptions:
            if one["id"] == variables["id"]:
                one.update(variables["subscription"])
                return {"value": {"webhookSubscription": {"id": one["id"]}, "userErrors": []}}
        return _refused("Webhook subscription does not exist")

    def _pixel(self, _variables: dict[str, Any]) -> dict[str, Any]:
        if not self.may_pixel:
            return denied("webPixel", "read_pixels")
        if self.pixel is None:
            message = "No web pixel was found for this app."
            return {"errors": [{"message": message, "extensions": {"code": "RESOURCE_NOT_FOUND"}}], "data": None}
        return {"value": self.pixel}

    def _pixel_create(self, variables: dict[str, Any]) -> dict[str, Any]:
        if not self.has_extension:
            return _refused("No extension found.")
        self.pixel = {"id": "gid://shopify/WebPixel/1", "settings": variables["pixel"]["settings"]}
        return {"value": {"webPixel": {"id": self.pixel["id"]}, "userErrors": []}}

    def _pixel_update(self, variables: dict[str, Any]) -> dict[str, Any]:
        assert self.pixel is not None
        self.pixel = {"id": variables["id"], "settings": variables["pixel"]["settings"]}
        return {"value": {"webPixel": {"id": self.pixel["id"]}, "userErrors": []}}

    def _chosen(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        status = query.get("financial_status")
        return [
            order
            for order in self.orders
            if order["updated_at"] >= query["updated_at_min"] and status in (None, order.get("financial_status"))
        ]

    def _orders(self, query: dict[str, str]) -> Reply:
        if "page_info" in query:
            if query.keys() != {"page_info", "limit"}:
                return 400, {}, {"errors": "updated_at_min cannot be passed when page_info is present"}
            state = json.loads(base64.urlsafe_b64decode(query["page_info"]))
        else:
            assert query["status"] == "any"
            state = {"from": 0, "query": query}
        start, limit = state["from"], int(query["limit"])
        chosen = self._chosen(state["query"])
        headers = {}
        if start + limit < len(chosen):
            cursor = base64.urlsafe_b64encode(json.dumps({**state, "from": start + limit}).encode()).decode()
            link = f"https://{SHOP}/admin/api/{VERSION}/orders.json?{urlencode({'limit': limit, 'page_info': cursor})}"
            headers["Link"] = f'<https://{SHOP}/x?page_info=before>; rel="previous", <{link}>; rel="next"'
        return 200, headers, {"orders": chosen[start : start + limit]}


def _refused(message: str) -> dict[str, Any]:
    return {"value": {"userErrors": [{"field": ["webhookSubscription"], "message": message}]}}
