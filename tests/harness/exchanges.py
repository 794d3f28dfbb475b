"""
Whether what passes between the gateway and the stand-ins is what the official descriptions allow, both ways.

    exchanges = Exchanges()
    sandbox.log.watch = exchanges
    ...
    assert exchanges.problems == []
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import yaml
from openapi_schema_validator import OAS30Validator
from referencing import Registry
from referencing.jsonschema import DRAFT4

from gateway.sandbox.answers import Answer
from gateway.sandbox.calls import Call

SPECS = Path(__file__).resolve().parents[3] / "shared" / "specs"
FILES = {"pinterest": "pinterest-v5.yaml", "klaviyo": "klaviyo.yaml"}


def is_known() -> bool:
    """Whether the descriptions are here; without them nothing is checked."""
    return all((SPECS / name).exists() for name in FILES.values())


class Exchanges:
    """Watches calls: ``problems`` has what no description allows, ``described`` counts the calls that one covers."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.described = 0

    def __call__(self, vendor: str, call: Call, answer: Answer | None) -> None:
        """Check one call; the answer too, where it was made."""
        if not is_known():
            return
        pointer = _operation(vendor, call)
        if pointer is None:
            return
        self.described += 1
        for problem in [*_request(vendor, pointer, call), *_answer(vendor, pointer, answer)]:
            self.problems.append(f"{call.method} {call.path}: {problem}")


@cache
def _document(vendor: str) -> Any:
    return yaml.load((SPECS / FILES[vendor]).read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@cache
def _validator(vendor: str, pointer: str) -> Any:
    resource: Any = DRAFT4.create_resource(_document(vendor))
    registry: Any = Registry().with_resource("urn:spec", resource)
    return OAS30Validator({"$ref": f"urn:spec#{pointer}"}, registry=registry)


def _at(vendor: str, pointer: str) -> Any:
    """Return what is at a pointer, and its references followed."""
    found = _document(vendor)
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = found[int(name)] if isinstance(found, list) else found[name]
        if isinstance(found, dict) and "$ref" in found:
            found = _at(vendor, found["$ref"][1:])
    return found


def _operation(vendor: str, call: Call) -> str | None:
    path = call.path.removeprefix("/v5") if vendor == "pinterest" else call.path
    parts = path.split("/")
    for template, operations in _document(vendor)["paths"].items():
        wanted = template.split("/")
        is_same = len(wanted) == len(parts) and all(
            one == other or one.startswith("{") for one, other in zip(wanted, parts, strict=True)
        )
        if is_same and call.method.lower() in operations:
            return f"/paths/{template.replace('/', '~1')}/{call.method.lower()}"
    return None


def _request(vendor: str, pointer: str, call: Call) -> Iterator[str]:
    operation = _at(vendor, pointer)
    parameters = {}
    for index, entry in enumerate(operation.get("parameters", [])):
        place = entry.get("$ref", f"#{pointer}/parameters/{index}")[1:]
        parameter = _at(vendor, place)
        parameters[parameter["in"], parameter["name"]] = place
        given = call.headers if parameter["in"] == "header" else call.args
        if parameter.get("required") and parameter["in"] != "path" and parameter["name"].lower() not in given:
            yield f"{parameter['in']} {parameter['name']}: missing"
    for name, text in call.query:
        schema = f"{parameters.get(('query', name), '')}/schema"
        if schema == "/schema":
            yield f"query {name}: not described"
        else:
            yield from _broken(vendor, schema, _typed(_at(vendor, schema), text), f"query {name}")
    if "requestBody" in operation:
        yield from _body(vendor, f"{pointer}/requestBody/content", call)


def _body(vendor: str, pointer: str, call: Call) -> Iterator[str]:
    media = call.headers.get("content-type", "").partition(";")[0]
    if media not in _at(vendor, pointer):
        yield f"content-type {media!r}: not described"
        return
    is_form = media.endswith("urlencoded")
    body = dict(parse_qsl(call.body.decode())) if is_form else json.loads(call.body)
    schema = f"{pointer}/{media.replace('/', '~1')}/schema"
    yield from _broken(vendor, schema, body, "body")
    yield from _discriminated(vendor, schema, body, "body")


def _answer(vendor: str, pointer: str, answer: Answer | None) -> Iterator[str]:
    responses = _at(vendor, pointer)["responses"]
    if answer is None or answer.status == 302:
        return
    status = next((one for one in (str(answer.status), f"{answer.status // 100}XX", "default") if one in responses), "")
    if not status:
        yield f"status {answer.status}: not described"
        return
    described = _at(vendor, f"{pointer}/responses/{status}")
    shared = responses[status].get("$ref", "")
    pointer = shared[1:] or f"{pointer}/responses/{status}"
    if answer.media_type not in described["content"]:
        yield f"answer of type {answer.media_type}: not described"
        return
    schema = f"{pointer}/content/{answer.media_type.replace('/', '~1')}/schema"
    content = json.loads(answer.content)
    yield from _broken(vendor, schema, content, f"answer {answer.status}")
    yield from _discriminated(vendor, schema, content, f"answer {answer.status}")


def _broken(vendor: str, pointer: str, value: Any, place: str) -> Iterator[str]:
    for error in _validator(vendor, pointer).iter_errors(value):
        yield f"{place} {'.'.join(map(str, error.absolute_path))}: {error.message}"


def _discriminated(vendor: str, pointer: str, value: Any, place: str) -> Iterator[str]:
    """Check the variant that a discriminator names: validators leave it alone where no ``oneOf`` lists the variants."""
    rule = _at(vendor, pointer).get("discriminator")
    if not rule or not isinstance(value, dict):
        return
    mapped = rule["mapping"].get(value.get(rule["propertyName"]))
    if mapped is None:
        yield f"{place}: {rule['propertyName']} names no variant"
    else:
        yield from _broken(vendor, mapped[1:], value, place)


def _typed(schema: Any, text: str) -> Any:
    kind = schema.get("type")
    if kind == "array":
        return text.split(",")
    if kind == "integer":
        return int(text) if text.lstrip("-").isdecimal() else text
    return text
