"""indextts25: IndexTTS-2.5, like IndexTTS2 in more languages, and faster: half as many codes, of one pass.

Jobs are audioworker/indextts/speaker.py's; here is which of everything it takes, and what it cannot.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NoReturn

from audioproto.errors import BadRequest
from audioproto.types import Hold
from audioproto.worker import Emotion, Synthesize
from audioworker.indextts import checkpoint, checkpoint25
from audioworker.indextts.checkpoint25 import Checkpoint25
from audioworker.indextts.phases25 import Phases25
from audioworker.indextts.speaker import Speaker

if TYPE_CHECKING:
    import torch


class Engine(Speaker):
    """As Speaker says, in the language that a request names or its text shows; a word may be followed by how it is
    pronounced, `<行|XING2>`.

    bfloat16 and not float16: it is what its authors run the language model in. Cards before Ampere have no arithmetic
    of that type, and torch emulates it: no faster than float32, but in half its memory, which is what such a card is
    short of. With `dtype` "float32" it is computed in what it was released in.
    """

    hold: ClassVar[Hold] = Hold.WEIGHTS
    half: ClassVar[str] = "bfloat16"
    codes_per_token: ClassVar[int] = 20
    least_codes: ClassVar[int] = 75
    encoding: ClassVar[str] = "indextts25 1"
    speed_range: ClassVar[tuple[float, float]] = (0.5, 1.28)
    """Its authors let a duration be 0.5 to 2 times the model's own; below 0.78 it does not get any faster."""

    _made: Checkpoint25
    _phases: Phases25

    def import_library(self) -> None:
        checkpoint25.import_library()

    def read(self, dtype: torch.dtype) -> Checkpoint25:
        return checkpoint25.read(self.spec, dtype)

    def phases(self, target: torch.device, half: torch.dtype | None) -> Phases25:
        return Phases25(self._made, target, self._at_token, half)

    def fingerprint(self, where: Path) -> str:
        return checkpoint.fingerprint(where)

    def told(self, request: Synthesize, emotion: Emotion) -> NoReturn:
        raise BadRequest(
            f"{self.spec.model} has no model that reads emotions from words: give it a vector or a recording; "
            "IndexTTS2 (indextts-2) takes words too",
            param="emotion",
        )
