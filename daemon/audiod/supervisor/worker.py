"""The daemon's handle on one worker: jobs go out, their messages come back, and its death is noticed.

Does not start or reap it (zygote.py does) and does not know which model it should be.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Union

from audiod.supervisor import memory
from audiod.supervisor.channel import Channel
from audioproto.errors import AudiodError, EngineFailed, OutOfMemory, WorkerDied, from_body
from audioproto.types import Death
from audioproto.worker import (
    Abort,
    Align,
    AudioChunk,
    AudioStart,
    Delta,
    Done,
    Failed,
    FromWorker,
    Message,
    Pause,
    Paused,
    Phase,
    Progress,
    Ready,
    Resume,
    Segment,
    Synthesize,
    Transcribe,
    Warm,
)

Request = Union[Transcribe, Align, Synthesize, Warm]
Output = Union[Segment, Delta, AudioStart, AudioChunk, Phase, Done]

_GROUP_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended: in words that follow "it", and of which kind."""

    words: str
    death: Death

    @classmethod
    def of(cls, status: int, *, out_of_memory: bool = False) -> Ending:
        """From an exit status, or minus the signal that ended it, and whether the kernel killed anything for memory."""
        if status >= 0:
            return cls(f"exited with status {status}", Death.CRASHED)
        if out_of_memory and -status == signal.SIGKILL:
            return cls("was killed by the kernel because memory had run out", Death.OUT_OF_MEMORY)
        outside = -status in (signal.SIGKILL, signal.SIGTERM)
        try:
            name = signal.Signals(-status).name
        except ValueError:  # the real-time signals have no names
            name = f"signal {-status}"
        return cls(f"was killed by {name}", Death.KILLED if outside else Death.CRASHED)

    def error(self, what: str) -> EngineFailed | OutOfMemory:
        """What to tell of `what`, which was still to come up when it ended so."""
        kind = OutOfMemory if self.death is Death.OUT_OF_MEMORY else EngineFailed
        return kind(f"{what} {self.words}")


class Job:
    """One job's stream of messages, ending with Done. Iterate once."""

    def __init__(self, number: int, post: Callable[[Message], None], on_paused: Callable[[], None]) -> None:
        self.number = number
        self.ended = asyncio.Event()
        self.aborted = False
        self.moved_at = time.monotonic()
        """When it was begun, or last brought something."""
        self._post = post
        self._on_paused = on_paused
        self._to_pause = False
        self._messages: asyncio.Queue[Output | AudiodError] = asyncio.Queue()

    def pause(self) -> None:
        """Have it stand still at its next segment; `on_paused` is called when it does, unless it ends or is resumed
        before. Never raises: that its worker has died is told elsewhere."""
        if not self.ended.is_set():
            self._to_pause = True
            self._post(Pause(self.number))

    def resume(self) -> None:
        """Undo `pause`, whether it stands still already or not. Never raises."""
        if not self.ended.is_set():
            self._to_pause = False
            self._post(Resume(self.number))

    def abort(self) -> None:
        self.aborted = True
        self._post(Abort(self.number))

    def take(self, message: Output | AudiodError) -> None:
        self.moved_at = time.monotonic()
        if isinstance(message, Done | AudiodError):
            self.ended.set()
        self._messages.put_nowait(message)

    def paused(self) -> None:
        """It stands still."""
        if self._to_pause and not self.ended.is_set():
            self._to_pause = False  # told once
            self._on_paused()

    async def __aiter__(self) -> AsyncIterator[Output]:
        while True:
            message = await self._messages.get()
            if isinstance(message, AudiodError):
                raise message
            yield message
            if isinstance(message, Done):
                return


class Worker:
    """A forked worker. `on_death` is called once, when it is gone without having been stopped.

    `on_progress` is called with each sign of life while it loads. `abort_grace_s` is how long a job that nobody wants
    any more may take to end before the whole worker is replaced; negative for as long as it takes.
    """

    def __init__(
        self,
        model: str,
        sock: socket.socket,
        on_death: Callable[[Ending], None],
        on_progress: Callable[[str], None],
        abort_grace_s: float,
    ) -> None:
        self.model = model
        self.pid = 0
        self.loaded: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self.dead: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        """Set once the process has been reaped."""
        self.stopping = False
        self._on_death = on_death
        self._on_progress = on_progress
        self._abort_grace_s = abort_grace_s if abort_grace_s >= 0 else math.inf
        self._hung = False
        self._jobs: dict[int, Job] = {}
        self._numbers = 0
        self._channel: Channel[FromWorker] = Channel(sock, FromWorker, self._received, self._hung_up)  # type: ignore[arg-type]

    @asynccontextmanager
    async def run(
        self, request: Request, descriptor: int | None = None, on_paused: Callable[[], None] = lambda: None
    ) -> AsyncIterator[Job]:
        """Send a job (its `job` number is filled in here) and yield its messages.

        Leaving early aborts it, and returns when it has ended: first it is asked to stop, and if it does not within
        the grace time the worker is killed, so that what runs on is never work nobody wants. Raises WorkerDied.
        """
        self._numbers += 1
        job = self._jobs[self._numbers] = Job(self._numbers, self._channel.post, on_paused)
        try:
            outgoing = self._channel.put(_numbered(request, job.number), descriptor)
            try:
                await outgoing.sent
            except OSError as error:
                raise self._death_error() from error
            except asyncio.CancelledError:
                if self._channel.withdraw(outgoing):
                    job.ended.set()  # the worker never heard of it
                raise
            yield job
        finally:
            if not job.ended.is_set() and not self._channel.closed:
                await self._abort(job)
            if self._channel.closed:
                # Leave only when its death is known everywhere, or a second try would be given the same dead worker.
                await asyncio.wait([self.dead])
            del self._jobs[job.number]

    async def warm(self) -> None:
        """Have it do once what its first request would otherwise pay for. Raises AudiodError."""
        async with self.run(Warm(0)) as job:
            async for _ in job:
                pass

    async def _abort(self, job: Job) -> None:
        """Have the job end, or the worker where it does not.

        Those that were at work beside it when its time was up do not pay for it as long as they get on: until they end,
        or bring nothing for as long. Those that begin later do, or it would never come to that.
        """
        job.abort()
        beside: list[Job] | None = None
        while not await _within(self._abort_grace_s, job.ended):
            expected_after = time.monotonic() - self._abort_grace_s
            beside = [
                other
                for other in (self._jobs.values() if beside is None else beside)
                if not (other.aborted or other.ended.is_set()) and other.moved_at > expected_after
            ]
            if not beside:
                self._hung = True
                self.kill()
                await asyncio.wait([self.dead])
                return

    def _received(self, message: FromWorker) -> None:
        match message:
            case Ready():
                if not self.loaded.done():
                    self.loaded.set_result(message)
            case Failed(error=body, job=0):
                if not self.loaded.done():
                    self.loaded.set_exception(from_body(body))
            case Failed(error=body, job=number):
                if job := self._jobs.get(number):
                    job.take(from_body(body))
            case Progress(message=text):
                self._on_progress(text)
            case Paused(job=number):
                if job := self._jobs.get(number):
                    job.paused()
            case _:
                if job := self._jobs.get(message.job):
                    job.take(message)

    def _hung_up(self) -> None:
        """The channel closed: whatever the process still does, it can no longer answer."""
        for job in self._jobs.values():
            if not job.ended.is_set():
                job.take(self._death_error())
        self.kill()

    def _death_error(self) -> WorkerDied:
        return WorkerDied(f"the process serving {self.model} ended during the request", retry_after_s=1)

    def kill(self) -> None:
        """SIGKILL the whole group. Before the pid is known there is nothing to kill yet."""
        if self.pid and not self.dead.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def reaped(self, ending: Ending) -> None:
        """Its zygote has reaped it (or both are gone)."""
        if self.dead.done():
            return
        self.kill()  # children that outlived it
        if self._hung:
            ending = Ending("did not stop when its request was given up, and was killed", Death.HUNG)
        self.dead.set_result(ending)
        was_loaded = self.loaded.done()
        if not was_loaded:
            self.loaded.set_exception(ending.error("the worker ended while loading: it"))
            self.loaded.exception()  # looked at, even if whoever forked it has already given up
        self._channel.close()
        if was_loaded and not self.stopping:
            self._on_death(ending)

    async def stop(self) -> int:
        """End it and return when its whole group is gone, or how many bytes are still held by what is left of it.

        A worker has no state worth a slow goodbye.
        """
        self.stopping = True
        self.kill()
        await asyncio.wait([self.dead])
        return await self.group_gone()

    async def group_gone(self) -> int:
        """Wait until no process of its group is left; 0, or the bytes that are still held."""
        # A group 0 would be our own.
        return await memory.group_gone(self.pid, _GROUP_TIMEOUT_S) if self.pid else 0


def _numbered(request: Request, number: int) -> Request:
    fields = {name: getattr(request, name) for name in request.__struct_fields__}
    return type(request)(**(fields | {"job": number}))


async def _within(limit_s: float, event: asyncio.Event) -> bool:
    """Whether the event comes within the limit."""
    try:
        async with asyncio.timeout(limit_s):
            return await event.wait()
    except TimeoutError:
        return False
