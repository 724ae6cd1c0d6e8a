"""OpenAI's Python SDK: each way of calling that has a shape of its own on the wire, and what it makes of the answers.

tests/integration/test_sdk.py asks whether words come back; Realtime and voices have tests of their own.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import openai
import pytest
from openai.types.audio import TranscriptionTextDeltaEvent, TranscriptionTextDoneEvent, TranscriptionVerbose

from daemons import AUDIO, Daemon

from .conftest import KEY

CLIP = AUDIO / "librispeech-6930-75918-0000.wav"


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def unhurried(daemon: Daemon) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize(
    "file",
    [
        CLIP,
        CLIP.read_bytes(),
        io.BytesIO(CLIP.read_bytes()),
        ("a.ogg", CLIP.read_bytes()),
        ("录音.webm", CLIP.read_bytes(), "audio/webm"),
    ],
    ids=["path", "bytes", "a file without a name", "name and bytes", "a lying type"],
)
def test_files_are_taken_in_every_way(client: openai.OpenAI, file: Any) -> None:
    heard = client.audio.transcriptions.create(model="whisper-1", file=file)
    assert "returned to its place" in heard.text
    assert heard._request_id is not None
    assert heard._request_id.startswith("req_")


def test_a_stream_of_events_is_typed(client: openai.OpenAI) -> None:
    with client.audio.transcriptions.create(model="gpt-4o-transcribe", file=CLIP, stream=True) as stream:
        *deltas, done = list(stream)
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert all(isinstance(event, TranscriptionTextDeltaEvent) for event in deltas)
    assert "".join(cast(TranscriptionTextDeltaEvent, event).delta for event in deltas) == done.text
    assert done.usage is not None
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens


def test_every_field_at_once(client: openai.OpenAI) -> None:
    heard = client.audio.transcriptions.create(
        model="whisper-1",
        file=CLIP,
        language="en",
        prompt="tents",
        temperature=0.2,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        chunking_strategy={"type": "server_vad", "threshold": 0.4, "prefix_padding_ms": 100},
        extra_body={"vad_filter": True, "nested": {"a": [1, 2]}, "priority": "interactive", "keep_alive": "10m"},
        extra_headers={"X-Something": "else"},
    )
    assert isinstance(heard, TranscriptionVerbose)
    assert heard.words
    assert heard.segments
    assert heard.usage is not None
    assert heard.usage.seconds == 4


def test_a_translation_is_in_english(client: openai.OpenAI) -> None:
    with pytest.warns(DeprecationWarning, match="deprecated"):
        assert "tents" in client.audio.translations.create(model="whisper-1", file=CLIP).text
    with pytest.warns(DeprecationWarning, match="deprecated"):
        verbose = client.audio.translations.create(model="whisper-1", file=CLIP, response_format="verbose_json")
    assert verbose.language == "english"


def test_speech_is_streamed_to_a_file(client: openai.OpenAI, tmp_path: Path) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="tts-1",
        voice="alloy",
        input="Hello there.",
        response_format="flac",
        instructions="Cheerfully.",
        speed=1.2,
    ) as answer:
        assert answer.headers["content-type"] == "audio/flac"
        answer.stream_to_file(tmp_path / "speech.flac")
    assert (tmp_path / "speech.flac").read_bytes().startswith(b"fLaC")


def test_raw_answers_have_headers_and_parse(client: openai.OpenAI) -> None:
    raw = client.audio.transcriptions.with_raw_response.create(model="whisper-1", file=CLIP)
    assert raw.headers["x-request-id"] == raw.request_id
    assert "returned" in raw.parse().text
    raw_models = client.models.with_raw_response.list()
    assert raw_models.status_code == 200


def test_a_custom_voice_that_is_none_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.speech.create(model="tts-1", voice={"id": "voice_none"}, input="Hello.")
    assert refused.value.param == "voice"


async def test_the_async_client_hears_and_speaks(unhurried: openai.AsyncOpenAI) -> None:
    heard = await unhurried.audio.transcriptions.create(model="whisper-1", file=CLIP, response_format="text")
    assert "returned to its place" in heard
    text = ""
    async for event in await unhurried.audio.transcriptions.create(model="whisper-1", file=CLIP, stream=True):
        text += event.delta if event.type == "transcript.text.delta" else ""
    assert "returned to its place" in text
    speech = unhurried.audio.speech.with_streaming_response
    async with speech.create(model="tts-1", voice="alloy", input="Hello there.", response_format="pcm") as answer:
        assert sum([len(piece) async for piece in answer.iter_bytes()]) > 10_000
    assert [model async for model in unhurried.models.list()]


@pytest.mark.parametrize(
    ("more", "kind", "param"),
    [
        ({"speed": 9}, openai.BadRequestError, "speed"),
        ({"input": ""}, openai.BadRequestError, "input"),
        ({"response_format": "midi"}, openai.BadRequestError, "response_format"),
        ({"model": "no-such-model"}, openai.NotFoundError, "model"),
    ],
    ids=str,
)
def test_errors_have_their_class(
    client: openai.OpenAI, more: dict[str, Any], kind: type[openai.APIStatusError], param: str
) -> None:
    with pytest.raises(kind) as refused:
        client.audio.speech.create(**{"model": "tts-1", "voice": "alloy", "input": "Hello."} | more)
    error = refused.value
    assert error.param == param
    assert error.code
    assert error.type
    assert error.request_id
    assert error.message


def test_a_file_that_is_no_audio_is_not_sent_again(daemon: Daemon) -> None:
    hasty = openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=2)
    with hasty as client, pytest.raises(openai.BadRequestError) as refused:
        client.audio.transcriptions.create(model="whisper-1", file=b"nothing to hear" * 100)
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"


def test_keys(keyed: Daemon) -> None:
    for wrong in ("sk-wrong", KEY.upper()):
        with openai.OpenAI(base_url=f"{keyed.url}/v1", api_key=wrong, max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as refused:
                client.models.list()
            assert wrong not in str(refused.value)
            with pytest.raises(openai.AuthenticationError):
                client.audio.transcriptions.create(model="whisper-1", file=CLIP)
    with openai.OpenAI(base_url=f"{keyed.url}/v1", api_key=KEY, max_retries=0) as client:
        assert client.models.retrieve("tts-1").object == "model"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("some/model")
        with pytest.raises(openai.PermissionDeniedError):
            client.models.delete("tts-1")
