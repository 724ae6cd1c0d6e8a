"""scripted: an engine that does what it is told, step by step: in its options for coming up, in the text for a job.

Needs no library. Steps are separated by semicolons.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from audioproto.types import EngineSpec, Hold
from audioproto.worker import Synthesize
from audioworker import engine
from audioworker.engine import Audio, Cancelled, Recordings

MIB = 2**20


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


class Engine(engine.Engine, engine.Synthesizer):
    """Options: `prepare`, `load` and `warm`, each a script. `voice` is not looked at.

    Steps: `say WORDS` reports progress, `log WORDS` writes a line to the log, `take S` lasts S seconds, `hang` never
    ends, `spin` never ends and computes, `limit MIB` lets this process have that much more memory, `grow` takes memory
    until there is none, `raise WORDS` and `oom WORDS` fail, `read FIFO` waits for somebody to open it for writing.
    In a job, `yield N` makes N milliseconds of sound, `hiss N` of noise that no codec makes small, `cancelled`
    ends it where nobody wants it any more.
    """

    hold: ClassVar[Hold] = Hold.WEIGHTS
    sample_rate: ClassVar[int] = 16_000

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        self._held: list[npt.NDArray[np.float64]] = []

    def prepare(self) -> None:
        self._all("prepare")

    def load(self) -> None:
        self._all("load")

    def warm(self) -> None:
        self._all("warm")

    def synthesize(self, request: Synthesize, recordings: Recordings, cancelled: Cancelled) -> Iterator[Audio]:
        for step, about in _steps(request.text):
            if step == "yield":
                yield np.full(int(about) * self.sample_rate // 1000, 0.5, np.float32)
            elif step == "hiss":
                noise = np.random.default_rng(0).uniform(-0.5, 0.5, int(about) * self.sample_rate // 1000)
                yield noise.astype(np.float32)
            elif step == "cancelled":
                if cancelled():
                    return
            else:
                self._do(step, about)

    def _all(self, option: str) -> None:
        for step, about in _steps(self.spec.options.get(option, "")):
            self._do(step, about)

    def _do(self, step: str, about: str) -> None:
        match step:
            case "say":
                self.progress(about)
            case "log":
                print(about, file=sys.stderr)
            case "take":
                threading.Event().wait(float(about))
            case "hang":
                threading.Event().wait()
            case "spin":
                while True:
                    pass
            case "limit":
                used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
                resource.setrlimit(resource.RLIMIT_AS, (used + int(about) * MIB, resource.RLIM_INFINITY))
            case "grow":
                try:
                    while True:
                        self._held.append(np.ones(MIB))
                finally:
                    self._held.clear()
            case "raise":
                raise RuntimeError(about)
            case "oom":
                raise OutOfMemoryError(about)
            case "read":
                Path(about).read_bytes()
            case _:
                raise ValueError(f"no such step: {step}")


def _steps(script: str) -> Iterator[tuple[str, str]]:
    for line in filter(None, map(str.strip, script.split(";"))):
        step, _, about = line.partition(" ")
        yield step, about
