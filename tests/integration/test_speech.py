"""Speech as clients get it: every format by a real decoder, speed and pitch by measurement, events, first bytes."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import urllib.parse
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import openai
import pytest
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from clients import LONG_TEXT, client, leases
from daemons import Daemon, say
from scraping import until
from scripted_daemons import MODEL, Gate, ScriptedDaemon, scripted

TEXT = "Hello there, my friend. How are you today?"
TYPES = {
    "mp3": ("audio/mpeg", "mp3", "mp3float"),
    "opus": ("audio/opus", "ogg", "opus"),
    "aac": ("audio/aac", "aac", "aac"),
    "flac": ("audio/flac", "flac", "flac"),
    "wav": ("audio/wav", "wav", "pcm_s16le"),
}
"""Content type, container and codec, of what has one."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[ScriptedDaemon]:
    with scripted(tmp_path_factory.mktemp("scripted"), state_dir) as started:
        yield started


def ask(daemon: Daemon, **fields: object) -> tuple[http.client.HTTPMessage, bytes]:
    """Speak with hibari, whatever it takes; headers and body."""
    address = urllib.parse.urlsplit(daemon.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=120)
    body = json.dumps({"model": "hibari", "input": TEXT} | fields)
    connection.request("POST", "/v1/audio/speech", body, {"Content-Type": "application/json"})
    with connection.getresponse() as answer:
        assert answer.status == 200, answer.read()
        whole = answer.headers, answer.read()
    connection.close()
    return whole


def decode(data: bytes) -> tuple[str, str, bytes]:
    """Container, codec, and the sound as mono s16le at 24 kHz, by FFmpeg."""
    pcm = b""
    with av.open(io.BytesIO(data), mode="r") as file:
        stream = file.streams.audio[0]
        assert stream.layout.nb_channels == 1
        resampler = AudioResampler("s16", "mono", 24_000)
        frames: list[AudioFrame | None] = [*file.decode(stream), None]
        for frame in frames:
            for piece in resampler.resample(frame):
                pcm += bytes(piece.planes[0])[: piece.samples * 2]
        return file.format.name, stream.codec_context.name, pcm


def seconds(pcm: bytes) -> float:
    return len(pcm) / 48_000


def pitch_hz(pcm: bytes) -> float:
    """The mean pitch of the voiced frames of s16le at 24 kHz, by autocorrelation."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    found = []
    for start in range(0, samples.size - 1440, 480):
        frame = samples[start : start + 1440] * np.hanning(1440)
        spectrum = np.abs(np.fft.rfft(frame, 4096)) ** 2
        correlation = np.fft.irfft(spectrum)[:400]
        lags = correlation[60:]  # 400 Hz down to 60 Hz
        if correlation[0] > 1e8 and lags.max() > 0.5 * correlation[0]:
            found.append(24_000 / (60 + int(np.argmax(lags))))
    return float(np.exp(np.mean(np.log(found))))


def events(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream that is framed as it must be."""
    assert body.endswith(b"\n\n")
    blocks = body.decode().removesuffix("\n\n").split("\n\n")
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


@pytest.mark.parametrize("form", [*TYPES, "pcm"])
def test_every_format_is_what_it_says_and_lasts_as_long(daemon: Daemon, form: str) -> None:
    exact = ask(daemon, response_format="pcm")[1]
    headers, data = ask(daemon, response_format=form)
    if form == "pcm":
        assert headers["Content-Type"] == "audio/pcm"
        assert data == exact
        assert len(data) % 2 == 0
        return
    content_type, container, codec = TYPES[form]
    assert headers["Content-Type"] == content_type
    found_container, found_codec, pcm = decode(data)
    assert (found_container, found_codec) == (container, codec)
    assert seconds(pcm) == pytest.approx(seconds(exact), abs=0.1)
    if form in ("wav", "flac"):
        assert pcm == exact


def test_left_out_the_format_is_mp3(daemon: Daemon) -> None:
    headers, data = ask(daemon)
    assert headers["Content-Type"] == "audio/mpeg"
    assert decode(data)[0] == "mp3"


def test_a_wav_is_read_on_the_fly(daemon: Daemon) -> None:
    """As wyoming_openai does: the header from the first chunk, then samples as they come."""
    with client(daemon) as one:
        one.send_speech(TEXT)
        answer = one.answer()
        first = answer.read1(4096)
        with wave.open(io.BytesIO(first)) as reader:
            assert (reader.getframerate(), reader.getnchannels(), reader.getsampwidth()) == (24_000, 1, 2)
        rest = first[44:] + answer.read()
    assert rest == ask(daemon, response_format="pcm")[1]
    assert first[4:8] == first[40:44] == b"\xff\xff\xff\xff"


def test_speed_changes_how_long_it_lasts_and_not_how_high_it_is(daemon: Daemon) -> None:
    """The model itself speaks at half to double speed, with an intonation of its own; the rest is stretched."""
    spoken = {speed: ask(daemon, response_format="pcm", speed=speed)[1] for speed in (0.25, 0.5, 1.0, 2.0, 4.0)}
    pitch = {speed: pitch_hz(pcm) for speed, pcm in spoken.items()}
    for speed, pcm in spoken.items():
        assert seconds(spoken[1.0]) / seconds(pcm) == pytest.approx(speed, rel=0.1)
        assert pitch[speed] == pytest.approx(pitch[1.0], rel=0.2)
    assert pitch[0.25] == pytest.approx(pitch[0.5], rel=0.05)
    assert pitch[4.0] == pytest.approx(pitch[2.0], rel=0.05)


@pytest.mark.parametrize("form", TYPES)
def test_speed_is_kept_in_every_format(daemon: Daemon, form: str) -> None:
    exact = ask(daemon, response_format="pcm", speed=4.0)[1]
    assert seconds(decode(ask(daemon, response_format=form, speed=4.0)[1])[2]) == pytest.approx(seconds(exact), abs=0.1)


@pytest.mark.parametrize("form", [*TYPES, "pcm"])
def test_what_an_engine_speaks_at_another_rate_is_as_long(made: ScriptedDaemon, form: str) -> None:
    status, data = say(made, "yield 700; yield 300", model=MODEL, voice="", response_format=form)
    assert status == 200
    assert seconds(data if form == "pcm" else decode(data)[2]) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
@pytest.mark.parametrize("form", [*TYPES, "pcm"])
def test_first_bytes_come_before_the_last_sentence_is_spoken(
    made: ScriptedDaemon, tmp_path: Path, form: str, stream_format: str
) -> None:
    """The engine stands before its second sentence until the client has sound of the first: of a second, a third."""
    gate, heard = Gate(tmp_path), b""
    with client(made) as one:
        script = f"hiss 1000; read {gate}; hiss 1000"
        one.send_speech(script, model=MODEL, voice="", response_format=form, stream_format=stream_format)
        answer = one.answer()
        while len(heard) < 1000:
            heard += answer.read1(65536)
        assert leases(made, MODEL) == 1
        gate.open()
        heard += answer.read()
    if stream_format == "sse":
        heard = b"".join(base64.b64decode(event["audio"]) for event in events(heard)[:-1])
    assert seconds(heard if form == "pcm" else decode(heard)[2]) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("form", ["mp3", "aac", "flac", "wav", "pcm"])
def test_the_events_hold_the_very_bytes_of_the_audio(daemon: Daemon, form: str) -> None:
    headers, body = ask(daemon, response_format=form, stream_format="sse")
    assert headers["Content-Type"].split(";")[0] == "text/event-stream"
    *deltas, done = events(body)
    assert len(deltas) > 1
    assert all(set(delta) == {"type", "audio"} and delta["type"] == "speech.audio.delta" for delta in deltas)
    assert b"".join(base64.b64decode(delta["audio"]) for delta in deltas) == ask(daemon, response_format=form)[1]
    usage = done.pop("usage")
    assert done == {"type": "speech.audio.done"}
    assert set(usage) == {"input_tokens", "output_tokens", "total_tokens"}
    assert all(isinstance(count, int) and count > 0 for count in usage.values())
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_an_error_before_the_first_event_has_its_own_status(daemon: Daemon) -> None:
    status, body = say(daemon, "今天天气很好。", model="hibari", stream_format="sse")
    assert (status, json.loads(body)["error"]["code"]) == (400, "unspeakable_text")


def test_an_error_after_the_first_event_is_one(made: ScriptedDaemon) -> None:
    body = say(made, "yield 1000; raise no more", model=MODEL, voice="", stream_format="sse")[1]
    *deltas, last = events(body)
    assert deltas
    assert all(delta["type"] == "speech.audio.delta" for delta in deltas)
    assert (set(last), last["error"]["code"]) == ({"error"}, "engine_failed")
    assert set(last["error"]) == {"message", "type", "param", "code"}


def test_who_reads_events_slowly_does_not_hold_the_model(daemon: Daemon) -> None:
    with client(daemon, 8192) as silent:
        silent.send_speech(LONG_TEXT[:2000], stream_format="sse")
        answer = silent.answer()
        until(lambda: leases(daemon, "hibari") == 0)
        assert events(answer.read())[-1]["type"] == "speech.audio.done"


@pytest.mark.parametrize(
    "text",
    [
        "Café déjà vu, naïve Ångström; señor.",
        "Well done 👍🏽🎉",
        "# Title\n\n* **bold** and `code`\n* [link](https://example.com)\n\n```\nx = 1\n```",
        "It costs $20, or 1,234.50 at 15:30 on 2026-11-21; call 13800138000.",
        "One\nTwo\n\nThree",
        ".",
        "...",
        "?!",
        "Привет, как дела?",
        "a\x00b\u200bc",
    ],
)
def test_whatever_is_written_is_spoken(daemon: Daemon, text: str) -> None:
    assert seconds(ask(daemon, input=text, response_format="pcm")[1]) > 0.2


@pytest.mark.parametrize("text", ["👍🎉", "สวัสดีครับ", "مرحبا؟ كيف حالك؟", "नमस्ते। आप कैसे हैं?", "→ ↑", "\u200b\u200d"])
def test_what_the_model_cannot_speak_is_a_clear_400(daemon: Daemon, text: str) -> None:
    status, body = say(daemon, text, model="hibari")
    error = json.loads(body)["error"]
    assert (status, error["code"], error["param"]) == (400, "unspeakable_text", "input")


def test_an_emotion_that_no_installed_model_takes_names_one_that_does(daemon: Daemon) -> None:
    status, body = say(daemon, emotion={"vector": {"happy": 1}})
    error = json.loads(body)["error"]
    assert (status, error["param"]) == (400, "emotion")
    assert "do: none (try: audioctl models pull indextts-2" in error["message"]


def test_the_longest_text_is_spoken_and_one_character_more_is_refused(daemon: Daemon) -> None:
    assert say(daemon, " " * 4090 + "Hello.", model="hibari")[0] == 200
    status, body = say(daemon, "a" * 4097)
    assert (status, json.loads(body)["error"]["param"]) == (400, "input")


def test_the_sdk_streams_it(daemon: Daemon, tmp_path: Path) -> None:
    expected = ask(daemon, response_format="wav")[1]
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as sdk:
        with sdk.audio.speech.with_streaming_response.create(
            model="hibari", voice="alloy", input=TEXT, response_format="wav"
        ) as answer:
            answer.stream_to_file(tmp_path / "speech.wav")
        assert (tmp_path / "speech.wav").read_bytes() == expected
        whole = sdk.audio.speech.create(model="hibari", voice={"id": "alloy"}, input=TEXT, response_format="wav")
        assert b"".join(whole.iter_bytes()) == expected
        with pytest.raises(openai.BadRequestError) as refused:
            sdk.audio.speech.create(model="hibari", voice="alloy", input=TEXT, speed=5)
        assert refused.value.param == "speed"
        with sdk.audio.speech.with_streaming_response.create(
            model="hibari", voice="alloy", input=TEXT, response_format="mp3", stream_format="sse"
        ) as answer:
            kinds = re.findall(r'"type":"([a-z.]+)"', answer.read().decode())
        assert set(kinds[:-1]) == {"speech.audio.delta"}
        assert kinds[-1] == "speech.audio.done"
