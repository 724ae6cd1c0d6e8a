"""Tiny Qwen3-ASR checkpoints in a real daemon, by the API and by audioctl."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from daemons import Daemon, running, transcribe

ENTRY = """
id = "{name}"
engine = "{engine}"
runtime = "{runtime}"
task = "{task}"
languages = ["en", "zh"]
path = "{path}"
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
    for name, engine, task, path in (
        ("tiny", "qwen_asr", "transcribe", tiny_qwen / "asr"),
        ("tiny-aligner", "qwen_aligner", "align", tiny_qwen / "aligner"),
        ("mistaken", "qwen_asr", "transcribe", tiny_qwen / "aligner"),
        ("packaged", "qwen_asr_package", "transcribe", tiny_qwen / "asr"),
    ):
        runtime = "qwen-asr-package" if engine == "qwen_asr_package" else "qwen-asr"
        (directory / f"models.d/{name}.toml").write_text(
            ENTRY.format(name=name, engine=engine, runtime=runtime, task=task, path=path), encoding="utf-8"
        )
    with running(directory, state_dir) as started:
        yield started


@pytest.mark.parametrize("model", ["tiny", "packaged"])
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
