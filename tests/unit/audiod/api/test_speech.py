"""What of a speech request is refused, by which field, and what its usage says."""

from __future__ import annotations

import json

import pytest

from audiod.api import bodies, speech
from audiod.media.formats import SpeechFormat
from audioproto.errors import BadRequest

GOOD = {"model": "tts-1", "input": "Hello."}


def parse(**fields: object) -> speech.SpeechRequest:
    return speech.parse(json.dumps(GOOD | fields).encode())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": 5}, "input"),
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": " \n"}, "input"),
        ({"model": 5}, "model"),
        ({"model": None}, "model"),
        ({"voice": 5}, "voice"),
        ({"voice": []}, "voice"),
        ({"voice": {"name": "alloy"}}, "voice"),
        ({"voice": {"id": 5}}, "voice"),
        ({"speed": 0.2}, "speed"),
        ({"speed": 4.1}, "speed"),
        ({"speed": -1}, "speed"),
        ({"speed": "fast"}, "speed"),
        ({"speed": True}, "speed"),
        ({"response_format": "ogg"}, "response_format"),
        ({"response_format": 5}, "response_format"),
        ({"stream_format": "events"}, "stream_format"),
        ({"stream_format": True}, "stream_format"),
        ({"instructions": "x" * 4097}, "instructions"),
        ({"instructions": 5}, "instructions"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(**fields)
    assert refused.value.param == param


@pytest.mark.parametrize("missing", GOOD)
def test_what_is_missing_is_named(missing: str) -> None:
    body = {name: value for name, value in GOOD.items() if name != missing}
    with pytest.raises(BadRequest) as refused:
        speech.parse(json.dumps(body).encode())
    assert refused.value.param == missing


NESTED = b'{"model": "tts-1", "input": "x", "zz": ' + b"[" * 100_000


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"5", b"\xff\xfe", b'{"input": "\\ud800"}', NESTED]
)
def test_what_is_no_object_is_nobodys_field(body: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        speech.parse(body)
    assert refused.value.param == ""


def test_an_unknown_choice_is_told_the_known_ones() -> None:
    with pytest.raises(BadRequest, match="response_format must be one of mp3, opus, aac, flac, wav, pcm"):
        parse(response_format="ogg")
    with pytest.raises(BadRequest, match="stream_format must be one of audio, sse"):
        parse(stream_format="events")


@pytest.mark.parametrize(
    "fields",
    [
        {"voice": {"id": "alloy", "more": 1}},
        {"voice": None, "speed": None, "response_format": None, "stream_format": None, "instructions": None},
        {"speed": 1, "instructions": "x" * 4096},
        {"lang_code": "a", "volume_multiplier": 1.5, "normalization_options": {"normalize": True}, "stream": False},
        {"seed": -1, "exaggeration": 0.5, "cfg_weight": 0.5, "temperature": 0.8, "backend": "openai", "language": "en"},
    ],
)
def test_what_clients_send_is_taken(fields: dict[str, object]) -> None:
    asked = parse(**fields)
    assert (asked.input, asked.model) == ("Hello.", "tts-1")


def test_left_out_means_mp3() -> None:
    assert (parse().response_format, parse().voice_name) == (SpeechFormat.MP3, "")


@pytest.mark.parametrize(
    ("text", "instructions", "audio_s", "counted"),
    [("Hello.", None, 60.0, (2, 1250)), (".", None, 0.0, (1, 1)), ("你好", "ab", 0.1, (2, 3))],
)
def test_usage_counts_both_ways(text: str, instructions: str | None, audio_s: float, counted: tuple[int, int]) -> None:
    usage = speech.usage(parse(input=text, instructions=instructions), audio_s)
    assert (usage.input_tokens, usage.output_tokens) == counted
    assert usage.total_tokens == sum(counted)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("Expected `float`, got `str` - at `$.speed`", "speed"),
        ("Object missing required field `id` - at `$.voice`", "voice"),
        ("Object missing required field `input`", "input"),
        ("Expected `str`, got `int` - at `$.keywords[...]`", "keywords"),
        ("Expected `object`, got `array`", ""),
    ],
)
def test_the_field_at_fault_is_read_from_the_decoders_words(message: str, field: str) -> None:
    assert bodies.field_of(message) == field
