"""Run in faster-whisper's runtime by a test: `sharing.py MODEL_DIR RECORDINGS.npz`, each named by its language.

Transcribes the recordings one by one, then all at once with shared calls, and prints both, and the calls, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from audioproto.types import EngineSpec
from audioproto.worker import Transcribe
from audioworker.engine import Audio
from audioworker.engines import faster_whisper
from audioworker.jobs import Job


def loaded(model_dir: str, max_batch: int) -> faster_whisper.Engine:
    spec = EngineSpec("faster_whisper", "whisper", model_dir, "cpu", 2, 4, max_batch, max_batch_wait_s=3600.0)
    engine = faster_whisper.Engine(spec)
    engine.prepare()
    engine.load()
    return engine


def transcribed(engine: faster_whisper.Engine, recordings: Sequence[tuple[str, Audio]]) -> list[Any]:
    """What each gives, all of them begun before the first is computed."""
    gave: list[Any] = [None] * len(recordings)
    all_there = threading.Barrier(len(recordings))

    def run(place: int) -> None:
        job = Job(engine.jobs, lambda: None)
        with engine.jobs.working_on(job):
            all_there.wait()
            language, audio = recordings[place]
            request = Transcribe(1, audio.size, language, words=True)
            segments = engine.transcribe(audio, request, job.is_aborted)
            gave[place] = [msgspec.to_builtins(segment) for segment in segments]

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(recordings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return gave


def main() -> None:
    model_dir, file = sys.argv[1:]
    recordings = [(name[:2], audio) for name, audio in np.load(file).items()]
    single, sharing = loaded(model_dir, 1), loaded(model_dir, 4)
    model: Any = sharing._model.model
    calls: list[tuple[str, int]] = []
    compute = model._batcher._call

    def counted(call: Any, items: Sequence[Any]) -> Any:
        calls.append((call.method, len(items)))
        return compute(call, items)

    model._batcher._call = counted
    alone = [transcribed(single, [recording])[0] for recording in recordings]
    together = transcribed(sharing, recordings)
    print(json.dumps({"alone": alone, "together": together, "calls": calls}))


if __name__ == "__main__":
    main()
