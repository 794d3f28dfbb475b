"""Whether a request is one that the vendors' published descriptions know: method, path, query, headers, body."""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml
from openapi_schema_validator import OAS30Validator
from referencing import Registry
from referencing.jsonschema import DRAFT4

from gateway import Answer, HttpClient, Struct

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "specs"
_FILES = {"klaviyo": "klaviyo.yaml", "pinterest": "pinterest-v5.yaml"}
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class Request(Struct, frozen=True, kw_only=True):
    """One request as it left."""

    method: str
    url: str
    headers: dict[str, str]
    content: bytes | None = None


class Recorder:
    """An HTTP client that keeps every request before it is made."""

    def __init__(self, inner: HttpClient) -> None:
        self._inner = inner
        self.requests: list[Request] = []

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        timeout_s: float = 30.0,
        max_bytes: int = 1_048_576,
    ) -> Answer:
        """Keep and send one request."""
        self.requests.append(Request(method=method, url=url, headers=dict(headers or {}), content=content))
        return await self._inner.request(
            method, url, headers=headers, content=content, timeout_s=timeout_s, max_bytes=max_bytes
        )


def is_known() -> bool:
    """Whether the descriptions are here."""
    return all((FOLDER / name).exists() for name in _FILES.values())


@cache
def _document(vendor: str) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((FOLDER / _FILES[vendor]).read_text(), Loader=loader)


@cache
def _registry(vendor: str) -> Any:
    resource: Any = DRAFT4.create_resource(_document(vendor))
    empty: Any = Registry()
    return empty.with_resource("urn:spec", resource)


def _errors(vendor: str, schema: Any, value: Any, where: str) -> list[str]:
    absolute = json.loads(json.dumps(schema, default=str).replace('"#/', '"urn:spec#/'))
    found = OAS30Validator(absolute, registry=_registry(vendor)).iter_errors(value)
    return [f"{where}: {error.message}" for error in found]


def _resolved(vendor: str, item: Any) -> Any:
    while "$ref" in item:
        found = _document(vendor)
        for part in item["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        item = found
    return item


def _properties(vendor: str, schema: Any) -> set[str]:
    schema = _resolved(vendor, schema)
    names = set(schema.get("properties", ()))
    for part in schema.get("allOf", ()):
        names |= _properties(vendor, part)
    return names


def problems(vendor: str, request: Request) -> list[str]:
    """Return what the description does not allow in a request."""
    path = urlsplit(request.url).path
    if vendor == "pinterest":
        path = path.removeprefix("/v5")
    for template, item in _document(vendor)["paths"].items():
        names = re.findall(r"\{(\w+)\}", template)
        match = re.fullmatch(re.sub(r"\{\w+\}", "([^/]+)", template), path)
        if match and request.method.lower() in item:
            operation = item[request.method.lower()]
            given = dict(zip(names, match.groups(), strict=True))
            shared = [_resolved(vendor, one) for one in item.get("parameters", ())]
            parameters = shared + [_resolved(vendor, one) for one in operation.get("parameters", ())]
            return [
                *_of_parameters(vendor, parameters, given, request),
                *_of_filter(operation, request),
                *_of_security(vendor, operation, request),
                *_of_body(vendor, operation, request),
            ]
    return [f"{request.method} {path} is not described"]


def _of_parameters(vendor: str, parameters: list[Any], given: Mapping[str, str], request: Request) -> list[str]:
    pairs = parse_qsl(urlsplit(request.url).query, keep_blank_values=True, strict_parsing=bool("?" in request.url))
    values = {"query": dict(pairs), "path": dict(given), "header": {k.lower(): v for k, v in request.headers.items()}}
    found = [f"{name} is given twice" for name in {name for name, _ in pairs} if len(dict(pairs)) != len(pairs)]
    known = {one["name"] for one in parameters if one["in"] == "query"}
    found += [f"query {name} is not described" for name in values["query"].keys() - known]
    for one in parameters:
        text = values[one["in"]].get(one["name"])
        if text is None:
            found += [f"{one['name']} is missing"] if one.get("required") else []
            continue
        kind = one["schema"].get("type")
        value = text.split(",") if kind == "array" else int(text) if kind == "integer" else text
        found += _errors(vendor, one["schema"], value, one["name"])
    return found


def _of_filter(operation: Any, request: Request) -> list[str]:
    text = dict(parse_qsl(urlsplit(request.url).query)).get("filter")
    if text is None:
        return []
    match = re.fullmatch(r"([a-z-]+)\((\w+),(.+)\)", text)
    allowed = operation.get("x-klaviyo-filters", {})
    if match is None or match[2] not in allowed:
        return [f"filter {text}"]
    about = allowed[match[2]]
    operators = [one for some in about["operators"].values() for one in some]
    is_moment = about["value"].get("format") != "date-time" or _MOMENT.fullmatch(match[3])
    return [] if match[1] in operators and is_moment else [f"filter {text}"]


def _of_security(vendor: str, operation: Any, request: Request) -> list[str]:
    schemes = {name for one in operation.get("security", _document(vendor).get("security", ())) for name in one}
    wanted = {"basic": ("Basic ",), "Klaviyo-API-Key": ("Klaviyo-API-Key ", "Bearer ")}
    given = request.headers.get("authorization", "")
    return [] if any(given.startswith(wanted.get(scheme, ("Bearer ",))) for scheme in schemes) else ["authorization"]


def _of_body(vendor: str, operation: Any, request: Request) -> list[str]:
    body = operation.get("requestBody")
    if body is None:
        return [] if not request.content else ["there is a body"]
    media = request.headers.get("content-type", "")
    if media not in body["content"]:
        return [f"content-type {media}"]
    schema = body["content"][media]["schema"]
    content = (request.content or b"").decode()
    value = dict(parse_qsl(content, strict_parsing=True)) if "form" in media else json.loads(content)
    resolved = _resolved(vendor, schema)
    if "discriminator" in resolved:  # without oneOf validators pass over it
        schema = {"$ref": resolved["discriminator"]["mapping"][value[resolved["discriminator"]["propertyName"]]]}
    # told in the operation's text only
    extra = value.keys() - _properties(vendor, schema) - {"continuous_refresh"}
    return [*_errors(vendor, schema, value, "body"), *(f"body {name} is not described" for name in extra)]


def all_problems(vendor: str, requests: Iterable[Request]) -> list[str]:
    """Return every problem of every request, with the request's method and path."""
    return [
        f"{request.method} {urlsplit(request.url).path}: {problem}"
        for request in requests
        for problem in problems(vendor, request)
    ]
