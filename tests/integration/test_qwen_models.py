"""Tiny Qwen3-ASR checkpoints in a real daemon, by the API and by audioctl."""

from __future__ import annotations

import io
import json
import urllib.request
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest

from daemons import AUDIO, Daemon, form, running, transcribe

ENTRY = """
id = "{name}"
engine = "{engine}"
runtime = "{runtime}"
task = "{task}"
languages = ["en", "zh"]
path = "{path}"
{more}
"""


def noise(seconds: int) -> bytes:
    """A WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes((np.random.default_rng(0).normal(0, 0.1, seconds * 16_000) * 32767).astype("<i2").tobytes())
    return file.getvalue()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, state_dir: Path, tiny_qwen: Path) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("daemon")
    (directory / "models.d").mkdir()
    hears = "exact_words = false"
    for name, engine, task, path, more in (
        ("tiny", "qwen_asr", "transcribe", tiny_qwen / "asr", hears),
        ("tiny-noise", "qwen_asr", "transcribe", tiny_qwen / "asr", f"{hears}\n[options]\nvad = false"),
        ("tiny-aligner", "qwen_aligner", "align", tiny_qwen / "aligner", ""),
        ("mistaken", "qwen_asr", "transcribe", tiny_qwen / "aligner", ""),
        ("packaged", "qwen_asr_package", "transcribe", tiny_qwen / "asr", f"{hears}\n[options]\nvad = false"),
    ):
        runtime = "qwen-asr-package" if engine == "qwen_asr_package" else "qwen-asr"
        (directory / f"models.d/{name}.toml").write_text(
            ENTRY.format(name=name, engine=engine, runtime=runtime, task=task, path=path, more=more), encoding="utf-8"
        )
    with running(directory, state_dir) as started:
        yield started


@pytest.mark.parametrize("model", ["tiny-noise", "packaged"])
def test_it_transcribes_is_parked_and_is_back_from_what_it_holds(model: str, daemon: Daemon) -> None:
    """Through transformers' own classes, and where the catalogue says so through the authors' package."""
    for _ in range(2):
        status, answer = transcribe(daemon, noise(40), model=model, response_format="verbose_json")
        assert status == 200, answer
        heard = json.loads(answer)
        assert heard["text"] == "hello brave new world hello brave new world"
        assert heard["language"] == "english"
        assert len(heard["segments"]) == 2
        assert daemon.ctl("park", model).returncode == 0
        assert daemon.model(model)["state"] == "parked"


def test_the_models_are_listed_with_their_task(daemon: Daemon) -> None:
    _, answer = daemon.get("/v1/models")
    tasks = {model["id"]: model["task"] for model in json.loads(answer)["data"]}
    assert tasks["tiny-aligner"] == "align"
    listed = daemon.ctl("models")
    assert listed.returncode == 0
    assert "qwen3-asr-0.6b" in listed.stdout


def test_an_aligner_is_loaded_like_any_model_but_does_not_transcribe(daemon: Daemon) -> None:
    loaded = daemon.ctl("load", "tiny-aligner")
    assert loaded.returncode == 0, loaded.stderr
    assert daemon.model("tiny-aligner")["state"] == "ready"
    status, answer = transcribe(daemon, noise(1), model="tiny-aligner")
    assert status == 400
    assert json.loads(answer)["error"]["code"] == "unsupported_task"


def test_another_kind_of_checkpoint_is_refused_with_what_it_is(daemon: Daemon) -> None:
    refused = daemon.ctl("load", "mistaken")
    assert refused.returncode != 0
    assert "holds a forced aligner, not a recogniser" in refused.stderr


JFK = (AUDIO / "jfk.wav").read_bytes()


@pytest.fixture(scope="module")
def sdk(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as one:
        yield one


def test_the_sdk_gets_the_words_that_the_aligner_heard(daemon: Daemon, sdk: openai.OpenAI) -> None:
    heard = sdk.audio.transcriptions.create(
        model="tiny", file=("jfk.wav", JFK), response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert heard.words is not None
    assert heard.segments is not None
    assert [word.word for word in heard.words] == ["hello", "brave", "new", "world"]
    times = [time for word in heard.words for time in (word.start, word.end)]
    assert times == sorted(times)
    # In steps of 80 ms from where the segment begins to be heard, as estimates are not.
    assert {round((time - times[0]) * 1000) % 80 for time in times} == {0}
    assert not any("estimated" in (word.model_extra or {}) for word in heard.words)
    assert (heard.segments[0].start, heard.segments[0].end) == (times[0], times[-1])
    assert daemon.model("tiny-aligner")["state"] == "ready"


def test_fast_subtitles_do_without_the_aligner(daemon: Daemon) -> None:
    assert daemon.ctl("unload", "tiny-aligner").returncode == 0
    files = {}
    for mode in ("fast", "accurate"):
        body, kind = form(JFK, model="tiny", response_format="srt", subtitle_mode=mode)
        answer = urllib.request.urlopen(
            urllib.request.Request(f"{daemon.url}/v1/audio/transcriptions", body, {"Content-Type": kind})
        )
        with answer:
            files[mode] = answer.read().decode()
            assert (int(answer.headers["x-estimated-cues"]) > 0) == (mode == "fast")
        assert (daemon.model("tiny-aligner")["state"] == "ready") == (mode == "accurate")
        assert all(word in files[mode] for word in ("hello", "brave", "new", "world"))
    assert files["fast"] != files["accurate"]


def test_accurate_subtitles_without_an_aligner_are_refused_before_anybody_listens(
    tmp_path: Path, state_dir: Path, tiny_qwen: Path
) -> None:
    (tmp_path / "models.d").mkdir()
    entry = ENTRY.format(
        name="tiny", engine="qwen_asr", task="transcribe", path=tiny_qwen / "asr", more="exact_words = false"
    )
    (tmp_path / "models.d/tiny.toml").write_text(entry, encoding="utf-8")
    with running(tmp_path, state_dir) as alone:
        status, answer = transcribe(alone, JFK, model="tiny", response_format="srt", subtitle_mode="accurate")
        error = json.loads(answer)["error"]
        assert (status, error["code"], error["param"]) == (404, "model_not_installed", "subtitle_mode")
        assert "audioctl models pull qwen3-forced-aligner-0.6b" in error["message"]
        assert alone.model("tiny")["state"] == "unloaded"
        fields = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
        status, answer = transcribe(alone, JFK, model="tiny", **fields)
        assert status == 200, answer
        assert [word["estimated"] for word in json.loads(answer)["words"]] == [True] * 4


def test_its_text_is_streamed_as_it_is_written(sdk: openai.OpenAI) -> None:
    events = list(sdk.audio.transcriptions.create(model="tiny", file=("jfk.wav", JFK), stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert deltas == ["hello", " brave", " new", " world"]
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == "hello brave new world"


def test_noise_has_no_text(daemon: Daemon) -> None:
    """The checkpoint would say its text of anything."""
    status, answer = transcribe(daemon, noise(5), model="tiny")
    assert (status, json.loads(answer)["text"]) == (200, "")
