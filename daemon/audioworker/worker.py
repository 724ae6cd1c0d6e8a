"""The worker: owns the model on its device and serves jobs, `spec.concurrency` of them at a time.

Decides nothing: it loads when forked, does what it is told, and ends when the channel closes.
"""

from __future__ import annotations

import mmap
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from audioproto.errors import UnsupportedTask
from audioproto.worker import (
    Abort,
    AudioChunk,
    AudioStart,
    Done,
    Failed,
    Ready,
    Segment,
    Synthesize,
    ToWorker,
    Transcribe,
)
from audioworker.channel import Channel
from audioworker.engine import Audio, Engine, Synthesizer, Transcriber, typed

_CHUNK_SAMPLES = 12_000
"""Half a second at 24 kHz: small enough to stop quickly on Abort, large enough that framing costs nothing."""


def serve(sock: socket.socket, engine: Engine) -> int:
    """Load, then serve until the daemon closes the channel. Returns the process's exit status."""
    channel: Channel[ToWorker] = Channel(sock, ToWorker)  # type: ignore[arg-type]
    started = time.monotonic()
    try:
        engine.load()
    except Exception as error:
        channel.send(Failed(typed(error).body()))
        return 1
    rate = engine.sample_rate if isinstance(engine, Synthesizer) else 0
    channel.send(Ready(time.monotonic() - started, rate))
    _Worker(channel, engine).run()
    return 0


class _Worker:
    def __init__(self, channel: Channel[ToWorker], engine: Engine) -> None:
        self._channel = channel
        self._engine = engine
        self._aborts: dict[int, threading.Event] = {}
        self._pool = ThreadPoolExecutor(engine.spec.concurrency, thread_name_prefix="job")

    def run(self) -> None:
        while True:
            try:
                messages = self._channel.read()
            except EOFError:
                return
            for message in messages:
                match message:
                    case Abort():
                        if abort := self._aborts.get(message.job):
                            abort.set()
                    case Transcribe():
                        descriptor = self._channel.take_descriptor()
                        self._aborts[message.job] = threading.Event()
                        self._pool.submit(self._job, message, descriptor)
                    case Synthesize():
                        self._aborts[message.job] = threading.Event()
                        self._pool.submit(self._job, message, None)

    def _job(self, request: Transcribe | Synthesize, descriptor: int | None) -> None:
        """Run one job to its Done or Failed. Runs on a pool thread; whatever is raised becomes Failed."""
        abort = self._aborts[request.job]
        started = time.monotonic()
        try:
            if isinstance(request, Transcribe):
                assert descriptor is not None
                language = self._transcribe(request, _samples(descriptor, request.samples), abort)
            else:
                language = self._synthesize(request, abort)
            done = Done(request.job, language, time.monotonic() - started, aborted=abort.is_set())
            del self._aborts[request.job]
            self._channel.send(done)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)  # the daemon has gone; so has every reason to live
        except Exception as error:
            self._aborts.pop(request.job, None)
            self._channel.send(Failed(typed(error).body(), request.job))

    def _transcribe(self, request: Transcribe, audio: Audio, abort: threading.Event) -> str:
        if not isinstance(self._engine, Transcriber):
            raise UnsupportedTask(f"{self._engine.spec.model} does not transcribe")
        segments: Iterator[Segment] = self._engine.transcribe(audio, request, abort.is_set)
        while not abort.is_set():
            try:
                self._channel.send(next(segments))
            except StopIteration as end:
                return end.value or ""
        return ""

    def _synthesize(self, request: Synthesize, abort: threading.Event) -> str:
        if not isinstance(self._engine, Synthesizer):
            raise UnsupportedTask(f"{self._engine.spec.model} does not speak")
        low, high = self._engine.speed_range
        speed = min(high, max(low, request.speed))
        native = Synthesize(request.job, request.text, request.voice, speed, request.instructions)
        begun = False
        for audio in self._engine.synthesize(native, abort.is_set):
            if not begun:
                begun = True
                self._channel.send(AudioStart(request.job, self._engine.sample_rate, request.speed / speed))
            pcm = np.rint(np.clip(np.nan_to_num(audio), -1.0, 1.0) * 32767.0).astype("<i2")
            for at in range(0, pcm.size, _CHUNK_SAMPLES):
                if abort.is_set():
                    return ""
                self._channel.send(AudioChunk(request.job, pcm[at : at + _CHUNK_SAMPLES].tobytes()))
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
