"""The worker: owns the model on its device and serves jobs, each on a thread of its own.

Decides nothing: it loads when forked, does what it is told, and ends when the channel closes. How many jobs are at work
at a time is the daemon's to keep; here a paused one only costs its thread.
"""

from __future__ import annotations

import mmap
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar, Union

import msgspec
import numpy as np

from audioproto.errors import UnsupportedTask
from audioproto.types import Hold
from audioproto.worker import (
    Abort,
    Align,
    AudioChunk,
    AudioStart,
    Done,
    Failed,
    Message,
    Pause,
    Paused,
    Progress,
    Ready,
    Recording,
    Resume,
    Segment,
    Synthesize,
    ToWorker,
    Transcribe,
    Warm,
)
from audioworker.channel import Channel
from audioworker.engine import Aligner, Audio, Engine, Recordings, Synthesizer, Transcriber, typed
from audioworker.jobs import Aborted, Job

Request = Union[Transcribe, Align, Synthesize, Warm]
T = TypeVar("T")

_CHUNK_SAMPLES = 12_000
"""Half a second at 24 kHz: small enough to stop quickly on Abort, large enough that framing costs nothing."""


def serve(sock: socket.socket, engine: Engine) -> int:
    """Load, and before that prepare where the zygote could not; then serve until the daemon closes the channel.

    Returns the process's exit status.
    """
    channel: Channel[ToWorker] = Channel(sock, ToWorker)  # type: ignore[arg-type]
    engine.on_progress = lambda message: channel.send(Progress(message))
    started = time.monotonic()
    try:
        if engine.hold is Hold.NOTHING:
            engine.prepare()
        engine.load()
    except Exception as error:
        channel.send(Failed(typed(error, engine.spec).body()))
        return 1
    rate = engine.sample_rate if isinstance(engine, Synthesizer) else 0
    channel.send(Ready(time.monotonic() - started, rate))
    _Worker(channel, engine).run()
    return 0


class _Worker:
    def __init__(self, channel: Channel[ToWorker], engine: Engine) -> None:
        self._channel = channel
        self._engine = engine
        self._jobs: dict[int, Job] = {}
        engine.on_delta = self._send
        engine.on_phase = self._send

    def run(self) -> None:
        while True:
            try:
                messages = self._channel.read()
            except EOFError:
                return
            for message in messages:
                match message:
                    case Transcribe() | Align():
                        self._begin(message, self._channel.take_descriptor())
                    case Synthesize():
                        self._begin(message, self._channel.take_descriptor() if message.recordings else None)
                    case Warm():
                        self._begin(message, None)
                    case Abort() | Pause() | Resume():
                        if job := self._jobs.get(message.job):  # else it has ended meanwhile
                            _steer(job, message)

    def _begin(self, request: Request, descriptor: int | None) -> None:
        job = self._jobs[request.job] = Job(self._engine.jobs, lambda: self._send(Paused(request.job)))
        thread = threading.Thread(
            target=self._run, args=(job, request, descriptor), name=f"job {request.job}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # no more threads
            if descriptor is not None:
                os.close(descriptor)
            self._end(Failed(typed(error).body(), request.job))

    def _run(self, job: Job, request: Request, descriptor: int | None) -> None:
        """The job's thread: whatever comes of it, the job ends with Done or Failed, or the worker ends."""
        try:
            self._end(self._outcome(job, request, descriptor))
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            os._exit(1)

    def _outcome(self, job: Job, request: Request, descriptor: int | None) -> Done | Failed:
        started = time.monotonic()
        language = ""
        try:
            with self._engine.jobs.working_on(job):
                language = self._perform(job, request, descriptor)
        except Aborted:
            pass
        except Exception as error:
            return Failed(typed(error, self._engine.spec).body(), request.job)
        return Done(request.job, language, time.monotonic() - started - job.rested_s, aborted=job.aborted)

    def _end(self, end: Done | Failed) -> None:
        del self._jobs[end.job]
        self._send(end)

    def _send(self, message: Message) -> None:
        try:
            self._channel.send(message)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)  # the daemon has gone; so has every reason to live

    def _perform(self, job: Job, request: Request, descriptor: int | None) -> str:
        match request:
            case Warm():
                self._engine.warm()
                return ""
            case Transcribe():
                assert descriptor is not None
                return self._transcribe(job, request, _samples(descriptor, request.samples))
            case Align():
                assert descriptor is not None
                return self._align(job, request, _samples(descriptor, request.samples))
            case Synthesize():
                try:
                    self._synthesize(job, request, partial(_recording, descriptor))
                finally:
                    if descriptor is not None:
                        os.close(descriptor)
                return ""

    def _transcribe(self, job: Job, request: Transcribe, audio: Audio) -> str:
        if not isinstance(self._engine, Transcriber):
            raise UnsupportedTask(f"{self._engine.spec.model} does not transcribe")
        segments: Iterator[Segment] = self._engine.transcribe(audio, request, job.is_aborted)
        return _follow(job, segments, self._send)

    def _align(self, job: Job, request: Align, audio: Audio) -> str:
        if not isinstance(self._engine, Aligner):
            raise UnsupportedTask(f"{self._engine.spec.model} does not align")
        return _follow(job, self._engine.align(audio, request, job.is_aborted), self._send)

    def _synthesize(self, job: Job, request: Synthesize, recordings: Recordings) -> None:
        if not isinstance(self._engine, Synthesizer):
            raise UnsupportedTask(f"{self._engine.spec.model} does not speak")
        low, high = self._engine.speed_range
        speed = min(high, max(low, request.speed))
        native = msgspec.structs.replace(request, speed=speed)
        begun = False

        def deliver(audio: Audio) -> None:
            nonlocal begun
            if not begun:
                begun = True
                self._send(AudioStart(request.job, rate, request.speed / speed))
            pcm = np.rint(np.clip(np.nan_to_num(audio), -1.0, 1.0) * 32767.0).astype("<i2")
            for at in range(0, pcm.size, _CHUNK_SAMPLES):
                if not job.aborted:
                    self._send(AudioChunk(request.job, pcm[at : at + _CHUNK_SAMPLES].tobytes()))

        rate = self._engine.sample_rate
        _follow(job, self._engine.synthesize(native, recordings, job.is_aborted), deliver)


def _steer(job: Job, message: Abort | Pause | Resume) -> None:
    match message:
        case Abort():
            job.abort()
        case Pause():
            job.pause()
        case Resume():
            job.resume()


def _follow(job: Job, made: Iterator[T], deliver: Callable[[T], None]) -> str:
    """Deliver all that `made` yields, resting in between when told to, until its end or the job's.

    Returns the generator's value, "" where it has none or was not brought to its end.
    """
    while job.go_on():
        try:
            one = next(made)
        except StopIteration as end:
            return end.value or ""
        deliver(one)
    return ""


def _samples(descriptor: int, count: int) -> Audio:
    """The memfd's s16le samples as float32; the descriptor is closed."""
    try:
        if count == 0:
            return np.zeros(0, np.float32)
        with mmap.mmap(descriptor, count * 2, prot=mmap.PROT_READ) as mapped:
            return np.frombuffer(mapped, "<i2", count).astype(np.float32) / np.float32(32768.0)
    finally:
        os.close(descriptor)


def _recording(descriptor: int | None, recording: Recording) -> Audio:
    """Its samples as float32; the descriptor stays open."""
    assert descriptor is not None
    pcm = os.pread(descriptor, recording.samples * 2, recording.begin * 2)
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768.0)
