"""The models, as any client may list and look at them."""

from __future__ import annotations

import datetime

import httpx2
import pytest

from .conftest import refusal


def test_the_list_has_openai_s_shape(api: httpx2.Client) -> None:
    answer = api.get("/models")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/json")
    body = answer.json()
    assert body["object"] == "list"
    ids = [model["id"] for model in body["data"]]
    assert len(ids) == len(set(ids))
    assert {"whisper-1", "tts-1", "whisper-base", "hibari"} <= set(ids)
    for model in body["data"]:
        assert isinstance(model["id"], str)
        assert model["object"] == "model"
        assert type(model["created"]) is int
        assert isinstance(model["owned_by"], str)
        if model.get("shutdown_date") is not None:
            datetime.date.fromisoformat(model["shutdown_date"])


@pytest.mark.parametrize("name", ["whisper-1", "tts-1", "kokoro-82m"])
def test_one_model_is_as_in_the_list(api: httpx2.Client, name: str) -> None:
    listed = next(model for model in api.get("/models").json()["data"] if model["id"] == name)
    one = api.get(f"/models/{name}").json()
    assert {key: one[key] for key in ("id", "object", "created", "owned_by")} == {
        key: listed[key] for key in ("id", "object", "created", "owned_by")
    }


@pytest.mark.parametrize("name", ["no-such-model", "some/model", "some%2Fmodel", "%00", "a" * 1000])
def test_an_unknown_model_is_not_found(api: httpx2.Client, name: str) -> None:
    error = refusal(api.get(f"/models/{name}"), 404)
    assert error["code"] == "model_not_found"


def test_a_name_with_a_slash_is_one_name_raw_and_encoded(api: httpx2.Client) -> None:
    for path in ("/models/some/model", "/models/some%2Fmodel"):
        assert "'some/model'" in refusal(api.get(path), 404)["message"]


@pytest.mark.parametrize("name", ["no-such-model", "whisper-1"])
def test_models_are_not_deleted(api: httpx2.Client, name: str) -> None:
    # As the Python SDK sends every DELETE: with the type of a body that is not there.
    refusal(api.delete(f"/models/{name}", headers={"Content-Type": "application/json"}))
    assert api.get("/models/whisper-1").status_code == 200


def test_clients_find_speech_models_and_voices_by_name(api: httpx2.Client) -> None:
    models = api.get("/audio/models").json()["models"]
    assert {"id": "tts-1"}.items() <= {"id": next(one["id"] for one in models if one["id"] == "tts-1")}.items()
    voices = api.get("/audio/voices").json()["voices"]
    assert voices
    for voice in voices:
        assert isinstance(voice["id"], str)
        assert isinstance(voice["name"], str)
