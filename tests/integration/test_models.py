"""The lists of models as clients read them, against a real daemon; one model has a slash in its name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from daemons import TOP, Daemon

SLASHED = "acme/hibari"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("models"), state_dir)
    entry = (TOP / "etc" / "models.d" / "hibari.toml").read_text().replace('id = "hibari"', f'id = "{SLASHED}"')
    (daemon.directory / "models.d" / "acme.toml").write_text(entry)
    daemon.start()
    yield daemon
    daemon.stop()
    daemon.check_log()


def got(daemon: Daemon, path: str) -> Any:
    status, body = daemon.get(path)
    assert status == 200, body
    return json.loads(body)


def test_every_model_has_what_openai_says_and_what_we_add(named: Daemon) -> None:
    listed = got(named, "/v1/models")
    assert listed["object"] == "list"
    models = {model["id"]: model for model in listed["data"]}
    assert len(models) == len(listed["data"])
    assert {"whisper-base", "hibari", "kokoro-82m", SLASHED, "whisper-1", "tts-1"} <= set(models)
    for model in models.values():
        assert model["object"] == "model"
        assert type(model["created"]) is int
        assert None not in model.values()
    assert models["hibari"]["owned_by"] == "audiod"
    assert models[SLASHED]["owned_by"] == "acme"
    assert models["kokoro-82m"]["task"] == "speak"
    assert models["kokoro-82m"]["languages"]
    assert {voice["id"] for voice in models["kokoro-82m"]["voices"]} >= {"zf_xiaobei"}
    assert "voices" not in models["whisper-base"]
    assert (models["tts-1"]["root"], models["tts-1"]["aliases"]) == ("hibari", [])
    assert "tts-1" in models["hibari"]["aliases"]


def test_the_state_is_where_the_model_is_now(named: Daemon) -> None:
    assert named.ctl("load", "hibari").returncode == 0
    assert got(named, "/v1/models/hibari")["state"] == "ready"
    assert got(named, "/v1/models/tts-1")["state"] == "ready"
    assert named.ctl("unload", "hibari").returncode == 0
    assert got(named, "/v1/models/hibari")["state"] == "unloaded"


def test_created_is_the_same_after_a_restart(named: Daemon) -> None:
    before = got(named, "/v1/models")
    named.stop()
    named.start()
    assert got(named, "/v1/models") == before


@pytest.mark.parametrize("path", ["acme/hibari", "acme%2Fhibari", "acme%2fhibari"])
def test_a_slash_is_taken_raw_and_encoded(named: Daemon, path: str) -> None:
    assert got(named, f"/v1/models/{path}")["id"] == SLASHED


def test_the_sdk_finds_and_may_not_delete_it(named: Daemon) -> None:
    with openai.OpenAI(base_url=f"{named.url}/v1", api_key="none", max_retries=0) as client:
        assert client.models.retrieve(SLASHED).id == SLASHED
        with pytest.raises(openai.PermissionDeniedError) as refused:
            client.models.delete(SLASHED)
        assert refused.value.code == "permission_denied"
        for call in (client.models.retrieve, client.models.delete):
            with pytest.raises(openai.NotFoundError) as unknown:
                call("acme/none")
            assert unknown.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("task", "there", "absent"),
    [
        ("speak", "tts-1", "whisper-1"),
        ("text-to-speech", "kokoro-82m", "whisper-base"),
        ("transcribe", "whisper-base", "hibari"),
        ("automatic-speech-recognition", "whisper-1", "tts-1"),
    ],
)
def test_models_of_one_task_are_listed(named: Daemon, task: str, there: str, absent: str) -> None:
    for path, key in (("/v1/models", "data"), ("/v1/audio/models", "models")):
        ids = {model["id"] for model in got(named, f"{path}?task={task}")[key]}
        assert there in ids
        assert absent not in ids
    status, body = named.get("/v1/models?task=sing")
    assert (status, json.loads(body)["error"]["param"]) == (400, "task")


def test_open_webui_finds_speech_models_first(named: Daemon) -> None:
    models = got(named, "/v1/audio/models")["models"]
    tasks = [model["task"] for model in models]
    assert all(model["id"] and model["name"] for model in models)
    assert tasks == sorted(tasks, key=lambda task: task != "speak")
    assert {"tts-1", "whisper-1"} <= {model["id"] for model in models}


@pytest.mark.parametrize("path", ["%2e%2e/%2e%2e/etc/passwd", "%00", "a" * 4000, "%FF", "%E4%BD%A0"])
def test_odd_names_are_unknown_models(named: Daemon, path: str) -> None:
    status, body = named.get(f"/v1/models/{path}")
    assert status == 404
    assert json.loads(body)["error"]["code"] in ("model_not_found", "not_found")
    assert len(body) < 1000
