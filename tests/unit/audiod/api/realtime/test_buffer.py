"""Audio kept by position: turns come out of it whole, and every byte is counted as long as it is there."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiod.api.realtime.buffer import Buffer
from audiod.media.audio_memory import AudioMemory

SOUND = random.Random(7).randbytes(2 * 12 * 3000)


@given(st.lists(st.integers(0, 3000), max_size=12), st.data())
async def test_turns_are_what_was_appended_there(pieces: list[int], data: st.DataObject) -> None:
    memory = AudioMemory(10**6)
    total = sum(pieces)
    with memory.hold() as held:
        buffer, at = Buffer(held), 0
        for samples in pieces:
            buffer.append(SOUND[at * 2 : (at + samples) * 2])
            at += samples
        assert memory.held_bytes == total * 2
        at = 0
        for _ in range(5):
            if at == total:
                break
            start = data.draw(st.integers(at, total - 1))
            end = data.draw(st.integers(start + 1, total))
            with await buffer.take(start, end) as pcm:
                assert os.pread(pcm.fd, 10**6, 0) == SOUND[start * 2 : end * 2]
                assert pcm.samples == end - start
                assert memory.held_bytes == (total - start) * 2
            assert memory.held_bytes == (total - end) * 2
            at = end
    assert memory.held_bytes == 0


@given(st.lists(st.integers(1, 500), min_size=1, max_size=20), st.integers(0, 10_000))
def test_what_is_forgotten_is_given_back(pieces: list[int], before: int) -> None:
    memory = AudioMemory(10**6)
    with memory.hold() as held:
        buffer = Buffer(held)
        for samples in pieces:
            buffer.append(bytes(samples * 2))
        buffer.forget(before)
        kept = memory.held_bytes // 2
        assert max(0, sum(pieces) - before) <= kept < max(0, sum(pieces) - before) + max(pieces)


@given(st.lists(st.integers(0, 3000), max_size=12), st.data())
def test_what_is_copied_stays_and_what_is_split_off_has_its_positions(pieces: list[int], data: st.DataObject) -> None:
    memory = AudioMemory(10**6)
    with memory.hold() as held:
        buffer, total = Buffer(held), 0
        for samples in pieces:
            buffer.append(SOUND[total * 2 : (total + samples) * 2])
            total += samples
        assert buffer.end == total
        start, at, end = sorted(data.draw(st.integers(0, total)) for _ in range(3))
        before = buffer.split(at)
        assert (before.end, buffer.end) == (at, total)
        for part, from_, to in ((before, start, at), (buffer, at, end)):
            with part.copy(from_, to) as pcm:
                assert os.pread(pcm.fd, 10**6, 0) == SOUND[from_ * 2 : to * 2]
                assert pcm.samples == to - from_
                assert memory.held_bytes == (total + to - from_) * 2
        assert memory.held_bytes == total * 2
        before.append(b"")
        before.clear()
        assert memory.held_bytes == (total - at) * 2
    assert memory.held_bytes == 0


async def test_a_long_turn_is_moved() -> None:
    memory = AudioMemory(10**8)
    with memory.hold() as held:
        buffer = Buffer(held)
        piece = SOUND[:32_000]
        for _ in range(100):
            buffer.append(piece)
        with await buffer.take(0, 1_600_000) as pcm:
            assert os.pread(pcm.fd, 4 * 10**6, 0) == piece * 100
    assert memory.held_bytes == 0


async def test_with_less_memory_than_before_a_turn_fails_and_leaves_nothing() -> None:
    memory = AudioMemory(10**6)
    with memory.hold() as held:
        buffer = Buffer(held)
        buffer.append(SOUND[:32_000])
        memory.limit_bytes = 1000
        with pytest.raises(Exception, match="memory"):
            await buffer.take(0, 16_000)
    assert memory.held_bytes == 0
