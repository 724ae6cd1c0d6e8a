"""The spool between a model and its listener: order, ends, and what it does when memory is full."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from audiod.api import spool as spools
from audiod.api.spool import Event, Spool
from audiod.media.audio_memory import AudioMemory, Held
from audioproto.errors import EngineFailed


@pytest.fixture
def memory() -> AudioMemory:
    return AudioMemory(100)


@pytest.fixture
def held(memory: AudioMemory) -> Iterator[Held]:
    with memory.hold() as held:
        yield held
    assert memory.held_bytes == 0


async def test_what_is_told_comes_in_its_turn_and_takes_no_memory(memory: AudioMemory, held: Held) -> None:
    spool = Spool(held)
    first, last = Event(), Event()
    await spool.tell(first)
    await spool.put(b"one")
    await spool.tell(last)
    assert memory.held_bytes == 3
    await spool.end()
    assert [await spool.read() for _ in range(4)] == [first, b"one", last, b""]
    discarded = Spool(held)
    await discarded.tell(first)
    await discarded.put(b"one")
    await discarded.discard()
    assert (await discarded.read(), memory.held_bytes) == (b"", 0)


async def test_bytes_come_out_as_they_went_in_and_are_held_until_they_are_read(memory: AudioMemory, held: Held) -> None:
    spool = Spool(held)
    await spool.put(b"one")
    await spool.put(b"")
    await spool.put(b"three")
    assert memory.held_bytes == 8
    assert await spool.read() == b"one"
    assert memory.held_bytes == 8, "who has it may still be sending it"
    assert await spool.read() == b"three"
    assert memory.held_bytes == 5
    await spool.end()
    assert await spool.read() == b""
    assert memory.held_bytes == 0
    assert await spool.read() == b""


async def test_a_producer_does_not_wait_for_its_reader(held: Held) -> None:
    spool = Spool(held)
    for _ in range(100):
        await spool.put(b"x")
    await spool.end()
    assert [await spool.read() for _ in range(101)] == [b"x"] * 100 + [b""]


async def test_a_reader_waits_for_its_producer(held: Held) -> None:
    spool = Spool(held)
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(spool.read())
        await asyncio.sleep(0)
        assert not reading.done()
        await spool.put(b"x")
    assert reading.result() == b"x"


async def test_an_error_comes_after_what_came_before_it(held: Held) -> None:
    spool = Spool(held)
    await spool.put(b"x")
    await spool.end(EngineFailed("broken"))
    assert await spool.read() == b"x"
    with pytest.raises(EngineFailed):
        await spool.read()


async def test_with_the_memory_full_a_piece_at_a_time_goes_through(memory: AudioMemory, held: Held) -> None:
    """A reader that keeps up loses nothing, whatever others hold."""
    other = memory.hold()
    other.charge(100)
    spool, heard = Spool(held), []

    async def listen() -> None:
        while piece := await spool.read():
            heard.append(piece)
            assert memory.held_bytes <= 102

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listen())
        for number in range(50):
            await spool.put(b"%2d" % number)
        await spool.end()
    assert heard == [b"%2d" % number for number in range(50)]
    other.give_back(100)


async def test_with_the_memory_full_a_reader_that_takes_nothing_is_given_up(
    memory: AudioMemory, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "PATIENCE_S", 0.05)
    spool = Spool(held)
    await spool.put(bytes(60))
    await spool.put(bytes(40))
    with pytest.raises(ConnectionAbortedError):
        await spool.put(b"x")
    assert memory.held_bytes == 100


async def test_what_is_discarded_is_given_back_but_for_what_is_being_sent(memory: AudioMemory, held: Held) -> None:
    spool = Spool(held)
    for piece in (b"one", b"two", b"three"):
        await spool.put(piece)
    assert await spool.read() == b"one"
    await spool.discard()
    assert (memory.held_bytes, spool.put_bytes) == (3, 11)
    assert await spool.read() == b""
    assert memory.held_bytes == 0


async def test_who_waits_for_the_next_piece_hears_that_all_is_discarded(held: Held) -> None:
    spool = Spool(held)
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(spool.read())
        await asyncio.sleep(0)
        await spool.discard()
    assert reading.result() == b""
