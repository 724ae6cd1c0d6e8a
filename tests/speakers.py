"""Engines that imitate, for tests: zygotes of one by its checkpoints and options, and a speech in somebody's voice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from audioproto.types import EngineSpec
from audioproto.worker import Message, Phase, Recording, Reference, Sampling
from zygotes import Samples, Worker, Zygote, recording


class Start(Protocol):
    """Gives the zygote of a checkpoint, with options; starts it when first asked."""

    def __call__(
        self, name: str = "tiny", voices_dir: Path | None = None, memory_bytes: int = 0, **options: object
    ) -> Zygote: ...


@contextmanager
def zygotes(engine: str, python: Path, checkpoints: Path, directories: pytest.TempPathFactory) -> Iterator[Start]:
    """Of checkpoints in a directory, by their names. All keep voices in one directory, unless told otherwise."""
    started: dict[str, Zygote] = {}
    voices = directories.mktemp("voices") / "made"

    def start(name: str = "tiny", voices_dir: Path | None = None, memory_bytes: int = 0, **options: object) -> Zygote:
        key = f"{name} {voices_dir} {memory_bytes} {options}"
        if key not in started:
            spec = EngineSpec(
                engine,
                name,
                str(checkpoints / name),
                threads=1,
                options={"beams": 1, "diffusion_steps": 3} | options,
                voices_dir=str(voices_dir or voices),
                concurrency=2,
                memory_bytes=memory_bytes,
            )
            started[key] = Zygote(python, spec, directories.mktemp(name))
        return started[key]

    try:
        yield start
    finally:
        for zygote in started.values():
            zygote.close()


def spoken(
    worker: Worker, text: str, voice: str = "", samples: Samples | None = None, rate_hz: int = 16_000, **fields: object
) -> list[Message]:
    """All messages of a speech in the voice of `samples`, Kennedy's unless said otherwise."""
    samples = recording("jfk")[: 3 * rate_hz] if samples is None else samples
    reference = Reference(Recording(samples.size, rate_hz), voice=voice)
    messages, end = worker.finish(worker.begin_speaking(text, samples, reference=reference, **fields))
    return [*messages, end]


def phases(messages: list[Message]) -> list[str]:
    return [message.name for message in messages if isinstance(message, Phase)]


def seeded(seed: int = 1) -> dict[str, Any]:
    return {"sampling": Sampling(seed=seed)}
