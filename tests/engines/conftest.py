"""Real zygotes of the embedded models, one for each model and module of tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from audiod.models.catalogue import ModelEntry
from audioproto.types import EngineSpec
from zygotes import Worker, Zygote


@pytest.fixture(scope="module")
def zygote_of(
    entries: dict[str, ModelEntry],
    runtime_python: Callable[[str], Path],
    model_dir: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Zygote]]:
    """Gives a model's zygote, which may serve two jobs at once; starts it when first asked."""
    started: dict[str, Zygote] = {}

    def start(model: str) -> Zygote:
        if model not in started:
            entry = entries[model]
            spec = EngineSpec(entry.engine, model, str(model_dir(model)), threads=2, concurrency=2)
            started[model] = Zygote(runtime_python(entry.engine), spec, tmp_path_factory.mktemp(model))
        return started[model]

    yield start
    for zygote in started.values():
        zygote.close()


@pytest.fixture(scope="module")
def whisper(zygote_of: Callable[[str], Zygote]) -> Iterator[Worker]:
    worker = zygote_of("whisper-base").fork()
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def hibari(zygote_of: Callable[[str], Zygote]) -> Iterator[Worker]:
    worker = zygote_of("hibari").fork()
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def kokoro(zygote_of: Callable[[str], Zygote]) -> Iterator[Worker]:
    worker = zygote_of("kokoro-82m").fork()
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def qwen_zygote(
    tiny_qwen: Path, runtime_python: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Zygote]]:
    """Gives the zygote of a tiny checkpoint by its name, or that of another directory; starts it when first asked.

    A recogniser hears noise too, unless `vad` says otherwise.
    """
    started: dict[str, Zygote] = {}

    def start(name: str, model_dir: Path | None = None, max_batch: int = 4, **options: object) -> Zygote:
        key = f"{name} {max_batch} {options} {model_dir}"
        if key not in started:
            engine = "qwen_aligner" if name.startswith("aligner") else "qwen_asr"
            options = options if engine == "qwen_aligner" else {"vad": False} | options
            spec = EngineSpec(
                engine,
                f"tiny-{name}",
                str(model_dir or tiny_qwen / name),
                threads=2,
                concurrency=4,
                max_batch=max_batch,
                max_batch_wait_s=3600.0,
                options=options,
            )
            started[key] = Zygote(runtime_python(engine), spec, tmp_path_factory.mktemp(name))
        return started[key]

    yield start
    for zygote in started.values():
        zygote.close()
