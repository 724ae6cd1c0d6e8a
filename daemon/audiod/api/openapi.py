"""OpenAPI 3.1 out of operations: schemas come from the msgspec types that decode requests and encode answers.

Knows no endpoint: which there are is operations.py's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import msgspec

from audioproto.errors import AudiodError, Unauthorized

BYTES: dict[str, Any] = {"type": "string", "format": "binary"}
"""The schema of what is no text: audio, and files in forms."""

TEXT: dict[str, Any] = {"type": "string"}

Content = Any
"""What a body is made of: a type that msgspec knows, a schema, or a tuple of these, of which it is one."""


@dataclass(frozen=True, slots=True)
class Events:
    """Server-sent events: `data:` is one of `types` in JSON."""

    types: tuple[type, ...]


_IN_PATH = re.compile(r"{(\w+)}")


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart form: the type of its text fields, and its files with what they are. All files are required."""

    fields: Content
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parameter:
    """In the query; those in the path are strings and are found there."""

    name: str
    text: str
    type: Content = str


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `answers` are by content type; `errors` is what may be raised beside what always may."""

    method: str
    path: str
    tag: str
    summary: str
    text: str = ""
    body: Content | None = None
    """JSON, if there is any."""
    is_body_optional: bool = False
    forms: Sequence[Form] = ()
    """Any one of them."""
    parameters: Sequence[Parameter] = ()
    answers: Mapping[str, Content] = field(default_factory=dict)
    status: int = 200
    other_statuses: Mapping[int, Content] = field(default_factory=dict)
    """Answers with other statuses that are no errors, in JSON."""
    errors: Sequence[type[AudiodError]] = ()

    @property
    def needs_key(self) -> bool:
        return self.path.startswith("/v1/")


def document(operations: Sequence[Operation], info: Mapping[str, Any], error: type, tags: Mapping[str, str]) -> bytes:
    """The description in JSON. `error` is the type of every error's body, `tags` what the operations' tags mean."""
    schemas = _Schemas(operations, error)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": info,
            "servers": [{"url": "."}],
            "tags": [{"name": name, "description": text} for name, text in tags.items()],
            "paths": paths,
            "components": {
                "schemas": schemas.components,
                "headers": _HEADERS,
                "responses": {
                    "Error": {
                        "description": "An error, always in this shape.",
                        "headers": _headers("x-request-id", "Retry-After", "x-should-retry"),
                        "content": {"application/json": {"schema": schemas.of(error)}},
                    }
                },
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


_HEADERS = {
    "x-request-id": {"description": "The request's id, as in the daemon's log.", "schema": TEXT},
    "Retry-After": {"description": "Seconds until another try makes sense.", "schema": {"type": "integer"}},
    "x-should-retry": {"description": "`false` where no second try will help.", "schema": TEXT},
}


class _Schemas:
    """The schemas of all types that the operations name, made together so that each has one name."""

    def __init__(self, operations: Sequence[Operation], error: type) -> None:
        types: list[Any] = [error]
        for operation in operations:
            forms = (form.fields for form in operation.forms)
            named = (operation.body, *forms, *(each.type for each in operation.parameters))
            answers = (*operation.answers.values(), *operation.other_statuses.values())
            types += [each for content in (*named, *answers) for each in _types(content)]
        made, self.components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
        self._made = list(zip(types, made, strict=True))

    def of(self, content: Content) -> dict[str, Any]:
        if isinstance(content, Events):
            data = {"type": "string", "contentMediaType": "application/json", "contentSchema": self.of(content.types)}
            return {"type": "object", "properties": {"data": data}, "required": ["data"]}
        if isinstance(content, tuple):
            return {"anyOf": [self.of(each) for each in content]}
        if isinstance(content, dict):
            return content
        return next(schema for known, schema in self._made if known is content or known == content)

    def of_form(self, form: Form) -> dict[str, Any]:
        """The fields' own object with the files added to it, and arrays by the names that they have on the wire."""
        fields: dict[str, Any] = self.components[self.of(form.fields)["$ref"].rsplit("/", 1)[1]]
        properties: dict[str, Any] = {name: BYTES | {"description": text} for name, text in form.files.items()}
        for name, schema in fields["properties"].items():
            properties[f"{name}[]" if schema.get("type") == "array" else name] = schema
        return fields | {"properties": properties, "required": [*form.files, *fields.get("required", [])]}


def _types(content: Content) -> list[Any]:
    content = content.types if isinstance(content, Events) else content
    alternatives = content if isinstance(content, tuple) else (content,)
    return [each for each in alternatives if each is not None and not isinstance(each, dict)]


def _operation(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": f"{operation.method.lower()}{re.sub(r'[^a-z0-9]+', '_', operation.path)}".strip("_"),
    }
    if operation.text:
        described["description"] = operation.text
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _IN_PATH.findall(operation.path)
    ]
    parameters += [
        {"name": each.name, "in": "query", "description": each.text, "schema": schemas.of(each.type)}
        for each in operation.parameters
    ]
    if parameters:
        described["parameters"] = parameters
    content = {}
    if operation.body is not None:
        content["application/json"] = {"schema": schemas.of(operation.body)}
    if operation.forms:
        forms = [schemas.of_form(form) for form in operation.forms]
        content["multipart/form-data"] = {"schema": forms[0] if len(forms) == 1 else {"anyOf": forms}}
    if content:
        described["requestBody"] = {"required": not operation.is_body_optional, "content": content}
    described["responses"] = _responses(operation, schemas)
    if operation.needs_key:
        described["security"] = [{"key": []}, {}]  # a daemon without keys wants none
    return described


def _responses(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": HTTPStatus(operation.status).phrase,
        "headers": _headers("x-request-id"),
    }
    if operation.answers:
        answer["content"] = {kind: {"schema": schemas.of(of)} for kind, of in operation.answers.items()}
    responses = {str(operation.status): answer}
    for status, of in operation.other_statuses.items():
        content = {"application/json": {"schema": schemas.of(of)}}
        responses[str(status)] = answer | {"description": HTTPStatus(status).phrase, "content": content}
    codes: dict[int, list[str]] = {}
    errors: list[type[AudiodError]] = [*operation.errors, AudiodError]
    if operation.needs_key:
        errors.append(Unauthorized)
    for error in errors:
        codes.setdefault(error.http_status, []).append(f"`{error.code}`")
    for status, names in sorted(codes.items()):
        text = f"{HTTPStatus(status).phrase}: {', '.join(names)}"
        responses[str(status)] = {"$ref": "#/components/responses/Error", "description": text}
    return responses


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
