"""hibari: English speech from the 8 MB model inside the hibari-tts wheel, about a hundred times as fast as real time.

Speaks English and nothing else; other scripts are refused, not guessed at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from audioproto.errors import BadRequest, UnspeakableText, VoiceNotFound
from audioproto.sentences import sentences
from audioproto.types import EngineSpec, Hold
from audioproto.worker import Synthesize
from audioworker import engine, text
from audioworker.engine import Audio, Cancelled, Recordings

if TYPE_CHECKING:
    from hibari import Hibari

VOICE = "heart"
"""The one voice in the wheel; the library would fetch the others from a network."""

_MOST_PHONEMES = 400
"""As hibari.tts.MAX_PHONEMES: what it has been trained to say in one breath."""

_LAST_PUNCTUATION_ID = 16
"""Ids up to here are punctuation and the blank in the library's vocab.json, which is Kokoro's."""

_PAUSE_S = 0.3


class Engine(engine.Engine, engine.Synthesizer):
    """No options. Runs on the CPU with one thread, and needs no `model_dir`.

    Any number of threads may call `synthesize` at once: the model is only read, and each call has its own noise.
    Equal requests give equal audio.
    """

    hold: ClassVar[Hold] = Hold.WEIGHTS
    sample_rate: ClassVar[int] = 24_000
    speed_range: ClassVar[tuple[float, float]] = (0.5, 2.0)

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        if spec.options:
            raise BadRequest(f"{spec.model}: the engine hibari has no option {min(spec.options)!r}; it has none")
        if spec.device != "cpu":
            raise BadRequest(f"{spec.model}: the engine hibari runs on the CPU only", hint='set device = "cpu"')

    def prepare(self) -> None:
        # Read by onnxruntime 1.29 and later, which otherwise reports model hashes to its maker, writes into the home
        # directory and starts a thread before the fork.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        from hibari import Hibari

        # More than one thread would not survive the fork, and would save nothing: 30 ms make 3 s of speech.
        self._tts: Hibari = Hibari(threads=1)
        # One sentence through everything that is made on first use, the model for unknown words included.
        self._tts("Qzorbly Hibari, warmed up.", seed=0)

    def load(self) -> None:
        """Nothing is left to do: what `prepare` made works in the forked worker."""

    def synthesize(self, request: Synthesize, recordings: Recordings, cancelled: Cancelled) -> Iterator[Audio]:
        if request.voice not in ("", VOICE):
            raise VoiceNotFound(
                f"{self.spec.model} has no voice {request.voice!r}, only {VOICE!r}",
                hint="audioctl models",
                param="voice",
            )
        if text.only_punctuation(request.text):
            yield np.zeros(round(_PAUSE_S * self.sample_rate), np.float32)
            return
        noise = np.random.default_rng(0)
        spoken = False
        for sentence in sentences(text.clean(request.text)):
            for ids in text.encoded(sentence, self._ids, _MOST_PHONEMES):
                if cancelled():
                    return
                if all(code <= _LAST_PUNCTUATION_ID for code in ids):
                    continue
                yield self._tts.from_ids([0, *ids, 0], request.speed, noise)
                spoken = True
        if not spoken:
            raise UnspeakableText(
                f"{self.spec.model} speaks English only and finds nothing to say in this text",
                hint="audioctl models lists the languages of each model",
                param="input",
            )

    def _ids(self, sentence: str) -> list[int]:
        ids: list[int] = self._tts.ids(self._tts.g2p(sentence))
        return ids[1:-1]
