"""What a request may wish for beside its work, as JSON and as a form's text."""

from __future__ import annotations

import math

import pytest

from audiod.api.demand import Value, Wishes, read_wishes, with_second_try
from audiod.residency.events import Demand
from audiod.units import Duration
from audioproto.errors import AudiodError, BadRequest, EngineFailed, OutOfMemory, WorkerDied
from audioproto.types import Priority

MINUTE = Duration(60)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *((None, None), ("10m", 600.0), ("1h30m", 5400.0), ("90", 90.0), (90, 90.0), (2.5, 2.5), ("250ms", 0.25)),
        *((0, 0.0), ("0", 0.0), ("0s", 0.0), (-1, -1.0), ("-1", -1.0), ("-1m", -1.0), (-7.5, -1.0), ("never", -1.0)),
    ],
)
def test_keep_alive_is_written_as_for_ollama(value: Value, seconds: float | None) -> None:
    assert read_wishes(None, value, None, None).keep_alive_s == seconds
    assert read_wishes(None, None, value, None).park_keep_alive_s == seconds


@pytest.mark.parametrize(
    "value", ["", "soon", "10 parsecs", "-", "--1", "-soon", "nan", math.nan, math.inf, "1e3", 10**400]
)
def test_a_time_that_is_none_is_named_with_its_field(value: Value) -> None:
    for at, name in enumerate(("keep_alive", "park_keep_alive", "timeout")):
        values: list[Value] = [None, None, None]
        values[at] = value
        with pytest.raises(BadRequest) as refused:
            read_wishes(None, *values)
        assert refused.value.param == name


def test_a_wait_is_as_long_as_was_asked_for_and_never_longer_than_the_operator_allows() -> None:
    assert read_wishes(None, None, None, "30s").wait_s(MINUTE) == 30
    assert read_wishes(None, None, None, "2m").wait_s(MINUTE) == 60
    assert Wishes().wait_s(MINUTE) == 60
    assert Wishes().wait_s(Duration.NEVER) == math.inf
    assert read_wishes(None, None, None, "2m").wait_s(Duration.NEVER) == 120


def test_long_recordings_are_batch_work_unless_the_request_says_otherwise() -> None:
    assert Wishes().to_transcribe(60, MINUTE) == Demand(60, Priority.INTERACTIVE)
    assert Wishes().to_transcribe(61, MINUTE) == Demand(61, Priority.BATCH)
    assert Wishes().to_transcribe(9999, Duration.NEVER) == Demand(9999, Priority.INTERACTIVE)
    assert read_wishes("interactive", None, None, None).to_transcribe(61, MINUTE).priority is Priority.INTERACTIVE
    assert read_wishes("batch", None, None, None).to_transcribe(1, MINUTE).priority is Priority.BATCH


def test_speech_is_for_somebody_who_waits_unless_the_request_says_otherwise() -> None:
    assert Wishes().to_speak("four") == Demand(4, Priority.INTERACTIVE)
    assert read_wishes("batch", "1m", 0, None).to_speak("four") == Demand(4, Priority.BATCH, 60, 0)


class Attempts:
    """Fails with each error in turn, then succeeds."""

    def __init__(self, *errors: AudiodError) -> None:
        self.errors = list(errors)
        self.made = 0

    async def __call__(self) -> str:
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.mark.parametrize("kind", [WorkerDied, OutOfMemory])
async def test_a_worker_that_fails_before_anything_was_sent_is_forgiven_once(kind: type[AudiodError]) -> None:
    once = Attempts(kind("first"))
    assert await with_second_try(once, lambda: False) == "done"
    assert once.made == 2
    twice = Attempts(kind("first"), kind("second"))
    with pytest.raises(kind, match="second"):
        await with_second_try(twice, lambda: False)
    assert twice.made == 2


async def test_what_has_begun_and_what_would_fail_again_is_not_tried_again() -> None:
    hopeless = Attempts(EngineFailed("always"))
    with pytest.raises(EngineFailed):
        await with_second_try(hopeless, lambda: False)
    begun = Attempts(WorkerDied("in the middle"))
    with pytest.raises(WorkerDied):
        await with_second_try(begun, lambda: True)
    assert (hopeless.made, begun.made) == (1, 1)
