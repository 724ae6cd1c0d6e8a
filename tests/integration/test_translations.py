"""POST /v1/audio/translations and `translate_to`: by the model that listens, and by a chat endpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from chats import Chat, chatting
from clients import Remains
from daemons import AUDIO, Daemon, form, running, say
from sounds import wav

TRANSLATIONS = "/v1/audio/translations"
CLIP = (AUDIO / "librispeech-6930-75918-0000.wav").read_bytes()
MINUTE = wav(np.zeros(70 * 16_000, np.float32), 16_000)
"""Room for as many cues as the chat endpoint is asked of."""
KEY = "sk-for-the-translator"


@pytest.fixture(scope="module")
def chat() -> Iterator[Chat]:
    with chatting() as one:
        yield one


@pytest.fixture(scope="module")
def daemon(
    tmp_path_factory: pytest.TempPathFactory, state_dir: Path, engines_made: Path, chat: Chat
) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("daemon")
    (directory / "key").write_text(KEY)
    settings = (
        f'[translate]\nbase_url = "{chat.url}"\nmodel = "translator"\nkey_file = "{directory / "key"}"\n'
        'timeout = "2s"\n'
    )
    with running(directory, state_dir, settings, engines_made) as started:
        yield started
    assert KEY not in started.log.read_text()


@pytest.fixture(scope="module")
def chinese(daemon: Daemon) -> bytes:
    status, audio = say(daemon, "今天天气很好，我们去公园散步。")
    assert status == 200
    return audio


def ask(daemon: Daemon, file: bytes, path: str = TRANSLATIONS, **fields: str) -> tuple[int, bytes]:
    body, kind = form(file, **({"model": "whisper-1"} | fields))
    return daemon.request("POST", path, body, Content_Type=kind)


def good(daemon: Daemon, file: bytes, path: str = TRANSLATIONS, **fields: str) -> str:
    status, body = ask(daemon, file, path, **fields)
    assert status == 200, body
    return body.decode()


def error(daemon: Daemon, **fields: str) -> tuple[int, dict[str, Any]]:
    status, body = ask(daemon, CLIP, **fields)
    return status, json.loads(body)["error"]


# --- by the model that listens ----------------------------------------------------------------------------------------


def test_chinese_comes_out_in_english_in_every_format(daemon: Daemon, chinese: bytes, chat: Chat) -> None:
    before = len(chat.asked)
    answer = json.loads(good(daemon, chinese))
    assert set(answer) == {"text"}
    assert re.search("weather|park", answer["text"])
    verbose = json.loads(good(daemon, chinese, response_format="verbose_json"))
    assert set(verbose) == {"task", "language", "duration", "text", "segments"}
    assert (verbose["task"], verbose["language"]) == ("translate", "english")
    assert all(len(segment) == 10 for segment in verbose["segments"])
    assert good(daemon, chinese, response_format="text").endswith("\n")
    assert good(daemon, chinese, response_format="srt").startswith("1\n00:00:00,")
    assert good(daemon, chinese, response_format="vtt").startswith("WEBVTT\n\n00:00:00.")
    assert len(chat.asked) == before


def test_the_sdk_translates(daemon: Daemon, chinese: bytes) -> None:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as sdk:
        with pytest.deprecated_call():
            answer = sdk.audio.translations.create(model="whisper-1", file=chinese, prompt="A walk.", temperature=0)
        assert type(answer).__name__ == "Translation"
        assert answer.text
        with pytest.deprecated_call():
            verbose = sdk.audio.translations.create(model="whisper-1", file=chinese, response_format="verbose_json")
        assert (verbose.language, bool(verbose.segments)) == ("english", True)


def test_a_transcription_may_be_a_translation_and_may_be_streamed(daemon: Daemon, chinese: bytes) -> None:
    path = "/v1/audio/transcriptions"
    assert re.search("weather|park", json.loads(good(daemon, chinese, path, translate_to="en"))["text"])
    events = good(daemon, chinese, path, translate_to="en", stream="true").split("\n\n")[:-1]
    done = json.loads(events[-1].removeprefix("data: "))
    assert re.search("weather|park", done["text"])
    assert done["languages"] == [{"code": "en"}]


def test_what_is_wrong_is_refused_by_name(daemon: Daemon) -> None:
    assert error(daemon, response_format="diarized_json")[1]["param"] == "response_format"
    assert error(daemon, translate_to="zz")[1]["param"] == "translate_to"
    assert error(daemon, temperature="7")[1]["param"] == "temperature"
    assert error(daemon, model="hibari")[1]["code"] == "unsupported_task"
    status, body = daemon.request("POST", TRANSLATIONS, b"--b--\r\n", Content_Type="multipart/form-data; boundary=b")
    assert (status, json.loads(body)["error"]["param"]) == (400, "file")
    fields = {"translate_to": "de", "response_format": "verbose_json", "timestamp_granularities[]": "word"}
    status, body = ask(daemon, CLIP, "/v1/audio/transcriptions", **fields)
    assert (status, json.loads(body)["error"]["param"]) == (400, "timestamp_granularities[]")


# --- by a chat endpoint -----------------------------------------------------------------------------------------------


HEARD = {"model": "dictating", "prompt": "hear Hello.; hear How --> are you?; hear 3; many 20 Bye."}
"""Two pieces for a language model."""


def cues(srt: str) -> list[tuple[str, str, str]]:
    """Index, times and text of every cue of a file that is one."""
    assert re.fullmatch(r"(\d+\n\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}\n([^\n]+\n){1,2}\n)+", srt), srt
    return [(index, times, text) for index, times, text in (cue.split("\n", 2) for cue in srt.split("\n\n")[:-1])]


@pytest.mark.parametrize(
    ("script", "left"),
    [
        (["good"], {0}),
        (["fenced", "shuffled"], {0}),
        (["garbage", "other", "good"], {0}),
        (["merged", "html", "truncated"], {1}),
        (["500", "429 0"], {0}),
        (["hang up"], {0}),
        (["truncated", "truncated", "garbage", "garbage"], {2}),
        (["good", "garbage", "garbage", "empty"], {3, 20}),  # whichever piece came first
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_subtitles_keep_their_numbers_and_times_whatever_the_language_model_says(
    daemon: Daemon, chat: Chat, script: list[str], left: set[int]
) -> None:
    original = cues(good(daemon, MINUTE, "/v1/audio/transcriptions", **HEARD, response_format="srt"))
    assert len(original) == 23
    chat.script = list(script)
    translated = cues(good(daemon, MINUTE, **HEARD, response_format="srt", translate_to="de", language="en"))
    assert [cue[:2] for cue in translated] == [cue[:2] for cue in original]
    pairs = [(text, was) for (_, _, text), (_, _, was) in zip(translated, original, strict=True)]
    assert sum(text == was for text, was in pairs) in left
    assert all(text.startswith("de:") for text, was in pairs if text != was)


def test_other_languages_come_from_the_chat_in_every_format(daemon: Daemon, chat: Chat) -> None:
    chat.script.clear()
    verbose = json.loads(good(daemon, CLIP, **HEARD, response_format="verbose_json", translate_to="zh-TW"))
    assert "Traditional Chinese" in chat.systems[-1]
    assert chat.headers[-1]["Authorization"] == f"Bearer {KEY}"
    assert (verbose["task"], verbose["language"]) == ("translate", "chinese")
    assert verbose["text"].startswith("de:Hello.de:How -> are you?de:3de:Bye.")
    assert "".join(segment["text"] for segment in verbose["segments"]) == verbose["text"]
    assert json.loads(good(daemon, CLIP, **HEARD, translate_to="zh")) == {"text": verbose["text"]}
    streamed = good(daemon, CLIP, "/v1/audio/transcriptions", **HEARD, translate_to="zh", stream="true")
    assert json.loads(streamed.split("\n\n")[-2].removeprefix("data: "))["text"] == verbose["text"]
    german = json.loads(good(daemon, CLIP, **HEARD, translate_to="de"))["text"]
    assert german.startswith("de:Hello. de:How -> are you? de:3 de:Bye.")


def test_who_speaks_the_language_already_is_left_alone(daemon: Daemon, chat: Chat) -> None:
    before = len(chat.asked)
    assert json.loads(good(daemon, CLIP, **HEARD, language="de", translate_to="de"))["text"].startswith("Hello.")
    assert len(chat.asked) == before


@pytest.mark.parametrize(
    ("script", "status", "code", "says"),
    [
        (["500", "500", "500"], 503, "translator_unavailable", "500"),
        (["hang"], 503, "translator_unavailable", "within 2 s"),
        (["401"], 502, "translator_failed", "401"),
        (["garbage", "garbage"], 502, "translator_failed", "nothing that is a translation"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_chat_that_does_not_work_is_told_with_what_to_do(
    daemon: Daemon, chat: Chat, script: list[str], status: int, code: str, says: str
) -> None:
    remains = Remains(daemon)
    chat.script = list(script)
    found, told = error(daemon, model="dictating", prompt="hear Hello.", translate_to="de")
    assert (found, told["code"]) == (status, code)
    assert says in told["message"]
    assert "translate" in told["message"].split("(try:")[1]
    remains.check()


def test_without_a_chat_endpoint_other_languages_are_refused(daemon: Daemon) -> None:
    good_settings = daemon.config.read_text()
    try:
        daemon.config.write_text(good_settings.split("[translate]")[0])
        assert daemon.ctl("reload").returncode == 0
        status, told = error(daemon, translate_to="de")
        assert (status, told["param"]) == (400, "translate_to")
        assert "whisper-base translates into en" in told["message"]
        daemon.config.write_text(good_settings.replace('model = "translator"', ""))
        refused = daemon.ctl("reload")
        assert refused.returncode == 7
        assert "translate.model" in refused.stderr
    finally:
        daemon.config.write_text(good_settings)
        assert daemon.ctl("reload").returncode == 0
