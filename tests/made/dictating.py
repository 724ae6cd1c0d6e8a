"""dictating: an engine that hears what the prompt tells it, step by step, whatever the audio.

Needs no library. Steps are separated by semicolons.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from typing import ClassVar

import msgspec

from audioproto.errors import EngineFailed
from audioproto.types import Hold
from audioproto.worker import Segment, Transcribe
from audioworker import engine
from audioworker.engine import Audio, Cancelled


class Engine(engine.Engine, engine.Transcriber):
    """No options.

    Steps: `hear TEXT` is a segment every three seconds, `many N TEXT` are N of them, `take S` lasts S seconds, `die`
    ends the process, `fail` the job. Without a prompt it hears what it was asked, as JSON.
    """

    hold: ClassVar[Hold] = Hold.WEIGHTS

    def load(self) -> None:
        pass

    def transcribe(self, audio: Audio, request: Transcribe, cancelled: Cancelled) -> Generator[Segment, None, str]:
        second = 0
        if not request.prompt:
            yield Segment(request.job, 0.0, 0.5, msgspec.json.encode(request).decode())
        for step, _, about in (line.strip().partition(" ") for line in request.prompt.split(";")):
            number, text = (about.split(" ", 1) if step == "many" else ("1", about)) if about else ("0", "")
            match step:
                case "hear" | "many":
                    for _ in range(int(number)):
                        yield Segment(request.job, second, second + 0.5, f" {text}", tokens=[1, 2, 3])
                        second += 3
                case "take":
                    threading.Event().wait(float(about))
                case "die":
                    os._exit(3)
                case "fail":
                    raise EngineFailed("told to fail")
            if cancelled():
                break
        return request.language or "en"
