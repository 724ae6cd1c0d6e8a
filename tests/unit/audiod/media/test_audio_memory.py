"""The bound over all audio: never exceeded by what asks first, and back at zero whatever becomes of the requests."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiod.media.audio_memory import AudioMemory, Held
from audiod.media.upload import Upload
from audioproto.errors import AudiodError, QueueFull, UploadTooLarge

LIMIT = 1000

STEPS = st.lists(
    st.tuples(st.sampled_from(["reserve", "give_back", "leave"]), st.integers(0, 4), st.integers(0, 1200)), max_size=60
)


@given(STEPS)
def test_what_is_held_is_the_sum_of_what_each_request_holds(steps: list[tuple[str, int, int]]) -> None:
    memory = AudioMemory(LIMIT)
    requests: list[Held] = [memory.hold() for _ in range(5)]
    for deed, which, count in steps:
        held = requests[which]
        before = [one.held_bytes for one in requests]
        match deed:
            case "reserve":
                refusal: type[AudiodError] | None = None
                try:
                    held.reserve(count)
                except AudiodError as error:
                    refusal = type(error)
                alone, together = before[which] + count > LIMIT, sum(before) + count > LIMIT
                assert refusal is (UploadTooLarge if alone else QueueFull if together else None)
                assert (before == [one.held_bytes for one in requests]) == (refusal is not None or count == 0)
            case "give_back":
                held.give_back(min(count, held.held_bytes))
            case "leave":
                held.__exit__(None, None, None)
                assert held.held_bytes == 0
        assert memory.held_bytes == sum(one.held_bytes for one in requests)
        assert 0 <= memory.held_bytes <= LIMIT
    for held in requests:
        held.__exit__(None, None, None)
    assert memory.held_bytes == 0


def test_a_refusal_has_the_numbers() -> None:
    memory = AudioMemory(100 * 2**20)
    with memory.hold() as first, memory.hold() as second:
        first.reserve(80 * 2**20)
        with pytest.raises(QueueFull) as full:
            second.reserve(30 * 2**20)
        assert re.findall(r"\d+(?:\.\d+)? MiB", full.value.message) == ["80 MiB", "100 MiB", "30 MiB"]
        assert full.value.retry_after_s == 5
        with pytest.raises(UploadTooLarge, match="101 MiB"):
            second.reserve(101 * 2**20)


def test_what_is_there_already_is_counted_whether_there_is_room_or_not() -> None:
    memory = AudioMemory(10)
    with memory.hold() as held:
        held.charge(15)
        assert (memory.held_bytes, held.fits(0)) == (15, False)
    assert (memory.held_bytes, memory.hold().fits(10)) == (0, True)


def test_a_lower_limit_takes_nothing_away_but_admits_nothing_more() -> None:
    memory = AudioMemory(100)
    with memory.hold() as held, memory.hold() as other:
        held.reserve(60)
        memory.limit_bytes = 50
        with pytest.raises(QueueFull):
            other.reserve(1)
        assert memory.held_bytes == 60


def test_an_upload_holds_what_it_expects_and_then_what_it_is() -> None:
    memory = AudioMemory(1000)
    with memory.hold() as held:
        with Upload(900, held, expected_bytes=500) as upload:
            assert memory.held_bytes == 500
            upload.write(bytes(300))
            assert memory.held_bytes == 500
            upload.write(bytes(300))
            assert memory.held_bytes == 600, "it is longer than was said"
            with pytest.raises(UploadTooLarge):
                upload.write(bytes(301))
            upload.complete()
            assert memory.held_bytes == 600
        assert memory.held_bytes == 0
        upload.close()
        assert memory.held_bytes == 0, "a second close gives back nothing more"


def test_an_upload_that_cannot_be_held_opens_nothing() -> None:
    memory = AudioMemory(1000)
    with memory.hold() as held, memory.hold() as other:
        other.reserve(600)
        with pytest.raises(QueueFull):
            Upload(900, held, expected_bytes=500)
        with Upload(900, held) as upload:
            upload.write(bytes(400))
            with pytest.raises(QueueFull):
                upload.write(bytes(1))
            assert upload.size == 400, "nothing was kept of what was refused"
    assert memory.held_bytes == 0
