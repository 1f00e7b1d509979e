"""The page `/docs`: the OpenAPI document made readable, by the server itself.

Promises: the page needs nothing from another host, and its policy (CSP) lets nothing else in; it
is made once, whoever asks under whatever name: anyone may ask, and making it is work.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from flask import Flask, Response, render_template, request
from markupsafe import escape

from app.errors import TABLE
from app.openapi import VERSION, Document, document
from app.wire import JSON

CACHE: Final = "rejoin.openapi"
PAGE_CACHE: Final = "rejoin.docs"
# Stands for the server's address in the page that is kept.
BASE: Final = "base.invalid"
POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# What a newcomer looks for, before the rest.
FIRST: Final = ("sync", "accounts", "devices", "spaces")
# Schemas refer to each other; a page shows so many levels.
DEPTH_MAX: Final = 6


@dataclass(frozen=True, slots=True)
class Property:
    """A row of a schema's table."""

    level: int
    name: str
    type: str
    required: bool
    text: str


@dataclass(frozen=True, slots=True)
class Operation:
    """An endpoint as the page shows it."""

    id: str
    method: str
    path: str
    summary: str
    text: str
    token: bool
    parameters: list[Property]
    body: list[Property]
    status: str
    media: str
    answer: list[Property]
    errors: list[tuple[str, list[str]]]
    curl: str


def document_json(app: Flask) -> bytes:
    """The document as JSON, made once for each app."""
    return msgspec.json.encode(_document(app))


def _document(app: Flask) -> Document:
    if CACHE not in app.extensions:
        app.extensions[CACHE] = document(app)
    made: Document = app.extensions[CACHE]
    return made


def page(app: Flask, base: str) -> str:
    """The page as HTML; `base` is the server's own address, for the curl lines."""
    # Under a prefix its links are others: not the page that all others get.
    if request.script_root:
        made = _page(app)
    else:
        made = app.extensions.get(PAGE_CACHE) or _page(app)
        app.extensions[PAGE_CACHE] = made
    return made.replace(BASE, str(escape(base.rstrip("/"))))


def _page(app: Flask) -> str:
    made = _document(app)
    groups: dict[str, list[Operation]] = {tag: [] for tag in FIRST}
    for path, method, operation in _operations(made):
        shown = _operation(made, path, method, operation, BASE)
        groups.setdefault(operation["tags"][0], []).append(shown)
    return render_template("docs.html", groups=groups, errors=_errors(), version=VERSION)


def secured(response: Response) -> Response:
    """The page with a policy that lets in its own style and script, and nothing else."""
    response.headers["Content-Security-Policy"] = POLICY
    return response


def _operations(made: Document) -> Iterator[tuple[str, str, Document]]:
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            yield path, method.upper(), operation


def _errors() -> list[tuple[int, str, str, str]]:
    """(status, title, code, sentence) of every error, by status."""
    return [
        (row.status, row.title, code, text)
        for class_, row in TABLE.items()
        for code, text in class_.CODES.items()
    ]


def _operation(made: Document, path: str, method: str, operation: Document, base: str) -> Operation:
    responses = operation["responses"]
    status = next(code for code in responses if int(code) < 400)
    media = responses[status].get("content", {})
    return Operation(
        id=operation["operationId"],
        method=method,
        path=path,
        summary=operation["summary"],
        text=operation.get("description", ""),
        token=operation.get("security") != [],
        parameters=[_parameter(made, one) for one in operation["parameters"]],
        body=list(_properties(made, _body_schema(operation))),
        status=status,
        media=", ".join(media),
        answer=list(_properties(made, media[JSON]["schema"] if JSON in media else {})),
        errors=[(code, _codes(one)) for code, one in responses.items() if code != status],
        curl=_curl(made, path, method, operation, base),
    )


def _codes(response: Document) -> list[str]:
    schema = response["content"]["application/problem+json"]["schema"]
    codes: list[str] = schema["allOf"][1]["properties"]["code"]["enum"]
    return codes


def _body_schema(operation: Document) -> Document:
    content = operation.get("requestBody", {}).get("content", {})
    schema: Document = content[JSON]["schema"] if JSON in content else {}
    return schema


def _parameter(made: Document, one: Document) -> Property:
    text = one.get("description", "")
    place = f"{one['name']} ({one['in']})"
    return Property(0, place, _type(made, one["schema"]), one.get("required", False), text)


# Schemas ------------------------------------------------------------------------------------


def _resolved(made: Document, schema: Document) -> Document:
    if "$ref" in schema:
        found: Document = made["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return found
    # apispec writes a reference with a sentence beside it as an allOf of one.
    if len(schema.get("allOf", ())) == 1:
        return _resolved(made, schema["allOf"][0])
    return schema


def _properties(made: Document, schema: Document, level: int = 0) -> Iterator[Property]:
    """The rows of an object's table, each followed by those of what it holds."""
    whole = _resolved(made, schema)
    for name, inner in whole.get("properties", {}).items():
        text = inner.get("description", "")
        required = name in whole.get("required", ())
        yield Property(level, name, _type(made, inner), required, text)
        if level < DEPTH_MAX:
            yield from _properties(made, _held(made, inner), level + 1)


def _held(made: Document, schema: Document) -> Document:
    """The object that a value is, or that it is a list or a map of; {} where there is none."""
    whole = _resolved(made, schema)
    if whole.get("type") == "array":
        return _held(made, whole.get("items") or {})
    if isinstance(whole.get("additionalProperties"), dict):
        return _held(made, whole["additionalProperties"])
    for one in whole.get("anyOf", ()):
        if "properties" in _resolved(made, one):
            return _resolved(made, one)
    return whole if "properties" in whole else {}


def _type(made: Document, schema: Document) -> str:
    whole = _resolved(made, schema)
    if "const" in whole:
        return json.dumps(whole["const"])
    if "enum" in whole:
        return " | ".join(json.dumps(one) for one in whole["enum"])
    if "anyOf" in whole:
        return " | ".join(_type(made, one) for one in whole["anyOf"])
    if whole.get("type") == "array":
        return f"[{_type(made, whole.get('items') or {})}]"
    if isinstance(whole.get("additionalProperties"), dict):
        return f"{{…: {_type(made, whole['additionalProperties'])}}}"
    kind = whole.get("type", "any")
    name = " | ".join(kind) if isinstance(kind, list) else str(kind)
    return f"{name} ({whole['format']})" if "format" in whole else name


# Trying it ----------------------------------------------------------------------------------


def _curl(made: Document, path: str, method: str, operation: Document, base: str) -> str:
    words = ["curl -sS"]
    if method != "GET":
        words.append(f"-X {method}")
    if operation.get("security") != []:
        words.append('-H "Authorization: Bearer $TOKEN"')
    if "requestBody" in operation:
        body = operation["requestBody"]["content"][JSON]
        example = body.get("example") or _example(made, body["schema"])
        words += ["-H 'Content-Type: application/json'", f"-d '{_quoted(example)}'"]
    words.append(f"'{base}{path.replace('{space}', 'me')}'")
    return " \\\n  ".join(words)


def _quoted(example: object) -> str:
    return json.dumps(example, ensure_ascii=False).replace("'", "'\\''")


def _example(made: Document, schema: Document, level: int = 0) -> Any:
    whole = _resolved(made, schema)
    if "properties" in whole and level < DEPTH_MAX:
        return {
            name: _example(made, inner, level + 1)
            for name, inner in whole["properties"].items()
            if name in whole.get("required", ())
        }
    if whole.get("enum"):
        return whole["enum"][-1]
    kind = whole.get("type")
    return {"integer": 0, "number": 0, "boolean": False, "array": [], "object": {}}.get(
        kind if isinstance(kind, str) else "", "…"
    )
