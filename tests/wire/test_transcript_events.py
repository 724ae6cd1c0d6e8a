"""POST /v1/audio/transcriptions with `stream=true`."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx2
import pytest

from .conftest import events, has_null, post_audio, refusal

Transcribed = Callable[..., httpx2.Response]


@pytest.mark.parametrize("model", ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"])
def test_deltas_add_up_to_one_last_done(transcribed: Transcribed, model: str) -> None:
    answer = transcribed(stream="true", model=model)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert b"event:" not in answer.content
    *deltas, done = events(answer.content)
    assert deltas
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert done["type"] == "transcript.text.done"
    assert "".join(event["delta"] for event in deltas) == done["text"]
    assert not has_null([*deltas, done])
    usage = done["usage"]
    assert usage["type"] == "tokens"
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    plain = transcribed().json()["text"]
    assert re.findall(r"\w+", done["text"].lower()) == re.findall(r"\w+", plain.lower())


def test_logprobs_come_with_events_when_asked_for(transcribed: Transcribed) -> None:
    answer = transcribed(stream="true", model="gpt-4o-transcribe", **{"include[]": "logprobs"})
    if answer.status_code != 200:
        refusal(answer, 400)
        return
    *deltas, done = events(answer.content)
    assert any(event.get("logprobs") for event in deltas)
    assert all(set(token) == {"token", "logprob", "bytes"} for token in done["logprobs"])


def test_silence_has_a_delta_and_a_done(api: httpx2.Client, silence: bytes) -> None:
    *deltas, done = events(post_audio(api, silence, stream="true").content)
    assert deltas
    assert "".join(event["delta"] for event in deltas) == done["text"]


def test_a_bad_file_is_refused_before_any_event(api: httpx2.Client) -> None:
    refusal(post_audio(api, b"nothing of the kind" * 99, stream="true"), 400)
