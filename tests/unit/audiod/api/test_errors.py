"""Errors as clients see them: the body, and the headers that say whether and when to try again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from audiod.api import errors
from audioproto.errors import (
    AudiodError,
    BadRequest,
    EngineFailed,
    ModelTooLarge,
    OutOfMemory,
    QueueFull,
    QueueTimeout,
    UploadStalled,
)


def body(error: AudiodError) -> dict[str, Any]:
    answer = errors.response(error)
    assert isinstance(answer.body, bytes)
    decoded: dict[str, Any] = json.loads(answer.body)
    assert list(decoded) == ["error"]
    detail: dict[str, Any] = decoded["error"]
    return detail


def test_all_four_keys_are_always_there_and_no_other() -> None:
    assert body(BadRequest("no", param="speed")) == {
        **{"message": "no", "type": "invalid_request_error", "param": "speed", "code": "invalid_request"}
    }
    assert set(body(AudiodError("no"))) == {"message", "type", "param", "code"}


def test_a_place_in_the_queue_is_told_where_there_is_one() -> None:
    message = "12. in the queue, about 40 s from its turn"
    assert body(QueueFull(message, position=12, retry_after_s=40)) == {
        **{"message": message, "type": "server_error", "param": None, "code": "queue_full", "position": 12}
    }
    assert body(QueueTimeout("late", position=1))["position"] == 1


@pytest.mark.parametrize(
    ("retry_after_s", "seconds", "milliseconds"), [(40, "40", "40000"), (0.25, "1", "250"), (2.0001, "3", "2001")]
)
def test_when_to_try_again_is_told_in_both_ways(retry_after_s: float, seconds: str, milliseconds: str) -> None:
    headers = errors.response(QueueFull("full", retry_after_s=retry_after_s)).headers
    assert (headers["Retry-After"], headers["retry-after-ms"]) == (seconds, milliseconds)
    assert "x-should-retry" not in headers


@pytest.mark.parametrize("error", [OutOfMemory("no"), ModelTooLarge("no"), EngineFailed("no")])
def test_what_fails_again_is_not_to_be_tried_again(error: AudiodError) -> None:
    """Or the SDKs would send it three times, because its status is above 500."""
    answer = errors.response(error)
    assert answer.headers["x-should-retry"] == "false"
    assert "Retry-After" not in answer.headers
    assert "retry-after-ms" not in answer.headers


def test_out_of_memory_is_told_apart_from_a_failure() -> None:
    assert errors.response(OutOfMemory("no")).status == errors.response(ModelTooLarge("no")).status == 507


def test_a_stalled_upload_ends_its_connection() -> None:
    answer = errors.response(UploadStalled("no"))
    assert (answer.status, answer.keep_alive) == (408, False)
