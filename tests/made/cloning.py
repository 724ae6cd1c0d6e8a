"""cloning: an engine that says what it was asked for: JSON, one byte a sample, which arrives unchanged as `pcm`.

Needs no library. It tells recordings by their loudest frequency, so that tests use tones.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from audioproto.errors import EngineFailed
from audioproto.types import Hold
from audioproto.worker import Phase, Recording, Synthesize
from audioworker import engine
from audioworker.engine import Audio, Cancelled, Recordings


class Engine(engine.Engine, engine.Synthesizer):
    """Each line of the text is a part. Some are done instead of told:

    `read FIFO` waits for somebody to open it for writing, `die FILE` ends the process, unless there is that file,
    which is made, `fail` raises when its phase is over. A stored voice leaves a file in the directory for voices.
    """

    hold: ClassVar[Hold] = Hold.WEIGHTS
    sample_rate: ClassVar[int] = 24_000

    def load(self) -> None:
        pass

    def synthesize(self, request: Synthesize, recordings: Recordings, cancelled: Cancelled) -> Iterator[Audio]:
        emotion, reference = request.emotion, request.reference
        facts = {
            "voice": request.voice,
            "instructions": request.instructions,
            "reference": reference
            and {
                "voice": reference.voice,
                "transcript": reference.transcript,
                "heard": _heard(reference.recording, recordings),
            },
            "emotion": emotion
            and {
                "heard": emotion.recording and _heard(emotion.recording, recordings),
                "vector": emotion.vector,
                "text": emotion.text,
                "alpha": emotion.alpha,
            },
            "sampling": {name: getattr(request.sampling, name) for name in request.sampling.__struct_fields__},
            "pause_s": request.pause_s,
            "language": request.language,
        }
        if reference and reference.voice and self.spec.voices_dir:
            directory = Path(self.spec.voices_dir)
            directory.mkdir(parents=True, exist_ok=True)
            (directory / f"{reference.voice}.safetensors").write_bytes(b"made")
        parts = [line for line in request.text.splitlines() if line.strip()]
        for number, part in enumerate(parts, 1):
            step, _, about = part.partition(" ")
            if step == "read":
                Path(about).read_bytes()
                continue
            if step == "fail":
                self.on_phase(Phase(request.job, "speaking", 0.01, number, len(parts), 1000))
                raise EngineFailed("told to fail")
            if step == "die":
                if not Path(about).exists():
                    Path(about).touch()
                    print("dying, as told", file=sys.stderr)
                    os._exit(1)
                continue
            self.on_phase(Phase(request.job, "speaking", 0.01, number, len(parts), 1000))
            yield _said(facts | {"part": number, "text": part})


def _heard(recording: Recording, recordings: Recordings) -> dict[str, Any]:
    audio = recordings(recording)
    loudest = int(np.abs(np.fft.rfft(audio)).argmax())
    return {"hz": round(loudest * recording.rate_hz / audio.size), "seconds": round(audio.size / recording.rate_hz, 2)}


def _said(facts: dict[str, Any]) -> Audio:
    """Each byte as the sample that it is a number of."""
    return np.frombuffer(json.dumps(facts).encode() + b"\n", np.uint8).astype(np.float32) / np.float32(32767.0)
