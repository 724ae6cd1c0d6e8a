"""indextts2: IndexTTS2, a voice from a few seconds of anybody's, and emotions apart from it. Chinese and English.

Jobs are audioworker/indextts/speaker.py's; here is which of everything it takes, and emotions told in words.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from audioproto.types import Hold
from audioproto.worker import Emotion, Synthesize
from audioworker.indextts import checkpoint, checkpoint2, emotions
from audioworker.indextts.checkpoint2 import Checkpoint2
from audioworker.indextts.phases2 import Phases2
from audioworker.indextts.speaker import Speaker

if TYPE_CHECKING:
    import torch

_MOST_DESCRIPTION = 1000


class Engine(Speaker):
    """As Speaker says; the language models are the one that speaks and the one that reads emotions."""

    hold: ClassVar[Hold] = Hold.WEIGHTS
    half: ClassVar[str] = "float16"
    codes_per_token: ClassVar[int] = 40
    least_codes: ClassVar[int] = 150
    encoding: ClassVar[str] = "indextts2 1"

    _made: Checkpoint2
    _phases: Phases2

    def import_library(self) -> None:
        checkpoint2.import_library()

    def read(self, dtype: torch.dtype) -> Checkpoint2:
        return checkpoint2.read(self.spec, dtype)

    def phases(self, target: torch.device, half: torch.dtype | None) -> Phases2:
        return Phases2(self._made, target, self._at_token, half)

    def fingerprint(self, where: Path) -> str:
        return checkpoint.fingerprint(where, checkpoint2.CODEC)

    def told(self, request: Synthesize, emotion: Emotion) -> list[float]:
        described = (emotion.text or request.text)[:_MOST_DESCRIPTION]
        with self._phase(request.job, "emotion", "emotion"):
            return emotions.parse(self._phases.describe(described), described)
