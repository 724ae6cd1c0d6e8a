"""qwen_aligner: Qwen3-ForcedAligner on transformers' own classes; when each word of a known text is said.

Owns which passages are aligned and what happens to the others. What a word is, and estimates, are alignment.py's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from audioproto.types import PCM_RATE_IN, EngineSpec, Hold
from audioproto.worker import Align, Passage, Segment, Word
from audioworker import alignment, device, engine, qwen3
from audioworker.engine import Audio, Cancelled

_OPTIONS: dict[str, Any] = {"dtype": "auto", "attention": "sdpa"}

_LONGEST_S = 300.0
"""Of a passage: longer audio the model was not trained on (Qwen/Qwen3-ForcedAligner-0.6B, model card)."""

_SHORTEST_S = 0.1

_AROUND_S = 0.3
"""Audio that is heard before and after a passage: where it begins and ends was somebody's estimate."""


class Engine(engine.Engine, engine.Aligner):
    """`model_dir` holds a Qwen3-ForcedAligner checkpoint, in the released or in the `-hf` layout.

    Options: `dtype` and `attention`, as of qwen_asr. Times come in steps of 80 ms.

    Several threads may call `align` at once; one passage is computed at a time.
    """

    hold: ClassVar[Hold] = Hold.WEIGHTS

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        options = qwen3.options(spec, "qwen_aligner", _OPTIONS)
        self._dtype, self._attention = options["dtype"], options["attention"]
        self._computing = threading.Lock()

    def prepare(self) -> None:
        self.progress("importing transformers")
        device.prepare_torch()
        self.progress("reading the weights")
        on_cpu = "float32" if self._dtype == "auto" else self._dtype
        self._checkpoint = qwen3.read(
            self.spec, "aligner", on_cpu if self.spec.device == "cpu" else "auto", self._attention
        )

    def load(self) -> None:
        self.progress("moving the weights")
        qwen3.move(self._checkpoint.model, self.spec.device, self._dtype, self.spec.threads)

    def warm(self) -> None:
        self._times(np.zeros(PCM_RATE_IN, np.float32), ["a"])

    def align(self, audio: Audio, request: Align, cancelled: Cancelled) -> Iterator[Segment]:
        code = qwen3.code_of_language(request.language)
        heard = not code or code in qwen3.ALIGNED
        length_s = audio.size / PCM_RATE_IN
        earliest_s = 0.0
        for passage in request.passages:
            self.jobs.rest()
            if cancelled():
                return
            start = min(max(passage.start, earliest_s), length_s)
            end = min(max(passage.end, start), length_s)
            words = self._aligned(audio, Passage(start, end, passage.text), earliest_s) if heard else None
            estimated = words is None
            if words is None:
                words = alignment.estimate(passage.text, start, end)
            elif words:
                start, end = words[0].start, words[-1].end
            earliest_s = end
            yield Segment(request.job, start, end, passage.text, words=words, words_estimated=estimated)

    def _aligned(self, audio: Audio, passage: Passage, earliest_s: float) -> list[Word] | None:
        """The passage's words with the times they were heard at; None where the model cannot tell."""
        if not _SHORTEST_S <= passage.end - passage.start <= _LONGEST_S:
            return None
        pieces = alignment.pieces(passage.text)
        said = [self._checkpoint.plain(alignment.spoken(piece)) for piece in pieces]
        if not all(said):
            return None
        # Never what was the passage before's, and with it no longer than the model can hear.
        around = min(_AROUND_S, (_LONGEST_S - (passage.end - passage.start)) / 2)
        begin = max(earliest_s, passage.start - around)
        end = min(audio.size / PCM_RATE_IN, passage.end + around)
        stretch = audio[round(begin * PCM_RATE_IN) : round(end * PCM_RATE_IN)]
        times = self._times(np.nan_to_num(stretch, posinf=0.0, neginf=0.0), said)
        words = [
            Word(piece, round(begin + start, 3), round(begin + last, 3))
            for piece, (start, last) in zip(pieces, times, strict=True)
        ]
        words = alignment.ascending(words, begin, end)
        # All at one moment is what the model says of words that are not there.
        return words if words[-1].end > words[0].start else None

    def _times(self, audio: Audio, words: Sequence[str]) -> list[tuple[float, float]]:
        """Begin and end of each word, in seconds from the start of `audio`."""
        import torch

        checkpoint = self._checkpoint
        prompt = qwen3.AUDIO + "".join(f"{word}<timestamp><timestamp>" for word in words)
        inputs = checkpoint.processor(text=[prompt], audio=[audio], return_tensors="pt")
        model = checkpoint.model
        with self._computing, torch.inference_mode():
            logits = model(
                input_ids=inputs["input_ids"].to(model.device),
                attention_mask=inputs["attention_mask"].to(model.device),
                input_features=inputs["input_features"].to(model.device, model.dtype),
                input_features_mask=inputs["input_features_mask"].to(model.device),
                use_cache=False,
            ).logits
        (found,) = checkpoint.processor.decode_forced_alignment(
            logits.float(), inputs["input_ids"].to(model.device), [list(words)], checkpoint.config.timestamp_token_id
        )
        return [(word["start_time"], word["end_time"]) for word in found]
