"""Real zygotes and workers, run by the daemon's handles: coming up, pausing, being given up, and want of memory.

The engine is the scripted one, which does what the test tells it, step by step.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

import made
from audiod.supervisor.worker import Ending, Job, Worker
from audiod.supervisor.zygote import Launch, Zygote
from audiod.tasks import Tasks
from audioproto.errors import EngineFailed, OutOfMemory, WorkerDied
from audioproto.types import Death, EngineSpec
from audioproto.worker import AudioChunk, Done, Synthesize

PATIENCE_S = 60.0
"""A stall limit that only a broken test meets."""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.code(tmp_path_factory.mktemp("code"))


class Deaths:
    """The unasked deaths that were told, of a zygote or its workers."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[Ending] = asyncio.Queue()
        self.tell = self._told.put_nowait

    async def next(self) -> Ending:
        return await self._told.get()

    @property
    def none(self) -> bool:
        return self._told.empty()


@pytest.fixture
def launch(code: Path, tmp_path: Path) -> Callable[..., Launch]:
    def of(**scripts: str) -> Launch:
        spec = EngineSpec("scripted", "scripted", "", concurrency=4, options=scripts)
        return Launch(Path(sys.executable), code, tmp_path, spec)

    return of


@asynccontextmanager
async def started(launch: Launch, stall_timeout_s: float = PATIENCE_S) -> AsyncIterator[Zygote]:
    watchers = Tasks()

    def watch(zygote: Zygote) -> None:
        watchers.start(zygote.watch(), "watch")

    await watchers.__aenter__()
    try:
        zygote = await Zygote.start(launch, watch, stall_timeout_s)
        try:
            yield zygote
        finally:
            await zygote.stop()
    finally:
        await watchers.__aexit__(None, None, None)


@asynccontextmanager
async def worker_of(launch: Launch, deaths: Deaths, abort_grace_s: float = PATIENCE_S) -> AsyncIterator[Worker]:
    async with started(launch) as zygote:
        yield await zygote.fork(deaths.tell, PATIENCE_S, abort_grace_s)


def doing(script: str) -> Synthesize:
    return Synthesize(0, script)


async def finish(job: Job) -> list[float]:
    """Milliseconds of each chunk of sound up to the job's end."""
    chunks = [message async for message in job if isinstance(message, AudioChunk)]
    return [len(chunk.pcm) / 32 for chunk in chunks]


async def do(worker: Worker, script: str) -> list[float]:
    async with worker.run(doing(script)) as job:
        return await finish(job)


def fifo(directory: Path) -> Path:
    path = directory / "gate"
    os.mkfifo(path)
    return path


async def open_gate(path: Path) -> None:
    """Let the engine that reads the FIFO go on; returns once it was there."""
    await asyncio.to_thread(path.write_bytes, b"")


# --- coming up --------------------------------------------------------------------------------------------------------


async def test_a_load_may_take_longer_than_the_limit_as_long_as_it_gets_on(launch: Callable[..., Launch]) -> None:
    steps = "take 0.5; say {0} tenths are read; take 0.5; log {0} tenths are checked"
    async with started(launch(load="; ".join(steps.format(n) for n in range(1, 5)))) as zygote:
        worker = await zygote.fork(Deaths().tell, 2.0)
        assert worker.loaded.result().load_s > 2 * 2.0 * 0.95
        assert await do(worker, "yield 10") == [10]


async def test_a_start_given_up_at_any_step_leaves_no_descriptor(launch: Callable[..., Launch]) -> None:
    """Each time a turn of the event loop later: from before there is a pipe until after there is a process."""
    async with started(launch()):
        pass  # what asyncio opens once
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for turns in range(12):
        async with asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(started(launch()).__aenter__())
            for _ in range(turns):
                await asyncio.sleep(0)
            starting.cancel()
        for _ in range(3):  # asyncio closes a pipe's end a turn later
            await asyncio.sleep(0)
        assert sorted(os.listdir("/proc/self/fd")) == before, f"given up after {turns} turns"  # noqa: PTH208


@pytest.mark.parametrize("last", ["say half of the weights", "log half of the weights"])
async def test_a_load_that_stands_still_is_ended_and_says_what_it_did_last(
    launch: Callable[..., Launch], last: str
) -> None:
    deaths = Deaths()
    async with started(launch(load=f"say a start; {last}; hang")) as zygote:
        with pytest.raises(EngineFailed) as raised:
            await zygote.fork(deaths.tell, 0.5)
        assert raised.value.message == "scripted stood still for 0.5 s while loading, after: half of the weights"
        assert "residency.start_timeout" in raised.value.hint
        assert children(zygote.pid) == []
        assert deaths.none


async def test_a_start_may_take_longer_than_the_limit_but_not_stand_still_for_it(launch: Callable[..., Launch]) -> None:
    began = time.monotonic()
    steps = "; ".join(f"take 1.5; say {n} of 4" for n in range(1, 5))
    with pytest.raises(EngineFailed) as raised:
        async with started(launch(prepare=f"{steps}; hang"), 4.0):
            pass
    assert raised.value.message == "scripted stood still for 4 s while starting, after: 4 of 4"
    assert time.monotonic() - began > 4 * 1.5 + 4.0


async def test_an_engine_that_survives_no_fork_prepares_in_its_worker_and_says_what_went_wrong(
    launch: Callable[..., Launch],
) -> None:
    spawned = replace(launch(prepare="say first; take 0.3; raise no such library"), "spawned")
    async with started(spawned) as zygote:
        with pytest.raises(EngineFailed, match="no such library"):
            await zygote.fork(Deaths().tell, PATIENCE_S)
    async with worker_of(replace(launch(prepare="say first"), "spawned"), Deaths()) as worker:
        assert await do(worker, "yield 10") == [10]


def replace(launch: Launch, engine: str) -> Launch:
    return dataclasses.replace(launch, spec=msgspec.structs.replace(launch.spec, engine=engine))


async def test_a_zygote_that_does_not_fork_is_ended(launch: Callable[..., Launch]) -> None:
    deaths, forks = Deaths(), Deaths()
    async with started(launch()) as zygote:
        zygote.on_death = deaths.tell
        os.kill(zygote.pid, signal.SIGSTOP)
        with pytest.raises(EngineFailed, match=r"stood still .* while loading"):
            await zygote.fork(forks.tell, 0.5)
        assert (await deaths.next()).death is Death.KILLED
        assert forks.none


async def test_warming_is_done_before_a_request_and_its_failure_is_told(launch: Callable[..., Launch]) -> None:
    async with worker_of(launch(warm="take 0.01"), Deaths()) as worker:
        await worker.warm()
        assert await do(worker, "yield 10") == [10]
    async with worker_of(launch(warm="raise no kernel for this device"), Deaths()) as worker:
        with pytest.raises(EngineFailed, match="no kernel for this device"):
            await worker.warm()
        assert await do(worker, "yield 10") == [10]


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


# --- pausing ----------------------------------------------------------------------------------------------------------


async def test_a_paused_job_stands_still_while_others_are_served(launch: Callable[..., Launch]) -> None:
    paused, heard = asyncio.Event(), [0.0]
    async with (
        worker_of(launch(), Deaths()) as worker,
        asyncio.TaskGroup() as tasks,
        worker.run(doing("take 0.02; yield 10; " * 100), on_paused=paused.set) as job,
    ):
        listening = tasks.create_task(listen(job, heard))
        await do(worker, "yield 50")
        job.pause()
        await paused.wait()
        await do(worker, "yield 50")  # so that what was on its way has come
        so_far = heard[0]
        assert so_far < 1000
        await do(worker, "take 0.5; yield 50")
        assert heard[0] == so_far
        job.resume()
        await listening
        assert heard[0] == 1000


async def listen(job: Job, heard: list[float]) -> None:
    """Add up the milliseconds of sound."""
    async for message in job:
        if isinstance(message, AudioChunk):
            heard[0] += len(message.pcm) / 32


async def test_pausing_what_has_ended_or_died_does_nothing(launch: Callable[..., Launch]) -> None:
    deaths, told = Deaths(), asyncio.Event()
    async with worker_of(launch(), deaths) as worker:
        async with worker.run(doing("yield 10"), on_paused=told.set) as job:
            assert await finish(job) == [10]
            job.pause()
            job.resume()
            job.paused()
        assert await do(worker, "yield 10") == [10]
        async with worker.run(doing("yield 10; hang"), on_paused=told.set) as job:
            os.kill(worker.pid, signal.SIGKILL)
            await deaths.next()
            job.pause()
            job.resume()
            with pytest.raises(WorkerDied):
                await finish(job)
        assert not told.is_set()


async def test_a_pause_that_comes_too_late_is_not_told(launch: Callable[..., Launch], tmp_path: Path) -> None:
    gate, told = fifo(tmp_path), asyncio.Event()
    async with worker_of(launch(), Deaths()) as worker:
        async with worker.run(doing(f"read {gate}"), on_paused=told.set) as job:
            job.pause()
            job.resume()
            await open_gate(gate)
            assert await finish(job) == []
        assert not told.is_set()


async def test_a_paused_job_can_be_given_up(launch: Callable[..., Launch]) -> None:
    deaths, paused = Deaths(), asyncio.Event()
    async with worker_of(launch(), deaths) as worker:
        async with worker.run(doing("yield 10; take 0.02; " * 500), on_paused=paused.set) as job:
            job.pause()
            await paused.wait()
        assert await do(worker, "yield 10") == [10]
        assert deaths.none


# --- giving up --------------------------------------------------------------------------------------------------------


async def test_a_job_that_ends_when_asked_costs_no_worker(launch: Callable[..., Launch]) -> None:
    deaths = Deaths()
    async with worker_of(launch(), deaths) as worker:
        async with worker.run(doing("yield 10; " + "take 0.05; cancelled; " * 600 + "hang")) as job:
            await anext(aiter(job))
        ends = [message async for message in job]
        assert isinstance(ends[-1], Done)
        assert ends[-1].aborted
        assert await do(worker, "yield 10") == [10]
        assert deaths.none


@asynccontextmanager
async def deaf_job(worker: Worker, directory: Path, step: str) -> AsyncIterator[Job]:
    """A job that hears nothing any more when this is entered; leaving gives it up."""
    gate = directory / "gate"
    os.mkfifo(gate)
    async with worker.run(doing(f"read {gate}; {step}")) as job:
        await asyncio.to_thread(gate.write_bytes, b"")  # returns when the engine reads
        gate.unlink()
        yield job


@pytest.mark.parametrize("step", ["hang", "spin"])
async def test_a_job_that_does_not_end_costs_the_worker(
    launch: Callable[..., Launch], tmp_path: Path, step: str
) -> None:
    deaths = Deaths()
    async with worker_of(launch(), deaths, abort_grace_s=0.5) as worker:
        async with deaf_job(worker, tmp_path, step):
            began = time.monotonic()
        assert time.monotonic() - began >= 0.5
        assert (await deaths.next()).death is Death.HUNG
        assert not Path(f"/proc/{worker.pid}").exists()


async def test_those_beside_a_job_that_does_not_end_are_spared_as_long_as_they_get_on(
    launch: Callable[..., Launch], tmp_path: Path
) -> None:
    deaths = Deaths()
    async with worker_of(launch(), deaths, abort_grace_s=1.5) as worker, asyncio.TaskGroup() as tasks:
        async with worker.run(doing("take 0.2; yield 10; " * 20)) as beside:
            tasks.create_task(give_up(worker, tmp_path))
            assert await finish(beside) == [10] * 20
            assert deaths.none
        assert (await deaths.next()).death is Death.HUNG


async def test_one_beside_it_that_brings_nothing_either_does_not_save_the_worker(
    launch: Callable[..., Launch], tmp_path: Path
) -> None:
    deaths = Deaths()
    async with worker_of(launch(), deaths, abort_grace_s=0.5) as worker, asyncio.TaskGroup() as tasks:
        async with worker.run(doing("hang")) as beside:
            tasks.create_task(give_up(worker, tmp_path))
            with pytest.raises(WorkerDied):
                await finish(beside)
        assert (await deaths.next()).death is Death.HUNG


async def give_up(worker: Worker, directory: Path) -> None:
    async with deaf_job(worker, directory, "hang"):
        pass


# --- want of memory ---------------------------------------------------------------------------------------------------


async def test_a_job_that_runs_out_of_memory_says_so_and_the_worker_serves_on(launch: Callable[..., Launch]) -> None:
    deaths = Deaths()
    async with worker_of(launch(), deaths) as worker:
        with pytest.raises(OutOfMemory, match="MemoryError"):
            await do(worker, "yield 10; limit 64; grow")
        assert await do(worker, "yield 10") == [10]
        with pytest.raises(OutOfMemory, match="CUDA out of memory"):
            await do(worker, "oom CUDA out of memory. Tried to allocate 2.00 GiB.")
        with pytest.raises(OutOfMemory):
            await do(worker, "raise CUDA failed with error out of memory")
        assert await do(worker, "yield 10") == [10]
        assert deaths.none


async def test_a_load_that_runs_out_of_memory_says_so_and_the_zygote_lives(launch: Callable[..., Launch]) -> None:
    async with started(launch(load="limit 64; grow")) as zygote:
        for _ in range(2):
            with pytest.raises(OutOfMemory, match="MemoryError"):
                await zygote.fork(Deaths().tell, PATIENCE_S)


async def test_a_start_that_runs_out_of_memory_says_so(launch: Callable[..., Launch]) -> None:
    with pytest.raises(OutOfMemory, match="MemoryError"):
        async with started(launch(prepare="limit 64; grow")):
            pass
