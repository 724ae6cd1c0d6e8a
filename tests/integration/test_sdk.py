"""The official Python SDK against a real daemon: it speaks a sentence and understands it again."""

from __future__ import annotations

import io
import re
import wave
from collections.abc import Iterator
from typing import Literal

import openai
import pytest

from daemons import AUDIO, Daemon

SENTENCE = "The quick brown fox jumps over the lazy dog."


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@pytest.mark.parametrize("response_format", ["wav", "pcm", "mp3", "opus", "aac", "flac"])
def test_a_sentence_comes_back_with_its_words_in_every_format(client: openai.OpenAI, response_format: str) -> None:
    spoken = client.audio.speech.create(
        model="tts-1",
        voice="alloy",
        input=SENTENCE,
        response_format=response_format,  # type: ignore[arg-type]
    ).read()
    if response_format == "pcm":  # it has no header, so it is no file until it is given one
        holder = io.BytesIO()
        with wave.open(holder, "wb") as file:
            file.setparams((1, 2, 24_000, 0, "NONE", ""))
            file.writeframes(spoken)
        spoken = holder.getvalue()
    heard = client.audio.transcriptions.create(model="whisper-1", file=spoken, language="en")
    assert words(heard.text) == words(SENTENCE)


KNOWN = {
    "jfk.wav": "And so, my fellow Americans, ask not what your country can do for you, "
    "ask what you can do for your country.",
    "librispeech-6930-75918-0000.wav": "concord returned to its place amidst the tents",
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_recording_comes_back_with_its_words(client: openai.OpenAI, name: str) -> None:
    heard = client.audio.transcriptions.create(model="whisper-1", file=AUDIO / name)
    expected, found = words(KNOWN[name]), words(heard.text)
    assert abs(len(found) - len(expected)) <= 1
    # "concord" is heard as "conquered": one word in ten is the embedded model's own error.
    assert sum(word in found for word in expected) >= len(expected) - 1


def test_chinese_text_is_spoken_by_the_model_that_can(client: openai.OpenAI) -> None:
    spoken = client.audio.speech.create(model="tts-1", voice="alloy", input="今天天气很好。", response_format="wav")
    heard = client.audio.transcriptions.create(model="whisper-1", file=spoken.read(), language="zh")
    assert sum(character in heard.text for character in "今天天气很好") >= 5


def test_verbose_json_has_segments_and_words(client: openai.OpenAI) -> None:
    heard = client.audio.transcriptions.create(
        model="whisper-1",
        file=AUDIO / "jfk.wav",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert heard.language == "english"
    assert heard.duration == pytest.approx(11.0, abs=0.1)
    assert heard.segments
    assert heard.words
    assert "".join(segment.text for segment in heard.segments).strip() == heard.text
    starts = [word.start for word in heard.words]
    assert starts == sorted(starts)
    assert words(" ".join(word.word for word in heard.words)) == words(heard.text)


@pytest.mark.parametrize(
    ("response_format", "begins"), [("text", "And so"), ("srt", "1\n00:00:00,"), ("vtt", "WEBVTT\n")]
)
def test_plain_formats_arrive_as_text(
    client: openai.OpenAI, response_format: Literal["text", "srt", "vtt"], begins: str
) -> None:
    heard = client.audio.transcriptions.create(
        model="whisper-1",
        file=AUDIO / "jfk.wav",
        response_format=response_format,
    )
    assert str(heard).lstrip().startswith(begins)


def test_models_are_listed_and_found_by_id(client: openai.OpenAI) -> None:
    ids = {model.id for model in client.models.list()}
    assert {"whisper-base", "hibari", "kokoro-82m", "whisper-1", "tts-1"} <= ids
    assert client.models.retrieve("whisper-1").id == "whisper-1"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such")
    with pytest.raises(openai.NotFoundError):
        client.models.delete("no/such")
    with pytest.raises(openai.PermissionDeniedError, match="hibari cannot be deleted"):
        client.models.delete("hibari")
