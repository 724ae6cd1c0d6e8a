"""A zygote and its workers for tests: started, spoken to and ended as the daemon does it, but blocking."""

from __future__ import annotations

import os
import socket
import subprocess
import wave
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from audiod.supervisor.zygote import Launch
from audioproto import framing
from audioproto.types import EngineSpec
from audioproto.worker import (
    Abort,
    Align,
    AudioChunk,
    AudioStart,
    Delta,
    Done,
    Exited,
    Failed,
    Fork,
    Forked,
    FromWorker,
    FromZygote,
    Init,
    Message,
    Passage,
    Pause,
    Paused,
    Phase,
    Prepared,
    Progress,
    Ready,
    Resume,
    Segment,
    Synthesize,
    Transcribe,
    Warm,
)
from daemons import AUDIO, TOP

Samples = npt.NDArray[np.float32]
T = TypeVar("T")


def recording(name: str) -> Samples:
    """A file of tests/data/audio: mono, 16 kHz, within -1 to 1."""
    with wave.open(str(AUDIO / f"{name}.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / np.float32(32768)


class _Peer(Generic[T]):
    """Our end of a socketpair."""

    def __init__(self, sock: socket.socket, union: type[T]) -> None:
        self.sock = sock
        self._decoder = framing.Decoder(union)
        self._messages: list[T] = []

    def send(self, message: Message, descriptor: int | None = None) -> None:
        socket.send_fds(self.sock, [framing.encode(message)], [] if descriptor is None else [descriptor])

    def receive(self) -> T:
        while not self._messages:
            data = self.sock.recv(1 << 18)
            if not data:
                raise EOFError
            self._messages += self._decoder.feed(data)
        return self._messages.pop(0)


class Worker:
    """A forked worker. Jobs are numbered by it; what they bring is kept until it is asked for."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self._peer: _Peer[FromWorker] = _Peer(sock, FromWorker)  # type: ignore[arg-type]
        self.pid = pid
        self._jobs = 0
        self._brought: dict[int, list[Message]] = {}
        self.progress: list[str] = []
        while isinstance(message := self._peer.receive(), Progress):
            self.progress.append(message.message)
        self.came_up = message

    def begin(self, samples: Samples | None = None, text: str = "", voice: str = "", **fields: object) -> int:
        """Start to transcribe `samples` (16 kHz), or to speak `text`; returns the job's number."""
        self._jobs += 1
        self._brought[self._jobs] = []
        if samples is None:
            self._peer.send(Synthesize(self._jobs, text, voice, **fields))  # type: ignore[arg-type]
            return self._jobs
        self._send_with(samples, Transcribe(self._jobs, samples.size, **fields))  # type: ignore[arg-type]
        return self._jobs

    def begin_speaking(self, text: str, samples: Samples, **fields: object) -> int:
        """Start to speak `text`, sending `samples` along, which recordings among `fields` refer to."""
        self._jobs += 1
        self._brought[self._jobs] = []
        self._send_with(samples, Synthesize(self._jobs, text, **fields))  # type: ignore[arg-type]
        return self._jobs

    def begin_align(self, samples: Samples, passages: list[Passage], language: str = "") -> int:
        self._jobs += 1
        self._brought[self._jobs] = []
        self._send_with(samples, Align(self._jobs, samples.size, passages, language))
        return self._jobs

    def align(self, samples: Samples, passages: list[Passage], language: str = "") -> list[Segment]:
        messages, end = self.finish(self.begin_align(samples, passages, language))
        assert isinstance(end, Done), end
        return [message for message in messages if isinstance(message, Segment)]

    def _send_with(self, samples: Samples, message: Message) -> None:
        memory = os.memfd_create("pcm")
        with os.fdopen(memory, "wb") as file:
            file.write((samples * 32767).astype("<i2").tobytes())
            file.flush()
            self._peer.send(message, memory)

    def abort(self, job: int) -> None:
        self._peer.send(Abort(job))

    def pause(self, job: int) -> None:
        self._peer.send(Pause(job))

    def resume(self, job: int) -> None:
        self._peer.send(Resume(job))

    def warm(self) -> Done:
        self._jobs += 1
        self._brought[self._jobs] = []
        self._peer.send(Warm(self._jobs))
        messages, end = self.finish(self._jobs)
        assert isinstance(end, Done), end
        assert messages == []
        return end

    def next(self, job: int) -> Message:
        """The next message of the job, waiting for it."""
        while not self._brought[job]:
            message = self._peer.receive()
            assert isinstance(message, Segment | Delta | AudioStart | AudioChunk | Phase | Paused | Done | Failed)
            self._brought[message.job].append(message)
        return self._brought[job].pop(0)

    def brought(self, job: int) -> list[Message]:
        """What has come of the job and was not asked for yet."""
        return list(self._brought[job])

    def finish(self, job: int) -> tuple[list[Message], Done | Failed]:
        """What is still to come of the job, and its end."""
        messages: list[Message] = []
        while not isinstance(message := self.next(job), Done | Failed):
            messages.append(message)
        return messages, message

    def transcribe(self, samples: Samples, **fields: object) -> tuple[list[Segment], Done]:
        messages, end = self.finish(self.begin(samples, **fields))  # type: ignore[arg-type]
        assert isinstance(end, Done), end
        return [message for message in messages if isinstance(message, Segment)], end

    def speak(self, text: str, voice: str = "", **fields: object) -> Samples:
        """The speech, within -1 to 1, at the rate that the worker told when it came up."""
        messages, end = self.finish(self.begin(None, text, voice, **fields))
        assert isinstance(end, Done), end
        return heard(messages)

    def refusal(self, samples: Samples | None = None, text: str = "", **fields: object) -> Failed:
        _, end = self.finish(self.begin(samples, text, **fields))  # type: ignore[arg-type]
        assert isinstance(end, Failed), end
        return end

    def close(self) -> None:
        self._peer.sock.close()


def heard(messages: list[Message]) -> Samples:
    """The audio in a job's messages."""
    pcm = b"".join(message.pcm for message in messages if isinstance(message, AudioChunk))
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)


class Zygote:
    """A zygote in `python`'s runtime, prepared for `spec`. `cache` is its home and its temporary directory."""

    def __init__(self, python: Path, spec: EngineSpec, cache: Path, code: Path = TOP / "daemon") -> None:
        ours, theirs = socket.socketpair()
        launch = Launch(python, code, cache, spec)
        self.spec = spec
        self.log = cache.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(python), "-m", "audioworker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=launch.environment() | {"PYTHONDONTWRITEBYTECODE": "1"},
            )
        theirs.close()
        self._peer: _Peer[FromZygote] = _Peer(ours, FromZygote)  # type: ignore[arg-type]
        self._peer.send(Init(spec))
        self.progress: list[str] = []
        while isinstance(message := self._peer.receive(), Progress):
            self.progress.append(message.message)
        self.came_up = message
        assert isinstance(self.came_up, Prepared), self.came_up
        self.hold = self.came_up.hold
        self._forks = 0
        self._ended: dict[int, int] = {}

    def fork(self, expect: type[Ready | Failed] = Ready) -> Worker:
        self._forks += 1
        ours, theirs = socket.socketpair()
        self._peer.send(Fork(self._forks), theirs.fileno())
        theirs.close()
        while not isinstance(message := self._peer.receive(), Forked):
            self._note(message)
        worker = Worker(ours, message.pid)
        assert isinstance(worker.came_up, expect), worker.came_up
        return worker

    def end(self, worker: Worker) -> int:
        """Have the worker end, and return its exit status once the zygote has reaped it."""
        worker.close()
        while worker.pid not in self._ended:
            self._note(self._peer.receive())
        return self._ended[worker.pid]

    def _note(self, message: FromZygote) -> None:
        assert isinstance(message, Exited), message
        self._ended[message.pid] = message.status

    def close(self) -> None:
        self._peer.sock.close()
        self.process.wait(60)
