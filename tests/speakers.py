"""Engines that imitate, for tests: zygotes of one by its checkpoints and options, and a speech in somebody's voice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from audioproto.types import EngineSpec
from audioproto.worker import Message, Phase, Recording, Reference, Sampling
from daemons import TOP
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


_PREPARE_ALL = """
import json, sys, msgspec
from audioproto.types import EngineSpec
from audioworker import engine
name, *directories = sys.argv[1:]
for directory in directories:
    try:
        engine.find(name)(EngineSpec(name, "tiny", directory)).prepare()
    except Exception as error:
        print(json.dumps(msgspec.to_builtins(engine.typed(error).body())))
"""

Spoilt = dict[str, tuple[Callable[[Path], object], str, str]]
"""By name: what is done to a checkpoint, the code of the error that it then gives, and what the error names."""


def check_refused(engine: str, python: Path, checkpoint: Path, spoilt: Spoilt, home: Path) -> None:
    """Have an engine prepare copies of a checkpoint that are not whole, and see each refused by the part."""
    for name, (spoil, _, _) in spoilt.items():
        shutil.copytree(checkpoint, home / name, copy_function=os.link)
        spoil(home / name)
    command = [str(python), "-c", _PREPARE_ALL, engine, *(str(home / name) for name in spoilt)]
    environment = {"PYTHONPATH": str(TOP / "daemon"), "HF_HUB_OFFLINE": "1", "HOME": str(home)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    errors = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [error["code"] for error in errors] == [code for _, code, _ in spoilt.values()], ran.stderr
    for error, (_, _, named) in zip(errors, spoilt.values(), strict=True):
        assert named in error["message"]
        assert "audioctl models pull tiny" in error["hint"]


def put(file: Path, content: bytes) -> None:
    """Another content, for a file that is linked to the one that is whole."""
    file.unlink()
    file.write_bytes(content)


def cut(file: Path) -> None:
    """The first half of it."""
    content = file.read_bytes()
    put(file, content[: len(content) // 2])


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
