"""POST /v1/audio/transcriptions without events: forms in, every response format out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import numpy as np
import pytest

import sounds

from .conftest import has_null, post_audio, refusal

Transcribed = Callable[..., httpx2.Response]

WORDS = ["concord", "returned", "to", "its", "place", "amidst", "the", "tents"]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def assert_is_it(text: str) -> None:
    """Whisper base hears "conquered" for "concord"; the rest it must have."""
    assert sum(word in words(text) for word in WORDS) >= len(WORDS) - 2, text


def test_json_is_the_default_and_has_the_text(transcribed: Transcribed) -> None:
    bare, explicit = transcribed(), transcribed(response_format="json")
    for answer in (bare, explicit):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("application/json")
        assert_is_it(answer.json()["text"])
    assert set(bare.json()) == set(explicit.json())
    assert not {"segments", "words"} & set(bare.json())
    assert not has_null(bare.json())


def test_usage_and_languages_are_whole_where_they_are(transcribed: Transcribed) -> None:
    body = transcribed().json()
    if usage := body.get("usage"):
        if usage["type"] == "duration":
            assert usage["seconds"] > 0
        else:
            assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert all(isinstance(language["code"], str) for language in body.get("languages", []))
    assert "logprobs" not in body


@pytest.mark.parametrize(("response_format", "kind"), [("text", "text/plain"), ("srt", "text/"), ("vtt", "text/vtt")])
def test_plain_formats_are_plain_utf_8(transcribed: Transcribed, response_format: str, kind: str) -> None:
    answer = transcribed(response_format=response_format)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert "charset=utf-8" in answer.headers["content-type"].lower()
    assert_is_it(answer.content.decode())


def test_text_is_the_bare_transcript(transcribed: Transcribed) -> None:
    assert transcribed(response_format="text").text == transcribed().json()["text"] + "\n"


def test_srt_has_numbered_cues(transcribed: Transcribed) -> None:
    cues = transcribed(response_format="srt").text.strip().split("\n\n")
    clock = r"\d\d:\d\d:\d\d,\d\d\d"
    for number, cue in enumerate(cues, 1):
        assert re.fullmatch(rf"{number}\n{clock} --> {clock}(\n\S[^\n]*){{1,2}}", cue), cue


def test_vtt_has_a_header_and_cues(transcribed: Transcribed) -> None:
    head, *cues = transcribed(response_format="vtt").text.strip().split("\n\n")
    assert head == "WEBVTT"
    clock = r"(\d\d:)?\d\d:\d\d\.\d\d\d"
    assert cues
    assert all(re.match(rf"{clock} --> {clock}\n\S", cue) for cue in cues)


SEGMENT = {
    "id": int,
    "seek": int,
    "start": float,
    "end": float,
    "text": str,
    "tokens": list,
    "temperature": float,
    "avg_logprob": float,
    "compression_ratio": float,
    "no_speech_prob": float,
}


def test_verbose_json_has_segments_and_no_words(transcribed: Transcribed) -> None:
    body = transcribed(response_format="verbose_json").json()
    assert body["task"] == "transcribe"
    assert body["language"] in ("english", "en")
    assert body["duration"] == pytest.approx(3.5, rel=0.05)
    assert "words" not in body
    assert body["usage"]["type"] == "duration"
    assert not has_null(body)
    assert "".join(segment["text"] for segment in body["segments"]).strip() == body["text"].strip()
    ids = [segment["id"] for segment in body["segments"]]
    assert len(ids) == len(set(ids))
    end = 0.0
    for segment in body["segments"]:
        assert set(segment) == set(SEGMENT)
        for name, kind in SEGMENT.items():
            assert isinstance(segment[name], (int, float) if kind is float else kind), name
        assert all(isinstance(token, int) for token in segment["tokens"])
        assert end <= segment["start"] + 0.01 <= segment["end"] + 0.01
        end = segment["end"]
    assert end <= body["duration"] + 0.5


def test_words_are_top_level_ordered_and_spell_the_text(transcribed: Transcribed) -> None:
    body = transcribed(response_format="verbose_json", **{"timestamp_granularities[]": "word"}).json()
    assert "segments" not in body
    starts = [word["start"] for word in body["words"]]
    assert starts == sorted(starts)
    assert all(set(word) == {"word", "start", "end"} and word["start"] <= word["end"] for word in body["words"])
    assert words(" ".join(word["word"] for word in body["words"])) == words(body["text"])


@pytest.mark.parametrize("name", ["timestamp_granularities[]", "timestamp_granularities"])
def test_both_granularities_give_both(transcribed: Transcribed, name: str) -> None:
    body = transcribed(response_format="verbose_json", **{name: ["word", "segment"]}).json()
    assert body["words"]
    assert body["segments"]


ACCEPTED: list[dict[str, str | list[str]]] = [
    {"language": "en", "prompt": "tents", "temperature": "0.2", "chunking_strategy": "auto"},
    {"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "0.4"},
    {"chunking_strategy": '{"type": "server_vad", "silence_duration_ms": 300}'},
    {"language": "en-US"},
    {"keywords[]": ["Concord", "tents"], "languages[]": ["en", "fr"]},
    {"stream": "false", "some_field": "unknown", "vad_filter": "true", "nested[a][]": ["1", "2"]},
    {"response_format": "verbose_json", "timestamp_granularities[]": "segment", "temperature": "0"},
]


@pytest.mark.parametrize("fields", ACCEPTED, ids=lambda fields: ",".join(fields))
def test_what_clients_send_is_accepted(transcribed: Transcribed, fields: dict[str, str]) -> None:
    answer = transcribed(**fields)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    assert_is_it(answer.json()["text"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "no-such-model"}, "model"),
        ({"model": ""}, "model"),
        ({"response_format": "yaml"}, "response_format"),
        ({"temperature": "2.5"}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"timestamp_granularities[]": "letter"}, "timestamp_granularities"),
        ({"chunking_strategy": "manual"}, "chunking_strategy"),
        ({"stream": "perhaps"}, "stream"),
    ],
    ids=str,
)
def test_wrong_values_are_refused_by_name(transcribed: Transcribed, fields: dict[str, str], param: str) -> None:
    error = refusal(transcribed(**fields), 400, 404)
    assert (error["param"] or "").startswith(param)


@pytest.mark.parametrize("language", ["zz", "english", "xx-YY", "klingon"])
def test_odd_languages_are_heard_or_cleanly_refused(transcribed: Transcribed, language: str) -> None:
    answer = transcribed(language=language)
    if answer.status_code != 200:
        assert refusal(answer, 400)["param"] == "language"


def test_logprobs_come_when_asked_for(transcribed: Transcribed) -> None:
    answer = transcribed(**{"include[]": "logprobs"})
    if answer.status_code != 200:
        refusal(answer, 400)
        return
    for token in answer.json()["logprobs"]:
        assert token["logprob"] <= 0
        assert isinstance(token["token"], str)
        assert all(0 <= byte < 256 for byte in token["bytes"])


def raw(parts: list[tuple[str, str, bytes]], boundary: bytes = b"x") -> bytes:
    """A multipart body of (name, more headers of the part, content)."""
    return (
        b"".join(
            b'--%b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
            % (boundary, name.encode(), more.encode(), content)
            for name, more, content in parts
        )
        + b"--%b--\r\n" % boundary
    )


FILES = {
    "octet-stream with a .wav name": '; filename="clip.wav"\r\nContent-Type: application/octet-stream',
    "no type": '; filename="clip.wav"',
    "a name that is not ASCII": '; filename="Aufnahme für 小明.wav"',
    "an encoded name": "; filename=\"x.wav\"; filename*=UTF-8''%E5%B0%8F%E6%98%8E.wav",
    "the Python SDK's upload": '; filename="upload"\r\nContent-Type: application/octet-stream',
    "the Node SDK's unknown_file": '; filename="unknown_file"\r\nContent-Type: application/octet-stream',
    "a lying type": '; filename="clip.mp3"\r\nContent-Type: audio/mpeg',
}


@pytest.mark.parametrize("headers", FILES.values(), ids=FILES)
def test_the_bytes_count_and_not_what_is_said_of_them(api: httpx2.Client, clip: bytes, headers: str) -> None:
    content = raw([("file", headers, clip), ("model", "", b"whisper-1")])
    answer = api.post(
        "/audio/transcriptions", content=content, headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert answer.status_code == 200, answer.text
    assert_is_it(answer.json()["text"])


def test_a_chunked_upload_with_its_file_last(api: httpx2.Client, clip: bytes) -> None:
    def pieces() -> Iterator[bytes]:
        body = raw([("model", "", b"whisper-1"), ("file", FILES["no type"], clip)])
        yield from (body[at : at + 9000] for at in range(0, len(body), 9000))

    answer = api.post(
        "/audio/transcriptions", content=pieces(), headers={"Content-Type": 'multipart/form-data; boundary="x"'}
    )
    assert answer.status_code == 200, answer.text
    assert_is_it(answer.json()["text"])


def test_stereo_at_44_khz_is_heard(api: httpx2.Client) -> None:
    both = sounds.wav(np.repeat(sounds.tone(1, 44_100), 2), 44_100, channels=2)
    assert post_audio(api, both).status_code == 200


@pytest.mark.parametrize("response_format", ["json", "verbose_json", "text", "srt", "vtt"])
def test_silence_is_no_error(api: httpx2.Client, silence: bytes, response_format: str) -> None:
    answer = post_audio(api, silence, response_format=response_format)
    assert answer.status_code == 200, answer.text
    if response_format == "verbose_json":
        assert answer.json()["duration"] == pytest.approx(1, abs=0.05)
        assert not has_null(answer.json())


def test_tiny_and_cut_off_files_are_heard_or_cleanly_refused(api: httpx2.Client, clip: bytes) -> None:
    for audio in (sounds.wav(np.zeros(160), 16_000), clip[: len(clip) // 2], clip[:44], clip[:20]):
        answer = post_audio(api, audio)
        if answer.status_code != 200:
            refusal(answer, 400)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, I am no audio\n" * 50,
        bytes(range(256)) * 40,
        b"RIFF\xff\xff\xff\xffWAVEfmt ",
        b"ID3\x04" + b"\0" * 99,
    ],
    ids=["empty", "text", "garbage", "half a header", "a bare ID3 tag"],
)
def test_what_is_no_audio_is_the_client_s_fault(api: httpx2.Client, content: bytes) -> None:
    answer = post_audio(api, content)
    refusal(answer, 400)
    assert answer.headers.get("x-should-retry") != "true"


def test_a_form_without_its_parts_is_refused_by_name(api: httpx2.Client, clip: bytes) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert (
        refusal(api.post("/audio/transcriptions", content=raw([("model", "", b"a")]), headers=kind), 400)["param"]
        == "file"
    )
    only_file = raw([("file", '; filename="a.wav"', clip)])
    assert refusal(api.post("/audio/transcriptions", content=only_file, headers=kind), 400)["param"] == "model"
    as_text = raw([("model", "", b"whisper-1"), ("file", "", b"a string and no file")])
    refusal(api.post("/audio/transcriptions", content=as_text, headers=kind), 400)
    refusal(api.post("/audio/transcriptions", json={"model": "whisper-1", "file": "x"}), 400, 415)
    refusal(api.post("/audio/transcriptions", data={"model": "whisper-1"}), 400, 415)
    refusal(
        api.post("/audio/transcriptions", content=b"no boundary", headers={"Content-Type": "multipart/form-data"}), 400
    )
    refusal(api.post("/audio/transcriptions"), 400, 415)


def test_26_megabytes_of_garbage_are_refused(api: httpx2.Client) -> None:
    refusal(post_audio(api, b"\x5a" * 26_000_000), 400, 413)


def test_four_at_a_time(api: httpx2.Client, clip: bytes) -> None:
    def one(_: int) -> Any:
        return post_audio(api, clip)

    with ThreadPoolExecutor(4) as pool:
        for answer in pool.map(one, range(4)):
            if answer.status_code != 200:
                refusal(answer, 429, 503)
            else:
                assert_is_it(answer.json()["text"])


def test_speakers_are_told_apart_or_that_is_refused(transcribed: Transcribed) -> None:
    answer = transcribed(response_format="diarized_json", model="gpt-4o-transcribe-diarize")
    if answer.status_code != 200:
        refusal(answer, 400, 404)
        return
    body = answer.json()
    assert body["task"] == "transcribe"
    assert all(isinstance(segment["id"], str) and segment["speaker"] for segment in body["segments"])
    assert all(segment["type"] == "transcript.text.segment" for segment in body["segments"])
