"""POST /v1/audio/speech: formats, fields, events, and what is refused."""

from __future__ import annotations

import base64
import io
import struct
from concurrent.futures import ThreadPoolExecutor

import av
import httpx2
import pytest

from .conftest import events, pcm_of, post_form, refusal, speak

TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
CONTAINERS = {"mp3": "mp3", "opus": "ogg", "aac": "aac", "flac": "flac", "wav": "wav"}
VOICES = (
    "alloy",
    "ash",
    "ballad",
    "coral",
    "echo",
    "fable",
    "onyx",
    "nova",
    "sage",
    "shimmer",
    "verse",
    "marin",
    "cedar",
)


@pytest.fixture(scope="module")
def seconds(api: httpx2.Client) -> float:
    """How long the usual sentence is as wav."""
    return len(pcm_of(speak(api, response_format="wav").content)) / 48_000


def decoded(audio: bytes) -> tuple[str, float]:
    """Container and seconds, as FFmpeg finds them by listening to it all."""
    with av.open(io.BytesIO(audio), "r") as container:
        length = sum((frame.samples / frame.sample_rate for frame in container.decode(container.streams.audio[0])), 0.0)
        return container.format.name, length


def test_mp3_is_the_default(api: httpx2.Client) -> None:
    for extra in ({}, {"stream_format": "audio"}, {"voice": None}):
        answer = speak(api, **extra)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "audio/mpeg"
        assert decoded(answer.content)[0] == "mp3"


@pytest.mark.parametrize("response_format", TYPES)
def test_each_format_is_what_it_says_and_as_long(api: httpx2.Client, seconds: float, response_format: str) -> None:
    answer = speak(api, response_format=response_format)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == TYPES[response_format]
    if response_format == "pcm":
        assert not answer.content.startswith((b"RIFF", b"ID3", b"OggS"))
        assert len(answer.content) % 2 == 0
        length = len(answer.content) / 48_000
    else:
        container, length = decoded(answer.content)
        assert container == CONTAINERS[response_format]
    assert length == pytest.approx(seconds, abs=0.15)


def test_wav_is_16_bit_mono_with_a_true_or_a_streaming_header(api: httpx2.Client) -> None:
    audio = speak(api, response_format="wav").content
    riff_bytes, data_bytes = struct.unpack("<I", audio[4:8])[0], struct.unpack("<I", audio[40:44])[0]
    assert audio[:4] + audio[8:16] + audio[36:40] == b"RIFFWAVEfmt data"
    assert struct.unpack("<HHIIHH", audio[20:36]) == (1, 1, 24_000, 48_000, 2, 16)
    assert riff_bytes in (len(audio) - 8, 0xFFFFFFFF)
    assert data_bytes in (len(audio) - 44, 0xFFFFFFFF, 0xFFFFFFFF - 36)


def test_speed_changes_the_length(api: httpx2.Client, seconds: float) -> None:
    for speed in (0.25, 2, 4.0):
        spoken = speak(api, response_format="wav", speed=speed)
        assert spoken.status_code == 200
        assert len(pcm_of(spoken.content)) / 48_000 == pytest.approx(seconds / speed, rel=0.25, abs=0.2)


@pytest.mark.parametrize("voice", [*VOICES, {"id": "alloy"}])
def test_openai_s_voices_are_taken(api: httpx2.Client, voice: object) -> None:
    answer = speak(api, voice=voice, input="Hi.", response_format="pcm")
    assert answer.status_code == 200, answer.text
    assert len(answer.content) > 4800


@pytest.mark.parametrize(
    "voice", ["nobody", "../../etc/passwd", "", "x" * 5000, {"id": "voice_none"}, {"id": ""}], ids=str
)
def test_unknown_voices_are_spoken_or_cleanly_refused(api: httpx2.Client, voice: object) -> None:
    answer = speak(api, voice=voice, input="Hi.")
    if answer.status_code != 200:
        assert refusal(answer, 400, 404)["param"] == "voice"


TEXTS = {
    "accents": "Voilà, ça coûte très cher à Zürich.",
    "emoji": "Well done! 🎉👍🏽 See you 👩‍👩‍👧 soon.",
    "markdown": "# Title\n\n* **bold** and `code`\n* [a link](https://example.org/path?x=1)\n\n| a | b |\n|---|---|\n",
    "numbers": "On 3/4/2026 at 17:45 it cost $1,234.56, or 12.5% of 1e6.",
    "newlines": "One.\r\n\r\n\tTwo.\n\n\nThree.",
    "Chinese": "今天天气很好，气温25度。",
    "mixed": "Hello 世界, naïve café!",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_any_text_is_spoken(api: httpx2.Client, text: str) -> None:
    answer = speak(api, input=text, response_format="wav")
    assert answer.status_code == 200, answer.text
    assert len(pcm_of(answer.content)) > 4800


@pytest.mark.parametrize("text", ["...", ".", "🎉", "—", "?!", "\u200b", "a", "$", "\x00\x01", "مرحبا"], ids=ascii)
def test_text_that_no_model_can_say_is_not_our_fault(api: httpx2.Client, text: str) -> None:
    answer = speak(api, input=text, response_format="wav")
    if answer.status_code != 200:
        assert refusal(answer, 400)["param"] == "input"


def test_4096_characters_are_spoken_and_4097_are_not(api: httpx2.Client) -> None:
    assert refusal(speak(api, input="x" * 4097), 400)["param"] == "input"
    text = ("It is a rather long text. " * 158)[:4096]
    with api.stream("POST", "/audio/speech", json={"model": "tts-1", "voice": "alloy", "input": text}) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_bytes())


def test_extra_fields_and_instructions_are_taken(api: httpx2.Client) -> None:
    # Kokoro-FastAPI, Speaches, Chatterbox and SillyTavern's TTS-WebUI add these.
    extra = {"instructions": "None", "stream": True, "lang_code": "a", "volume_multiplier": 1.0, "seed": -1}
    extra |= {"normalization_options": {"normalize": True}, "sample_rate": 24000, "exaggeration": 0.5, "backend": "x"}
    assert speak(api, **extra).status_code == 200


WRONG: list[tuple[dict[str, object], str]] = [
    ({"input": ""}, "input"),
    ({"input": "  \n"}, "input"),
    ({"input": None}, "input"),
    ({"input": 5}, "input"),
    ({"input": ["Hello"]}, "input"),
    ({"model": None}, "model"),
    ({"model": 1}, "model"),
    ({"voice": 7}, "voice"),
    ({"voice": {}}, "voice"),
    ({"voice": ["alloy"]}, "voice"),
    ({"response_format": "wma"}, "response_format"),
    ({"stream_format": "websocket"}, "stream_format"),
    ({"speed": 0.2}, "speed"),
    ({"speed": 4.1}, "speed"),
    ({"speed": -1}, "speed"),
    ({"speed": "fast"}, "speed"),
    ({"speed": True}, "speed"),
    ({"instructions": 1}, "instructions"),
]


@pytest.mark.parametrize(("body", "param"), WRONG, ids=str)
def test_wrong_values_are_refused_by_name(api: httpx2.Client, body: dict[str, object], param: str) -> None:
    asked = {"model": "tts-1", "voice": "alloy", "input": "Hi."} | body
    answer = api.post("/audio/speech", json=asked, headers={"Accept": "application/octet-stream"})
    assert (refusal(answer, 400)["param"] or "").startswith(param)


@pytest.mark.parametrize("missing", ["input", "model"])
def test_what_is_missing_is_named(api: httpx2.Client, missing: str) -> None:
    asked = {"model": "tts-1", "voice": "alloy", "input": "Hi."}
    del asked[missing]
    assert refusal(api.post("/audio/speech", json=asked), 400)["param"] == missing


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"{}", b'{"input": "\\ud800"}'], ids=ascii
)
def test_a_body_that_is_no_such_json_is_refused(api: httpx2.Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "Accept": "application/octet-stream"}
    refusal(api.post("/audio/speech", content=body, headers=headers), 400)


def test_an_unknown_model_and_another_method_are_refused(api: httpx2.Client) -> None:
    refusal(speak(api, model="no-such-model"), 400, 404)
    refusal(api.get("/audio/speech"), 404, 405)


@pytest.mark.parametrize("response_format", ["mp3", "wav", "pcm"])
def test_events_hold_the_file(api: httpx2.Client, seconds: float, response_format: str) -> None:
    answer = speak(api, stream_format="sse", response_format=response_format)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    *deltas, done = events(answer.content)
    assert deltas
    assert all(event.keys() == {"type", "audio"} and event["type"] == "speech.audio.delta" for event in deltas)
    audio = b"".join(base64.b64decode(event["audio"], validate=True) for event in deltas)
    length = len(audio) / 48_000 if response_format == "pcm" else decoded(audio)[1]
    assert length == pytest.approx(seconds, abs=0.15)
    assert done["type"] == "speech.audio.done"
    assert set(done["usage"]) == {"input_tokens", "output_tokens", "total_tokens"}
    assert all(type(count) is int for count in done["usage"].values())
    assert done["usage"]["total_tokens"] == done["usage"]["input_tokens"] + done["usage"]["output_tokens"]


def test_what_is_wrong_before_the_first_event_is_an_http_error(api: httpx2.Client) -> None:
    refusal(speak(api, stream_format="sse", input=""), 400)
    refusal(speak(api, stream_format="sse", model="no-such-model"), 400, 404)


def test_several_at_a_time(api: httpx2.Client) -> None:
    with ThreadPoolExecutor(4) as pool:
        for answer in pool.map(lambda _: speak(api, response_format="wav"), range(4)):
            assert answer.status_code == 200 or refusal(answer, 429, 503)


@pytest.mark.parametrize("response_format", ["mp3", "flac", "opus"])
def test_what_was_spoken_is_understood(api: httpx2.Client, response_format: str) -> None:
    spoken = speak(api, input="The birds are singing in the garden.", response_format=response_format)
    file = (f"x.{response_format}", spoken.content)
    heard = post_form(api, "/audio/transcriptions", file, {"language": "en"}).json()["text"]
    assert "birds" in heard.lower()
    assert "garden" in heard.lower()
