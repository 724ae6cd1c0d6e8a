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

from audioproto.errors import AudiodError, BadRequest, EngineFailed
from audioproto.types import EngineSpec, Hold
from audioproto.worker import Segment, Synthesize, Transcribe

Audio = npt.NDArray[np.float32]
"""Mono samples, shape [n], nominally within -1 to 1."""

Cancelled = Callable[[], bool]
"""True once nobody wants the answer any more; engines ask it between segments, sentences or tokens."""


class Engine(ABC):
    """One library's adapter. Subclass it together with Transcriber or Synthesizer, under the name `Engine`.

    `hold` says what may be done before a fork (see audioproto.types.Hold) and is proved by the contract test, which
    really forks and infers in the child.
    """

    hold: ClassVar[Hold]

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec

    def prepare(self) -> None:  # noqa: B027 - nothing to prepare is a fine answer
        """In the zygote: import the library; with Hold.WEIGHTS also build the model on the CPU.

        Must not touch a device, leave a thread running, or reach a network.
        """

    @abstractmethod
    def load(self) -> None:
        """In the worker: make the model ready to serve on `spec.device`."""


class Transcriber(ABC):
    """An engine that turns speech into text."""

    @abstractmethod
    def transcribe(self, audio: Audio, request: Transcribe, cancelled: Cancelled) -> Iterator[Segment]:
        """Yield the segments of `audio` (16 kHz) as each is finished, with ascending times.

        The generator's return value is the recognised ISO 639-1 language code. Silence yields nothing.
        Raises BadRequest for a language that the model does not know.
        """


class Synthesizer(ABC):
    """An engine that turns text into speech."""

    sample_rate: ClassVar[int]
    """Hz of every array that `synthesize` yields."""

    speed_range: ClassVar[tuple[float, float]] = (1.0, 1.0)
    """Speeds that the model itself can speak at; the daemon stretches the rest."""

    @abstractmethod
    def synthesize(self, request: Synthesize, cancelled: Cancelled) -> Iterator[Audio]:
        """Yield audio sentence by sentence, as soon as each is ready.

        `request.speed` is already within `speed_range`. Raises UnspeakableText where nothing would be heard, and
        VoiceNotFound.
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


def typed(error: Exception) -> AudiodError:
    """The typed error for anything an engine may raise; the traceback of an untyped one goes to the log."""
    if isinstance(error, AudiodError):
        return error
    traceback.print_exc(file=sys.stderr)
    return EngineFailed(f"{type(error).__name__}: {error}")
