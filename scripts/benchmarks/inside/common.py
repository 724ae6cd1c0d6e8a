"""What the programs that run in a runtime share. Asserts nothing."""

from __future__ import annotations

import json
import os
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What an engine's imports cost is measured too: numpy is imported where it is used.
Audio = Any
"""An array of float32."""


def engine_of(
    name: str, directory: str, device: str = "cpu", max_batch: int = 1, memory_bytes: int = 0, **options: Any
) -> Any:
    """An engine that is not prepared yet."""
    from audioproto.types import EngineSpec
    from audioworker import engine

    cores = len(os.sched_getaffinity(0))
    return engine.find(name)(
        EngineSpec(
            name, "bench", directory, device, cores, max_batch, max_batch, options=options, memory_bytes=memory_bytes
        )
    )


def ready(name: str, directory: str, **options: Any) -> Any:
    it = engine_of(name, directory, **options)
    it.prepare()
    it.load()
    it.warm()
    return it


def samples(file: str) -> Audio:
    """Of a WAV file of 16 bits, one channel and 16 kHz."""
    import numpy as np

    with wave.open(file) as opened:
        frames = opened.readframes(opened.getnframes())
    return np.frombuffer(frames, "<i2").astype(np.float32) / np.float32(32768)


def noise(seconds: float, seed: int = 0) -> Audio:
    import numpy as np

    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * 16_000)).astype(np.float32)


def timed(*calls: Callable[[], object]) -> float:
    """Seconds that they take, one after the other."""
    began = time.perf_counter()
    for call in calls:
        call()
    return time.perf_counter() - began


def status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(round(int(line.split()[1]) * 1024 / 1e6, 1) for line in lines if line.startswith(field + ":"))


def forget_peak() -> None:
    """Of this process's memory, as `VmHWM` says it."""
    Path("/proc/self/clear_refs").write_text("5")


def say(figures: dict[str, Any]) -> None:
    print(json.dumps(figures))


class Memory:
    """What a device's allocator holds; on the CPU what the process does."""

    def __init__(self, device: str) -> None:
        import torch

        self._cuda = torch.cuda if device != "cpu" else None

    def now_mb(self) -> float:
        return round(self._cuda.memory_allocated() / 1e6, 1) if self._cuda else status_mb("VmRSS")

    def peak_mb(self) -> float:
        """Since `forget`, of what is reserved: what the device lacks for others, but for the context."""
        return round(self._cuda.max_memory_reserved() / 1e6, 1) if self._cuda else status_mb("VmHWM")

    def forget(self) -> None:
        if self._cuda:
            self._cuda.empty_cache()
            self._cuda.reset_peak_memory_stats()
        else:
            forget_peak()

    def settle(self) -> None:
        if self._cuda:
            self._cuda.synchronize()
