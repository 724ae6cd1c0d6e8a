"""The media processes themselves: limits, deaths, cancellations, and that nothing of them is left behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from audiod.media.formats import SpeechFormat
from audiod.media.pool import MediaPool
from audioproto.errors import AudiodError, BadAudio, Draining
from media_pools import children, decoded, media_pool, zygotes
from sounds import muxed, s16, sweep, wav
from watching import kill

FLAC = muxed("flac", "flac", sweep(1.0, 16_000), 16_000)
LONG = wav(sweep(1.0, 8_000), 8_000, "u8", claimed_bytes=8_000 * 3_600) + bytes(8_000 * 3_599)
"""An hour that takes a process a good part of a second to convert."""


@pytest.fixture
async def pool() -> AsyncIterator[MediaPool]:
    async with media_pool(max_jobs=2) as pool:
        yield pool


async def seconds(pool: MediaPool, data: bytes) -> float:
    return len(await decoded(pool, data)) / 32_000


def codecs() -> list[int]:
    """The processes that serve jobs, the one that stands ready included."""
    return [codec for zygote in zygotes() for codec in children(zygote)]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def until(condition: Callable[[], bool]) -> None:
    """The kernel tells nobody when a grandchild comes or goes, so this looks again and again."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def at_work(pool: MediaPool) -> None:
    """Wait until a job has its process: only then is the next one forked."""
    await until(lambda: len(codecs()) == 2)


async def test_no_process_runs_before_the_first_job_or_after_the_last() -> None:
    async with media_pool(idle_s=0.05) as pool:
        assert zygotes() == []
        assert await seconds(pool, FLAC) == pytest.approx(1.0)
        assert len(zygotes()) == 1
        await until(lambda: zygotes() == [])
        assert await seconds(pool, FLAC) == pytest.approx(1.0), "and they come back when needed"
    assert zygotes() == []


async def test_a_running_job_keeps_the_processes_from_idling_out() -> None:
    async with media_pool(idle_s=0.0) as pool:
        async with pool.encoder(SpeechFormat.MP3, 24_000) as encoder:
            assert await seconds(pool, FLAC) == pytest.approx(1.0)
            assert await encoder.feed(bytes(48_000)) != b""
        await until(lambda: zygotes() == [])


async def test_the_zygote_may_fork_because_it_has_one_thread(pool: MediaPool) -> None:
    await seconds(pool, FLAC)
    assert status(zygotes()[0])["Threads"] == "1"


async def test_a_process_at_work_has_no_rights_to_lose(pool: MediaPool) -> None:
    await seconds(pool, FLAC)
    await until(lambda: len(codecs()) == 1)
    ready = set(codecs())
    async with pool.encoder(SpeechFormat.MP3, 24_000) as encoder:
        await encoder.feed(bytes(4_800))
        (busy,) = ready & set(codecs())
        limits = {
            line[:25].strip(): line[26:].split()[0] for line in Path(f"/proc/{busy}/limits").read_text().splitlines()
        }
        assert limits["Max open files"] == "0", "it can open no file and no socket any more"
        assert limits["Max core file size"] == "0"
        assert limits["Max file size"] == "0"
        assert limits["Max cpu time"] == "3600"
        assert int(limits["Max address space"]) < 2 * 2**30
        assert status(busy)["NoNewPrivs"] == "1"
        held = [str(link.readlink()) for link in Path(f"/proc/{busy}/fd").iterdir()]
        assert sum("socket" in place for place in held) == 1, "its own, not the zygote's"


async def test_memory_is_limited() -> None:
    """A FLAC file with a comment of 12 MB, which FFmpeg reads into memory in one piece."""
    comment = bytes([4]) + (12_000_000).to_bytes(3) + bytes(12_000_000)
    large = FLAC[:42] + comment + FLAC[42:]
    async with media_pool() as pool:
        assert await seconds(pool, large) == pytest.approx(1.0)
    async with media_pool(memory_bytes=2**20) as pool:
        with pytest.raises(BadAudio):
            await seconds(pool, large)
        assert await seconds(pool, FLAC) == pytest.approx(1.0)


async def test_time_is_limited() -> None:
    async with media_pool(decode_timeout_s=0.05) as pool:
        with pytest.raises(BadAudio, match=r"longer than 0\.05 s"):
            await seconds(pool, LONG)
        await until(lambda: len(codecs()) == 1)
        assert await seconds(pool, wav(sweep(0.1, 8_000), 8_000)) == pytest.approx(0.1)


async def test_a_process_that_dies_at_work_costs_its_own_job_only(pool: MediaPool) -> None:
    async with asyncio.TaskGroup() as tasks:
        job = tasks.create_task(_refusal(pool, LONG))
        await at_work(pool)
        kill(*codecs())
        assert "crashed" in await job
    assert await seconds(pool, FLAC) == pytest.approx(1.0)


async def _refusal(pool: MediaPool, data: bytes) -> str:
    with pytest.raises(BadAudio) as refused:
        await seconds(pool, data)
    return refused.value.message


async def test_a_process_that_dies_idle_costs_nobody_anything(pool: MediaPool) -> None:
    await seconds(pool, FLAC)
    kill(*codecs())
    assert await seconds(pool, FLAC) == pytest.approx(1.0)


async def test_a_zygote_that_dies_idle_is_replaced(pool: MediaPool) -> None:
    await seconds(pool, FLAC)
    (zygote,) = zygotes()
    kill(*codecs(), zygote)
    assert await seconds(pool, FLAC) == pytest.approx(1.0)
    assert zygote not in zygotes()


async def test_an_encoder_that_dies_is_our_fault_and_the_next_works(pool: MediaPool) -> None:
    async with pool.encoder(SpeechFormat.MP3, 24_000) as encoder:
        await encoder.feed(bytes(4_800))
        kill(*codecs())
        with pytest.raises(AudiodError, match="encoding the speech ended") as failed:
            await encoder.feed(bytes(48_000))
        assert failed.value.http_status == 500
    async with pool.encoder(SpeechFormat.MP3, 24_000) as encoder:
        assert await encoder.feed(bytes(48_000)) != b""


async def test_a_cancelled_decode_takes_its_process_with_it(pool: MediaPool) -> None:
    await seconds(pool, FLAC)
    before = descriptors()
    async with asyncio.TaskGroup() as tasks:
        job = tasks.create_task(seconds(pool, LONG))
        await at_work(pool)
        job.cancel()
    assert job.cancelled()
    await until(lambda: len(codecs()) == 1)
    assert descriptors() == before
    assert await seconds(pool, FLAC) == pytest.approx(1.0)


async def test_an_encoder_that_is_left_takes_its_process_with_it(pool: MediaPool) -> None:
    with pytest.raises(ConnectionResetError):  # noqa: PT012
        async with pool.encoder(SpeechFormat.OPUS, 24_000) as encoder:
            await encoder.feed(bytes(48_000))
            await until(lambda: len(codecs()) == 2)
            raise ConnectionResetError  # the listener has gone
    await until(lambda: len(codecs()) == 1)


async def test_more_jobs_than_processes_wait_their_turn(pool: MediaPool) -> None:
    async with asyncio.TaskGroup() as tasks:
        jobs = [tasks.create_task(seconds(pool, FLAC)) for _ in range(12)]
        most = 0
        while not all(job.done() for job in jobs):
            most = max(most, len(codecs()))
            await asyncio.sleep(0)
    assert [job.result() for job in jobs] == pytest.approx([1.0] * 12)
    assert most <= 2 + 2, "two at work, one ready, one perhaps not yet reaped"


async def test_a_slow_listener_holds_up_no_transcript() -> None:
    async with media_pool(max_jobs=1) as pool:
        third = asyncio.Event()

        async def listen() -> None:
            async with pool.encoder(SpeechFormat.AAC, 24_000):
                third.set()

        async with asyncio.TaskGroup() as tasks:
            async with pool.encoder(SpeechFormat.MP3, 24_000) as encoder:
                tasks.create_task(listen())
                assert await seconds(pool, FLAC) == pytest.approx(1.0)
                await encoder.feed(s16(sweep(0.5, 24_000)))
                assert not third.is_set(), "one encoder at a time"
            await third.wait()


async def test_closing_ends_what_still_runs() -> None:
    async with media_pool() as pool:
        async with asyncio.TaskGroup() as tasks:
            job = tasks.create_task(_draining(pool))
            await at_work(pool)
            await pool.close()
            await job
        assert zygotes() == []
        with pytest.raises(Draining):
            await seconds(pool, FLAC)


async def _draining(pool: MediaPool) -> None:
    with pytest.raises(Draining):
        await seconds(pool, LONG)


async def test_fifty_mixed_jobs_leave_nothing_behind() -> None:
    before = descriptors(), zygotes()
    async with media_pool(max_jobs=4, decode_timeout_s=5.0) as pool:
        cut = FLAC[: len(FLAC) // 3]

        async def encode(number: int) -> None:
            async with pool.encoder(list(SpeechFormat)[number % 6], 22_050, tempo=1.5) as encoder:
                await encoder.feed(bytes(22_050))
                if number % 3:
                    await encoder.finish()

        async def job(number: int) -> None:
            match number % 5:
                case 0:
                    await seconds(pool, FLAC)
                case 1:
                    await _refusal(pool, [b"", b"no audio", cut][number % 3])
                case 2:
                    await encode(number)
                case 3:
                    await seconds(pool, wav(sweep(0.2, 16_000), 16_000))
                case _:
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.001 * (number % 4)):
                            await seconds(pool, LONG)

        async with asyncio.TaskGroup() as tasks:
            for number in range(50):
                tasks.create_task(job(number))
        await until(lambda: len(codecs()) == 1)
        assert await seconds(pool, FLAC) == pytest.approx(1.0)
    assert (descriptors(), zygotes()) == before


async def test_failures_are_told_to_whoever_counts_them() -> None:
    told: list[tuple[str, str]] = []
    async with media_pool() as pool:
        pool.on_failure = lambda task, reason: told.append((task, reason))
        async with asyncio.TaskGroup() as tasks:
            job = tasks.create_task(_refusal(pool, LONG))
            await at_work(pool)
            kill(*codecs())  # the one at work, and the one that stands ready
            await job
        assert told == [("decode", "crashed")]
        await seconds(pool, FLAC)
        assert told[1:] == [("decode", "lost")]
        async with pool.encoder(SpeechFormat.MP3, 24_000) as encoder:
            await encoder.feed(bytes(4_800))
            kill(*codecs())
            with pytest.raises(AudiodError):
                await encoder.feed(bytes(48_000))
        assert told[2:] == [("encode", "crashed")]
    async with media_pool(decode_timeout_s=0.05) as pool:
        pool.on_failure = lambda task, reason: told.append((task, reason))
        await _refusal(pool, LONG)
        assert told[3:] == [("decode", "timeout")]
    async with media_pool() as pool:
        pool.on_failure = lambda task, reason: told.append((task, reason))
        await _refusal(pool, b"no audio at all")
        assert len(told) == 4, "a file that is none is no failure of ours"
