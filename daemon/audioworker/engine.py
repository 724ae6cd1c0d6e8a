"""What an engine is: the base classes that a file in engines/ subclasses, and how it is found by name.

Knows nothing of processes, sockets or the daemon.
"""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from audioproto.errors import AudiodError, BadRequest, EngineFailed, OutOfMemory
from audioproto.types import EngineSpec, Hold
from audioproto.worker import Align, Delta, Phase, Recording, Segment, Synthesize, Transcribe
from audioworker.jobs import Jobs

Audio = npt.NDArray[np.float32]
"""Mono samples, shape [n], nominally within -1 to 1."""

Cancelled = Callable[[], bool]
"""True once nobody wants the answer any more; engines ask it between segments, sentences or tokens."""

Recordings = Callable[[Recording], Audio]
"""Reads one of the recordings that came with a request: mono samples at the recording's own rate."""


class Engine(ABC):
    """One library's adapter. Subclass it together with Transcriber, Aligner or Synthesizer, under the name `Engine`.

    `hold` says what may be done before a fork (see audioproto.types.Hold) and is proved by the contract test, which
    really forks and infers in the child.

    Each job runs on a thread of its own, and what it asks of the engine is a generator. Several of them are open at
    once: up to `spec.concurrency` of them compute, and any number rest between two things they have yielded, for as
    long as others are more urgent. So a generator that yields holds no lock and nothing that another one needs. An
    engine that is not safe for several threads takes a lock around each call of its library, never across a `yield`.
    Where it may compute for seconds without yielding it calls `self.jobs.rest()` in between.
    """

    hold: ClassVar[Hold]

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.jobs = Jobs()
        self.on_progress: Callable[[str], None] = lambda message: None
        """Where `progress` goes; set by the process that the engine is in."""
        self.on_delta: Callable[[Delta], None] = lambda delta: None
        """Where text goes that is not yet a segment's, from any thread; set by the worker."""
        self.on_phase: Callable[[Phase], None] = lambda phase: None
        """Where it goes how long a part of a job took, from any thread; set by the worker."""

    def progress(self, message: str) -> None:
        """Say that `prepare` or `load` goes on and what comes next, in words for a person.

        Without this and without a line in the log for `residency.start_timeout`, it counts as hung and is killed.
        """
        self.on_progress(message)

    def prepare(self) -> None:  # noqa: B027 - nothing to prepare is a fine answer
        """In the zygote: import the library; with Hold.WEIGHTS also build the model on the CPU.

        Must not touch a device, leave a thread running, or reach a network.
        """

    @abstractmethod
    def load(self) -> None:
        """In the worker: make the model ready to serve on `spec.device`."""

    def warm(self) -> None:  # noqa: B027 - nothing to warm is a fine answer
        """In the worker, after `load`: do once what the first request would otherwise pay for.

        Memory pools, kernels, caches. Called on a job's thread, while requests may already be served.
        """


class Transcriber(ABC):
    """An engine that turns speech into text."""

    @abstractmethod
    def transcribe(self, audio: Audio, request: Transcribe, cancelled: Cancelled) -> Iterator[Segment]:
        """Yield the segments of `audio` (16 kHz) as each is finished, with ascending times.

        The generator's return value is the recognised ISO 639-1 language code. Silence yields nothing.
        Raises BadRequest for a language that the model does not know. With
        `request.deltas` an engine that writes word by word calls `on_delta` as it does.
        """


class Aligner(ABC):
    """An engine that finds a known text in speech."""

    @abstractmethod
    def align(self, audio: Audio, request: Align, cancelled: Cancelled) -> Iterator[Segment]:
        """Yield a segment for each passage of `request`, in order, with ascending times of its words.

        Together the words are the passage's text. Where it cannot be aligned, the times are estimated, and marked so.
        """


class Synthesizer(ABC):
    """An engine that turns text into speech."""

    sample_rate: ClassVar[int]
    """Hz of every array that `synthesize` yields."""

    speed_range: ClassVar[tuple[float, float]] = (1.0, 1.0)
    """Speeds that the model itself can speak at; the daemon stretches the rest."""

    @abstractmethod
    def synthesize(self, request: Synthesize, recordings: Recordings, cancelled: Cancelled) -> Iterator[Audio]:
        """Yield audio sentence by sentence, as soon as each is ready.

        `request.speed` is already within `speed_range`. Raises UnspeakableText where nothing would be heard,
        VoiceNotFound, and BadAudio for a recording that is of no use.
        """


def find(name: str) -> type[Engine]:
    """The engine class in engines/<name>.py. Raises BadRequest where there is none."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise BadRequest(f"{name!r} is no engine's name")
    try:
        module = importlib.import_module(f"audioworker.engines.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"audioworker.engines.{name}":
            raise
        raise BadRequest(f"there is no engine called {name!r}", hint="ls daemon/audioworker/engines") from error
    engine: type[Engine] = module.Engine
    return engine


_ALLOCATION_FAILED = re.compile(
    r"out of memory|bad_alloc|ALLOC_FAILED|AllocateRawInternal|fail\w* to allocate|can(?:no|')t allocate", re.IGNORECASE
)
"""How libraries put it whose errors have no type for it: CUDA, C++, cuBLAS, onnxruntime's arena, CTranslate2 (oneMKL),
and PyTorch's allocator on the CPU or the kernel's ENOMEM."""


def typed(error: Exception, spec: EngineSpec | None = None) -> AudiodError:
    """The typed error for anything an engine may raise; the traceback of an untyped one goes to the log.

    `spec` is what the engine was made of: what bounds its memory is what has to be raised.
    """
    if isinstance(error, AudiodError):
        return error
    traceback.print_exc(file=sys.stderr)
    message = f"{type(error).__name__}: {error}"
    if is_out_of_memory(error):
        if spec is not None and spec.memory_bytes and _on_a_gpu(error):
            bound = f"the {spec.memory_bytes / 2**20:.0f} MiB that it is staged in ran out: {message}"
            return OutOfMemory(bound, hint=f"raise staged_bytes in {spec.model}'s file, then: audioctl reload")
        return OutOfMemory(f"memory ran out: {message}", hint="audioctl status shows what holds memory")
    return EngineFailed(message)


def is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or _on_a_gpu(error):
        return True
    # Not of any error: the text of a ValueError may be the user's.
    by_library = isinstance(error, RuntimeError | OSError) or type(error).__module__.startswith("onnxruntime.")
    return by_library and _ALLOCATION_FAILED.search(str(error)) is not None


def _on_a_gpu(error: Exception) -> bool:
    # torch.OutOfMemoryError by its name: torch is in its own runtimes only.
    return any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
