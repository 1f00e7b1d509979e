"""The API's description, OpenAPI 3.1, made from what the endpoints are made of.

Promises: a route without `@describe` fails a test, and so does an error code that is not in the
document; bodies and answers are described by the very classes that read and write them, so the
document can't promise what the server doesn't do.

An endpoint says beside its route what it takes and gives:

    @blueprint.post("/spaces/<space:space>/push")
    @describe(
        "Push changes to one space",
        body=PushBody,                  # a marshmallow Shape or a msgspec struct
        answer=PushAnswer,              # a msgspec struct; None for an answer without a body
        status=200,
        query=PullQuery,                # a marshmallow Shape: the query parameters
        errors=[Forbidden, "counter_gap", "device_fork"],   # classes, or single codes
    )
    def push(space: SpaceRef) -> Response: ...

What all endpoints of a kind share is added by itself: a body brings 400, 413 and 415, an answer
406, `auth=True` (the default) 401, a path parameter 404, and 500 and 503 are everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Flask
from marshmallow import Schema
from werkzeug.routing import Rule

from app.errors import PROBLEM, TABLE, row_of
from app.wire import JSON, MSGPACK
from sync.errors import (
    Internal,
    NotAcceptable,
    SyncError,
    TooLarge,
    Unavailable,
    UnsupportedMedia,
)

View = TypeVar("View", bound=Callable[..., Any])
Document = dict[str, Any]
ErrorRef = type[SyncError] | str

VERSION: Final = "0.1.0"
ATTRIBUTE: Final = "rejoin_description"
REF: Final = "#/components/schemas/{name}"

BODY_ERRORS: Final[tuple[ErrorRef, ...]] = (
    "malformed_body",
    "malformed_request",
    "duplicate_key",
    "too_deep",
    "bad_encoding",
    "invalid_text",
    TooLarge,
    UnsupportedMedia,
)
AUTH_ERRORS: Final[tuple[ErrorRef, ...]] = (
    "token_missing",
    "token_expired",
    "token_invalid",
    "device_revoked",
    "device_fork",
)
COMMON_ERRORS: Final[tuple[ErrorRef, ...]] = (Internal, Unavailable)

PATH_PARAMETERS: Final[dict[str, Document]] = {
    "space": {
        "description": "A space's id, or `me` for the personal space.",
        "schema": {"anyOf": [{"type": "string", "format": "uuid"}, {"const": "me"}]},
    },
    "device": {
        "description": "A device's id.",
        "schema": {"type": "string", "format": "uuid"},
    },
    "email": {
        "description": "The email of an account.",
        "schema": {"type": "string", "format": "email"},
    },
}


@dataclass(frozen=True, slots=True)
class Description:
    """What an endpoint takes and gives. See the module's docstring."""

    summary: str
    detail: str
    body: type[Schema | msgspec.Struct] | None
    answer: type[msgspec.Struct] | None
    status: int
    query: type[Schema] | None
    errors: Sequence[ErrorRef]
    auth: bool
    media: Sequence[str]
    example: Mapping[str, object] | None


def describe(
    summary: str,
    *,
    body: type[Schema | msgspec.Struct] | None = None,
    answer: type[msgspec.Struct] | None = None,
    status: int = 200,
    query: type[Schema] | None = None,
    errors: Sequence[ErrorRef] = (),
    auth: bool = True,
    media: Sequence[str] = (JSON, MSGPACK),
    example: Mapping[str, object] | None = None,
) -> Callable[[View], View]:
    """Describe the endpoint; more words are taken from its docstring.

    `media`: what the answer's content types are, where they are not JSON and MessagePack.
    `example`: a body to try it with, where the one made from the schema would not work.
    """

    def mark(view: View) -> View:
        detail = " ".join((view.__doc__ or "").split())
        made = Description(
            summary, detail, body, answer, status, query, tuple(errors), auth, media, example
        )
        setattr(view, ATTRIBUTE, made)
        return view

    return mark


def described_routes(app: Flask) -> Iterator[tuple[Rule, str, Description | None]]:
    """(rule, method, its description) of all routes in path order, but the static files' and the
    console's: its pages are for people alone.
    """
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        if rule.endpoint != "static" and not rule.endpoint.startswith("console."):
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield rule, method, getattr(app.view_functions[rule.endpoint], ATTRIBUTE, None)


# The document -------------------------------------------------------------------------------


def document(app: Flask) -> Document:
    """The OpenAPI 3.1 document of all described routes."""
    plugin = MarshmallowPlugin(schema_name_resolver=_schema_name)
    spec = APISpec(
        title="Rejoin",
        version=VERSION,
        openapi_version="3.1.0",
        plugins=[plugin],
        info={"description": "An offline-first sync server."},
        security=[{"token": []}],
    )
    bearer = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    spec.components.security_scheme("token", bearer)
    routes = [(rule, method, found) for rule, method, found in described_routes(app) if found]
    for name, schema in _struct_schemas(found for _, _, found in routes).items():
        spec.components.schema(name, component=schema)
    spec.components.schema("Problem", component=_problem_schema())
    for rule, method, found in routes:
        operation = _operation(rule, method, found, plugin)
        spec.path(path_of(rule), operations={method.lower(): operation})
    made: Document = spec.to_dict()
    return made


def path_of(rule: Rule) -> str:
    """`/v1/spaces/<space:space>` as OpenAPI writes it: `/v1/spaces/{space}`."""
    return re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule)


def _schema_name(schema: Any) -> str:
    class_ = schema if isinstance(schema, type) else type(schema)
    return str(class_.__name__)


def _struct_schemas(found: Iterator[Description]) -> Document:
    types = {type_ for one in found for type_ in (one.body, one.answer) if _is_struct(type_)}
    ordered = sorted(types, key=_schema_name)
    _, components = msgspec.json.schema_components(
        ordered, schema_hook=_unknown_type, ref_template=REF
    )
    return dict(components)


def _is_struct(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


def _unknown_type(type_: object) -> Document:
    if type_ is object or type_ is msgspec.Raw:
        return {}
    raise NotImplementedError(type_)


def _operation(rule: Rule, method: str, found: Description, plugin: MarshmallowPlugin) -> Document:
    operation: Document = {
        "operationId": f"{method.lower()}_{rule.endpoint}".replace(".", "_"),
        "summary": found.summary,
        "tags": [rule.endpoint.partition(".")[0]],
        "parameters": _parameters(rule, found, plugin),
        "responses": _responses(rule, found),
    }
    if found.detail:
        operation["description"] = found.detail
    if found.body is not None:
        operation["requestBody"] = {"required": True, "content": _request_content(found)}
    if not found.auth:
        operation["security"] = []
    return operation


def _parameters(rule: Rule, found: Description, plugin: MarshmallowPlugin) -> list[Document]:
    in_path = [
        {"in": "path", "name": name, "required": True, **_path_parameter(name)}
        for name in re.findall(r"{(\w+)}", path_of(rule))
    ]
    if found.query is None or plugin.converter is None:
        return in_path
    in_query: list[Document] = plugin.converter.schema2parameters(found.query, location="query")
    return in_path + in_query


def _path_parameter(name: str) -> Document:
    return PATH_PARAMETERS.get(name, {"schema": {"type": "string", "maxLength": 128}})


def _request_content(found: Description) -> Document:
    type_ = found.body
    schema = _ref(type_) if _is_struct(type_) else type_
    content: Document = {"schema": schema}
    if found.example is not None:
        content["example"] = dict(found.example)
    return {JSON: content, MSGPACK: {"schema": schema}}


def _ref(type_: Any) -> Document:
    return {"$ref": REF.format(name=type_.__name__)}


# Answers and errors -------------------------------------------------------------------------


def _responses(rule: Rule, found: Description) -> Document:
    responses: Document = {str(found.status): _good_response(found)}
    codes_by_status: dict[int, list[str]] = {}
    for class_, code in sorted(_errors(rule, found), key=lambda pair: row_of(pair[0]).status):
        codes = codes_by_status.setdefault(row_of(class_).status, [])
        if code not in codes:
            codes.append(code)
    for status, codes in codes_by_status.items():
        responses[str(status)] = _problem_response(codes)
    return responses


def _good_response(found: Description) -> Document:
    made: Document = {"description": "Done." if found.answer is None else "The answer."}
    if found.answer is not None:
        made["content"] = {media: {"schema": _ref(found.answer)} for media in found.media}
    elif found.media != (JSON, MSGPACK):
        made["content"] = {media: {"schema": {}} for media in found.media}
    return made


def _problem_response(codes: list[str]) -> Document:
    narrowed = {"properties": {"code": {"enum": codes}}}
    schema = {"allOf": [{"$ref": REF.format(name="Problem")}, narrowed]}
    return {
        "description": ", ".join(f"`{code}`" for code in codes),
        "content": {PROBLEM: {"schema": schema}},
    }


def _errors(rule: Rule, found: Description) -> Iterator[tuple[type[SyncError], str]]:
    refs: list[ErrorRef] = list(found.errors)
    refs += BODY_ERRORS if found.body is not None else ()
    refs += AUTH_ERRORS if found.auth else ()
    refs += (NotAcceptable,) if found.answer is not None or found.body is not None else ()
    refs += ("bad_parameter",) if found.query is not None else ()
    refs += ("not_found",) if rule.arguments else ()
    refs += COMMON_ERRORS
    for ref in refs:
        yield from _codes(ref)


def _codes(ref: ErrorRef) -> list[tuple[type[SyncError], str]]:
    if not isinstance(ref, str):
        return [(ref, code) for code in ref.CODES]
    # A code that a change may also be refused with belongs to the request here.
    found = [(class_, ref) for class_ in TABLE if ref in class_.CODES]
    if not found:
        raise KeyError(f"{ref} is no error code")
    return found[:1]


def _problem_schema() -> Document:
    codes = {code: text for class_ in TABLE for code, text in class_.CODES.items()}
    return {
        "type": "object",
        "description": "RFC 9457. Members beyond these are named by the code's description.",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "A sentence for people."},
            "code": {
                "description": "Stable, for machines.",
                "oneOf": [{"const": code, "description": text} for code, text in codes.items()],
            },
        },
    }
