"""The API's description is whole: every route is in it, nothing else is, and it is made of the types in use."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from audiod.api import operations, speech
from audiod.api.app import ROUTES
from audioproto.errors import BadRequest


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    described: dict[str, Any] = json.loads(operations.document())
    return described


def values(node: object, key: str) -> Iterator[Any]:
    if isinstance(node, dict):
        if key in node:
            yield node[key]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from values(each, key)


def test_what_is_routed_is_described_and_what_is_described_is_routed(description: dict[str, Any]) -> None:
    routed = {(route.method, re.sub(r":[^{}]+}", "}", route.path)) for route in ROUTES}
    described = {(method.upper(), path) for path, methods in description["paths"].items() for method in methods}
    assert described == routed


def test_every_reference_leads_somewhere(description: dict[str, Any]) -> None:
    references = set(values(description, "$ref"))
    assert references
    for reference in references:
        place = description
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_operations_have_names_of_their_own_and_known_tags(description: dict[str, Any]) -> None:
    names = list(values(description["paths"], "operationId"))
    assert len(names) == len(set(names))
    assert {tag for tags in values(description["paths"], "tags") for tag in tags} == set(operations.TAGS)


def test_the_types_that_decode_requests_make_the_schemas(description: dict[str, Any]) -> None:
    speech = description["components"]["schemas"]["SpeechRequest"]
    assert {"input", "model", "voice", "speed"} <= set(speech["properties"])
    assert set(speech["required"]) == {"input", "model"}


@pytest.mark.parametrize(
    ("voice", "is_one"),
    [
        ("alloy", True),
        (None, True),
        ({"id": "alloy"}, True),
        ({"audio": "UklGRg==", "id": None}, True),
        ({}, False),
        ({"id": "alloy", "audio": "UklGRg=="}, False),
        ({"id": None, "audio": None}, False),
        ({"transcript": "Hello."}, False),
    ],
)
def test_a_voice_is_described_as_it_is_taken(description: dict[str, Any], voice: object, is_one: bool) -> None:
    schema = {"$ref": "#/components/schemas/SpeechRequest"} | {"components": description["components"]}
    body = {"model": "tts-1", "input": "x", "voice": voice}
    assert jsonschema.Draft202012Validator(schema).is_valid(body) == is_one
    with contextlib.nullcontext() if is_one else pytest.raises(BadRequest):
        speech.parse(json.dumps(body).encode())


def test_forms_have_their_files_and_the_names_of_arrays_that_go_over_the_wire(description: dict[str, Any]) -> None:
    operation = description["paths"]["/v1/audio/transcriptions"]["post"]
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["file"]["format"] == "binary"
    assert form["required"] == ["file", "model"]
    assert "timestamp_granularities[]" in form["properties"]
    assert "timestamp_granularities" not in form["properties"]


def test_answers_are_described_by_content_type(description: dict[str, Any]) -> None:
    content = description["paths"]["/v1/audio/speech"]["post"]["responses"]["200"]["content"]
    assert {"audio/mpeg", "audio/wav", "audio/pcm", "text/event-stream"} <= set(content)
    event = content["text/event-stream"]["schema"]["properties"]["data"]
    assert event["contentMediaType"] == "application/json"
    assert {"$ref": "#/components/schemas/AudioDelta"} in event["contentSchema"]["anyOf"]


def test_errors_have_one_shape_and_tell_their_codes(description: dict[str, Any]) -> None:
    envelope = description["components"]["schemas"]["ErrorEnvelope"]
    assert envelope["required"] == ["error"]
    detail = description["components"]["schemas"]["ErrorDetail"]
    assert detail["required"] == ["message", "type", "param", "code"]
    refused = description["paths"]["/v1/audio/speech"]["post"]["responses"]["404"]
    assert refused["$ref"] == "#/components/responses/Error"
    assert "`model_not_found`" in refused["description"]
