"""POST /v1/audio/translations."""

from __future__ import annotations

import httpx2

from .conftest import has_null, post_form, refusal, speak

PATH = "/audio/translations"


def translate(api: httpx2.Client, audio: bytes, **fields: str) -> httpx2.Response:
    return post_form(api, PATH, ("clip.wav", audio), fields)


def test_every_format(api: httpx2.Client) -> None:
    said = speak(api, input="今天天气很好，我们去公园吧。", response_format="wav").content
    for answer in (translate(api, said), translate(api, said, response_format="json")):
        assert answer.status_code == 200, answer.text
        assert set(answer.json()) == {"text"}
        assert answer.json()["text"].isascii()
    verbose = translate(api, said, response_format="verbose_json").json()
    assert verbose["language"] == "english"
    assert verbose["duration"] > 1
    assert not {"words", "usage"} & set(verbose)
    assert not has_null(verbose)
    text = translate(api, said, response_format="text")
    assert text.headers["content-type"].startswith("text/plain")
    assert text.text.endswith("\n")
    assert translate(api, said, response_format="srt").text.startswith("1\n00:00:")
    assert translate(api, said, response_format="vtt").text.startswith("WEBVTT\n\n")


def test_what_is_wrong_is_refused(api: httpx2.Client, clip: bytes) -> None:
    assert refusal(api.post(PATH, files={"x": b"1"}, data={"model": "whisper-1"}), 400)["param"] == "file"
    refusal(translate(api, clip, response_format="yaml"), 400)
    refusal(translate(api, b"garbage" * 99), 400)
    refusal(translate(api, clip, model="nobody"), 400, 404)
