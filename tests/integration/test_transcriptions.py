"""POST /v1/audio/transcriptions on the wire: every field both ways, odd forms, formats, and events as they come."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from clients import TRANSCRIPTIONS, Client, Remains, client, held_bytes, leases
from daemons import AUDIO, Daemon, running
from scraping import until
from sounds import muxed, sweep, wav

CLIP = (AUDIO / "librispeech-6930-75918-0000.wav").read_bytes()
JFK = (AUDIO / "jfk.wav").read_bytes()
SIEGE = (AUDIO / "librispeech-6930-75918-0001.wav").read_bytes()
LONG = wav(np.concatenate([np.frombuffer(file[44:], "<i2") / 32768 for file in (JFK, bytes(64_044), SIEGE)]), 16_000)
"""A minute's half and more, of which the pause in the middle makes several segments."""

Part = tuple[str, bytes | str]


def part(name: str, content: bytes | str, head: str = "") -> bytes:
    """One part of a form: a file where its content is bytes. `head` stands behind its name."""
    raw = content.encode() if isinstance(content, str) else content
    head = head or ("" if isinstance(content, str) else '; filename="clip.wav"\r\nContent-Type: audio/wav')
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{head}\r\n\r\n'.encode() + raw + b"\r\n"


def post(daemon: Daemon, *parts: Part | bytes, path: str = TRANSCRIPTIONS) -> tuple[int, bytes]:
    """A form with these parts in this order, as they stand."""
    body = b"".join(one if isinstance(one, bytes) else part(*one) for one in parts) + b"--b--\r\n"
    return daemon.request("POST", path, body, Content_Type="multipart/form-data; boundary=b")


def ask(daemon: Daemon, *fields: Part, file: bytes = CLIP) -> tuple[int, bytes]:
    return post(daemon, ("model", "whisper-1"), *fields, ("file", file))


def heard(daemon: Daemon, *fields: Part, file: bytes = CLIP) -> dict[str, Any]:
    """The JSON of a good answer."""
    status, body = ask(daemon, *fields, file=file)
    assert status == 200, body
    assert b"null" not in body
    answer: dict[str, Any] = json.loads(body)
    return answer


def refusal(answer: tuple[int, bytes]) -> dict[str, Any]:
    status, body = answer
    error: dict[str, Any] = json.loads(body)["error"]
    assert status == 400, error
    assert {"message", "type", "param", "code"} <= set(error)
    return error


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@pytest.fixture(scope="module")
def sdk(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as one:
        yield one


@pytest.fixture(scope="module")
def dictating(tmp_path_factory: pytest.TempPathFactory, state_dir: Path, engines_made: Path) -> Iterator[Daemon]:
    """A daemon with the model that hears what its prompt says; it is up."""
    with running(tmp_path_factory.mktemp("dictating"), state_dir, made=engines_made) as started:
        with listening(started, "hear One.") as one:
            assert one.answer().status == 200
        yield started


# --- fields -----------------------------------------------------------------------------------------------------------


def test_all_that_openai_knows_is_taken_at_once(daemon: Daemon, sdk: openai.OpenAI) -> None:
    """As the SDK sends it: arrays in brackets, an object in pieces; and what it does not know in `extra_body`."""
    got = sdk.audio.transcriptions.create(
        model="gpt-4o-transcribe",
        file=CLIP,
        language="en",
        prompt="A story of a siege.",
        response_format="json",
        temperature=0,
        include=["logprobs"],
        chunking_strategy={"type": "server_vad", "threshold": 0.4, "silence_duration_ms": 300},
        stream=False,
        extra_body={"keywords": ["Concord"], "languages": ["en", "fr"], "vad_filter": False, "hotwords": "tents"},
    )
    assert "concord" in words(got.text), "a keyword helps"
    assert got.usage is not None
    assert (got.usage.type, got.usage.seconds) == ("duration", 4)  # type: ignore[union-attr]
    assert got.logprobs
    assert "".join(token.token or "" for token in got.logprobs).strip() == got.text
    assert all(token.logprob is not None and token.logprob <= 0 for token in got.logprobs)
    assert b"".join(bytes(map(int, token.bytes or [])) for token in got.logprobs).decode().strip() == got.text


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            [("chunking_strategy", "auto"), ("temperature", "0.2"), ("language", "en-US")],
            {"temperature": 0.2, "language": "en-US"},
        ),
        (
            [("chunking_strategy", '{"type": "server_vad", "threshold": 0.5}'), ("language", "English")],
            {"language": "English"},
        ),
        ([("chunking_strategy[type]", "server_vad"), ("chunking_strategy[prefix_padding_ms]", "100")], {}),
        (
            [("languages", "en"), ("languages", "de"), ("keywords", "tents"), ("keywords", "Concord")],
            {"languages": ["en", "de"], "keywords": ["tents", "Concord"]},
        ),
        (
            [("languages[]", "de"), ("keywords[]", "tents"), ("hotwords", "a, b")],
            {"languages": ["de"], "keywords": ["tents", "a, b"]},
        ),
        ([("language", ""), ("prompt", ""), ("temperature", ""), ("response_format", ""), ("stream", "")], {}),
        ([("stream", "False"), ("language", "auto"), ("without_timestamps", "true"), ("nested[a][]", "1")], {}),
        ([("language", "en"), ("prompt", "convert the audio to text")], {"language": "en"}),
        ([("prompt", "The following conversation is a smart home user talking to Home Assistant.")], {}),
        ([("stream", "true"), ("response_format", "verbose_json")], {}),
        (
            [
                ("response_format", "verbose_json"),
                ("timestamp_granularities", "segment"),
                ("timestamp_granularities", "word"),
            ],
            {"words": True},
        ),
    ],
    ids=lambda value: " ".join(name for name, _ in value) if isinstance(value, list) else None,
)
def test_fields_are_taken_as_clients_write_them(dictating: Daemon, fields: list[Part], told: dict[str, object]) -> None:
    status, body = post(dictating, ("model", "dictating"), *fields, ("file", CLIP))
    assert status == 200, body
    asked = json.loads(json.loads(body)["text"])
    told = {"temperature": 0.0} | told
    assert {name: value for name, value in asked.items() if name not in ("type", "job", "samples")} == told


@pytest.mark.parametrize(
    ("field", "param"),
    [
        (("response_format", "xml"), "response_format"),
        (("response_format", "diarized_json"), "response_format"),
        (("temperature", "2.5"), "temperature"),
        (("temperature", "warm"), "temperature"),
        (("temperature", "nan"), "temperature"),
        (("timestamp_granularities[]", "letter"), "timestamp_granularities[]"),
        (("timestamp_granularities", "letter"), "timestamp_granularities[]"),
        (("include[]", "thoughts"), "include[]"),
        (("stream", "perhaps"), "stream"),
        (("chunking_strategy", "never"), "chunking_strategy"),
        (("chunking_strategy", '{"type": "magic"}'), "chunking_strategy"),
        (("chunking_strategy", '{"type": '), "chunking_strategy"),
        (("chunking_strategy", '{"type": ' + "[" * 20_000), "chunking_strategy"),
        (("chunking_strategy[threshold]", "9"), "chunking_strategy"),
        (("known_speaker_names[]", "agent"), "known_speaker_names[]"),
        (("language", "zz"), "language"),
        (("language", "klingon"), "language"),
        (("languages[]", "zz"), "languages[]"),
        (("translate_to", "zz"), "translate_to"),
        (("translate_to", "zh"), "translate_to"),
        (("priority", "first"), "priority"),
        (("keep_alive", "soon"), "keep_alive"),
        (("prompt", "x" * 20_000), "prompt"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(daemon: Daemon, field: Part, param: str) -> None:
    error = refusal(ask(daemon, field))
    assert error["param"] == param
    assert param in error["message"] or str(field[1]) in error["message"]


def test_log_probabilities_need_json_and_come_only_when_asked_for(daemon: Daemon) -> None:
    assert "logprobs" not in heard(daemon)
    for response_format in ("text", "verbose_json"):
        error = refusal(ask(daemon, ("include[]", "logprobs"), ("response_format", response_format)))
        assert error["param"] == "include[]"


def test_a_model_without_log_probabilities_says_so(tmp_path: Path, state_dir: Path) -> None:
    """What a model can do stands in its entry."""
    with running(tmp_path, state_dir) as other:
        entry = tmp_path / "models.d" / "whisper-base.toml"
        entry.write_text(entry.read_text().replace("logprobs = true\n", "").replace('translates = ["en"]\n', ""))
        assert other.ctl("reload").returncode == 0
        assert refusal(ask(other, ("include[]", "logprobs")))["param"] == "include[]"
        assert refusal(ask(other, ("translate_to", "en")))["param"] == "translate_to"


# --- forms ------------------------------------------------------------------------------------------------------------


MODEL = ("model", "dictating")


@pytest.mark.parametrize(
    "parts",
    [
        [("file", CLIP), MODEL],
        [MODEL, part("file", CLIP, '; filename="clip.wav"\r\nContent-Type: application/octet-stream')],
        [MODEL, part("file", CLIP, '; filename="upload"\r\nContent-Type: text/plain')],
        [MODEL, part("file", CLIP, '; filename="clip.wav"')],
        [MODEL, part("file", CLIP, '; filename="録音 é.wav"')],
        [MODEL, part("file", CLIP, "; filename*=UTF-8''%C3%A9.wav")],
        [MODEL, part("file", CLIP, '; filename=""')],
        [MODEL, part("file", CLIP, "\r\nContent-Type: audio/wav")],
    ],
    ids=["first", "octets", "named upload", "no type", "not ASCII", "RFC 5987", "empty name", "no name"],
)
def test_the_bytes_decide_and_not_what_is_said_of_them(dictating: Daemon, parts: Sequence[Part | bytes]) -> None:
    status, body = post(dictating, *parts)
    assert status == 200, body
    assert json.loads(json.loads(body)["text"])["samples"] == (len(CLIP) - 44) // 2


@pytest.mark.parametrize(
    ("parts", "param", "says"),
    [
        ([("file", CLIP)], "model", "no model"),
        ([("model", ""), ("file", CLIP)], "model", "no model"),
        ([("model", "whisper-1")], "file", "no file"),
        ([("model", "whisper-1"), ("file", "clip.wav")], "file", "must be a file part"),
        ([("model", "whisper-1"), ("file", b"")], None, ""),
        ([("model", "whisper-1"), ("file", b"RIFF" + bytes(1000))], None, ""),
        ([("model", "whisper-1"), ("file", b"Dear Sir,\n" * 100)], None, ""),
        ([("model", "whisper-1"), ("file", CLIP), ("file", CLIP)], "file", "more than one"),
        ([("model", b"\xff\xfe"), ("file", CLIP)], "model", "UTF-8"),
    ],
    ids=["no model", "empty model", "no file", "a text", "empty", "broken", "words", "two files", "no text"],
)
def test_a_form_without_what_is_needed_is_refused(
    daemon: Daemon, parts: Sequence[Part], param: str | None, says: str
) -> None:
    error = refusal(post(daemon, *parts))
    assert param in (None, error["param"])
    assert says in error["message"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", part("model", "whisper-1") + b"--b--\r\n"),
        ("multipart/form-data; boundary=", part("model", "whisper-1") + b"--b--\r\n"),
        ("multipart/form-data; boundary=other", part("model", "whisper-1") + b"--b--\r\n"),
        ("multipart/form-data; boundary=\xe9", part("model", "whisper-1") + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", part("model", "whisper-1") + part("file", CLIP)[:2000]),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition\r\n\r\nx\r\n--b--\r\n"),
        ("application/json", b'{"model": "whisper-1"}'),
        ("application/x-www-form-urlencoded", b"model=whisper-1"),
        ("", b"whatever"),
    ],
)
def test_what_is_no_whole_form_is_refused_and_leaves_nothing(daemon: Daemon, content_type: str, body: bytes) -> None:
    remains = Remains(daemon)
    refusal(daemon.request("POST", TRANSCRIPTIONS, body, Content_Type=content_type))
    remains.check()


def test_a_form_in_chunks_is_taken(dictating: Daemon) -> None:
    body = part("file", CLIP) + part(*MODEL) + b"--b--\r\n"
    with client(dictating) as one:
        one.send_head(TRANSCRIPTIONS, "multipart/form-data; boundary=b", None)
        for start in range(0, len(body), 7001):
            one.chunk(body[start : start + 7001])
        one.chunk(b"")
        answer = one.answer()
        assert answer.status == 200
        assert json.loads(json.loads(answer.read())["text"])["samples"] == (len(CLIP) - 44) // 2


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def verbose(daemon: Daemon) -> dict[str, Any]:
    """Of the long recording."""
    return heard(daemon, ("response_format", "verbose_json"), file=LONG)


def test_verbose_json_is_whole(verbose: dict[str, Any]) -> None:
    body = verbose
    assert (body["task"], body["language"]) == ("transcribe", "english")
    assert body["duration"] == round((len(LONG) - 44) / 32_000, 3)
    assert body["usage"] == {"type": "duration", "seconds": math.ceil(body["duration"])}
    assert "words" not in body
    assert "".join(segment["text"] for segment in body["segments"]).strip() == body["text"]
    assert [segment["id"] for segment in body["segments"]] == list(range(len(body["segments"])))
    kinds = {"id": int, "seek": int, "start": float, "end": float, "text": str, "tokens": list, "temperature": float}
    kinds |= {"avg_logprob": float, "compression_ratio": float, "no_speech_prob": float}
    time = 0.0
    for segment in body["segments"]:
        assert set(segment) == set(kinds)
        assert all(isinstance(segment[name], kind) for name, kind in kinds.items() if name not in ("start", "end"))
        assert time <= segment["start"] <= segment["end"] <= body["duration"]
        time = segment["end"]


@pytest.mark.parametrize("name", ["timestamp_granularities[]", "timestamp_granularities"])
def test_granularities_say_which_times_there_are(daemon: Daemon, name: str) -> None:
    verbose = ("response_format", "verbose_json")
    of_words = heard(daemon, verbose, (name, "word"))
    assert "segments" not in of_words
    assert words(" ".join(word["word"] for word in of_words["words"])) == words(of_words["text"])
    assert {"words", "segments"} <= set(heard(daemon, verbose, (name, "word"), (name, "segment")))


@pytest.mark.parametrize(
    "file",
    [
        wav(np.zeros(32_000), 16_000),
        wav(np.zeros(160), 16_000),
        wav(sweep(0.01, 44_100), 44_100, channels=2),
        muxed("mp3", "libmp3lame", np.zeros(22_050), 44_100, layout="stereo"),
    ],
    ids=["silence", "10 ms", "10 ms of stereo", "mp3"],
)
def test_where_nothing_is_said_the_answer_is_empty_and_whole(daemon: Daemon, file: bytes) -> None:
    assert heard(daemon, file=file)["text"] == ""
    verbose = heard(daemon, ("response_format", "verbose_json"), ("language", "en"), file=file)
    assert (verbose["text"], verbose["segments"], verbose["language"]) == ("", [], "english")
    events = streamed(daemon, file=file)
    assert [event["type"] for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert (events[0]["delta"], events[1]["text"]) == ("", "")


# --- events -----------------------------------------------------------------------------------------------------------


def events_in(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each of which is one line of data and an empty line, and nothing else."""
    assert re.fullmatch(rb"(data: \{[^\n]*\}\n\n)+", body), body
    return [json.loads(line.removeprefix(b"data: ")) for line in body.split(b"\n\n")[:-1]]


def streamed(daemon: Daemon, *fields: Part, file: bytes = CLIP) -> list[dict[str, Any]]:
    status, body = ask(daemon, ("stream", "true"), *fields, file=file)
    assert status == 200, body
    assert b"null" not in body
    return events_in(body)


def read_event(answer: HTTPResponse) -> dict[str, Any]:
    line = answer.readline()
    assert answer.readline() == b"\n"
    event: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
    return event


def test_events_add_up_to_the_transcript(daemon: Daemon, verbose: dict[str, Any]) -> None:
    *deltas, done = streamed(daemon, ("include[]", "logprobs"), file=LONG)
    assert len(deltas) >= 3
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert done["type"] == "transcript.text.done"
    assert "".join(event["delta"] for event in deltas) == done["text"] == verbose["text"]
    usage = done["usage"]
    assert usage["type"] == "tokens"
    assert usage["input_tokens"] == math.ceil(verbose["duration"] * 10)
    assert usage["output_tokens"] == sum(len(segment["tokens"]) for segment in verbose["segments"])
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    tokens = [token for event in deltas for token in event["logprobs"]]
    assert tokens == done["logprobs"]
    assert bytes(byte for token in tokens for byte in token["bytes"]).decode().strip() == done["text"]


def test_text_may_come_as_events_too(daemon: Daemon) -> None:
    assert "amidst the tents" in streamed(daemon, ("response_format", "text"))[-1]["text"].lower()


def test_the_sdk_reads_the_events(sdk: openai.OpenAI) -> None:
    with sdk.audio.transcriptions.create(model="gpt-4o-transcribe", file=JFK, stream=True) as stream:
        events = list(stream)
    assert [type(event).__name__ for event in events[-1:]] == ["TranscriptionTextDoneEvent"]
    assert {type(event).__name__ for event in events[:-1]} == {"TranscriptionTextDeltaEvent"}
    assert events[-1].type == "transcript.text.done"
    assert events[-1].usage is not None
    assert events[-1].usage.type == "tokens"


@contextlib.contextmanager
def listening(daemon: Daemon, prompt: str, receive_bytes: int = 0) -> Iterator[Client]:
    """Who has asked for events, and has not read any."""
    fields = (part(name, text) for name, text in (("stream", "true"), ("model", "dictating"), ("prompt", prompt)))
    body = b"".join(fields) + part("file", CLIP) + b"--b--\r\n"
    with client(daemon, receive_bytes) as one:
        one.send_head(TRANSCRIPTIONS, "multipart/form-data; boundary=b", len(body))
        one.sock.sendall(body)
        yield one
        with contextlib.suppress(OSError):  # already gone
            one.sock.shutdown(socket.SHUT_RDWR)  # whoever still has the answer would keep the connection open


def remains_of(dictating: Daemon) -> Remains:
    """With the model up."""
    assert dictating.ctl("load", "dictating").returncode == 0
    return Remains(dictating)


def test_events_come_while_the_model_still_listens_and_who_leaves_stops_it(dictating: Daemon) -> None:
    remains = remains_of(dictating)
    with listening(dictating, "hear One.; take 0.5; hear Two.; many 100000 on") as one:
        answer = one.answer()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert read_event(answer) == {"type": "transcript.text.delta", "delta": "One."}
        assert read_event(answer) == {"type": "transcript.text.delta", "delta": " Two."}
        assert leases(dictating, "dictating") == 1
    remains.check()


@pytest.mark.parametrize(("step", "code"), [("die", "worker_died"), ("fail", "engine_failed")])
def test_a_model_that_fails_in_the_middle_ends_the_events_with_an_error(
    dictating: Daemon, step: str, code: str
) -> None:
    remains = remains_of(dictating)
    with listening(dictating, f"hear One.; take 0.2; {step}") as one:
        first, last = events_in(one.answer().read())
    assert first["delta"] == "One."
    assert last["error"]["code"] == code
    assert set(last["error"]) >= {"message", "type", "param", "code"}
    remains.check()


def test_a_model_that_dies_before_the_first_event_is_forgiven(dictating: Daemon) -> None:
    assert dictating.ctl("load", "dictating").returncode == 0
    victim = dictating.model("dictating")["worker_pid"]
    os.kill(victim, signal.SIGSTOP)
    with listening(dictating, "hear One.") as one:
        until(lambda: leases(dictating, "dictating") == 1)
        os.kill(victim, signal.SIGKILL)
        answer = one.answer()
        assert answer.status == 200
        assert events_in(answer.read())[-1]["text"] == "One."


def test_a_model_that_always_fails_before_the_first_event_is_an_answer_of_its_own(dictating: Daemon) -> None:
    for step, status, code in (("die", 503, "worker_died"), ("fail", 500, "engine_failed")):
        with listening(dictating, step) as one:
            found, error = one.error()
        assert (found, error["code"]) == (status, code)


def test_an_error_before_the_first_event_is_an_answer_of_its_own(daemon: Daemon) -> None:
    assert refusal(ask(daemon, ("stream", "true"), file=b"no audio"))["code"] == "invalid_audio"
    assert refusal(ask(daemon, ("stream", "true"), ("language", "zz")))["param"] == "language"


def test_who_reads_nothing_holds_neither_the_model_nor_the_audio(dictating: Daemon) -> None:
    remains = remains_of(dictating)
    with listening(dictating, "many 50000 a word or two", receive_bytes=8192) as one:
        answer = one.answer()
        until(lambda: leases(dictating, "dictating") == 0)
        assert held_bytes(dictating) == 0
        *deltas, done = events_in(answer.read())
        assert len(deltas) == 50_000
        assert done["text"] == "".join(event["delta"] for event in deltas)
    remains.check()
