"""qwen_asr_package: Qwen3-ASR through its authors' own package, `qwen-asr`, for whoever wants just that.

Owns how audio becomes calls of the package, and what their answers mean. Languages and checkpoints are qwen3.py's.

It is not the default, because qwen_asr does more with less: on sdpa the package's encoder attends beyond its windows of
8 s, it tells text only when a call is over, and two threads must not call it at once.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from audioproto.errors import BadRequest, ConfigInvalid
from audioproto.spacing import glue
from audioproto.types import PCM_RATE_IN, EngineSpec, Hold
from audioproto.worker import Segment, Transcribe
from audioworker import alignment, chunks, engine, qwen3, speech
from audioworker.engine import Audio, Cancelled
from audioworker.jobs import Aborted

_OPTIONS: dict[str, Any] = {"dtype": "auto", "attention": "sdpa", "chunk_s": 30, "vad": True}

_UNUSED = ("librosa", "nagisa", "soundfile")
"""What the package imports to read files and to align Japanese, and a recogniser that is given samples never calls."""

_SHORTEST_S = 0.1
"""Less holds no word, and a model makes one up."""

_SHORTEST_CALL_S = 0.5
"""The package fills up only what it has cut itself to this length (MIN_ASR_INPUT_SECONDS); less than 12.5 ms fails."""

_SHORTEST_HALF_S = 2.0
"""A chunk whose text has no end is cut in two and heard again, down to this length."""

_TOKENS, _TOKENS_PER_S = 64, 25
"""More text than anybody says. The package's own limit of 512 tokens would cut a text off and not tell."""


class Engine(engine.Engine, engine.Transcriber):
    """`model_dir` holds a Qwen3-ASR checkpoint in the released layout.

    Options: `dtype`, `attention`, `chunk_s` and `vad`, as of qwen_asr.

    Several threads may call `transcribe` at once; one chunk is computed at a time, because the package keeps what
    belongs to a call in the model. A job that is given up ends at the next token, a paused one rests when its chunk is
    heard.
    """

    hold: ClassVar[Hold] = Hold.WEIGHTS

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        options = qwen3.options(spec, "qwen_asr_package", _OPTIONS)
        self._dtype, self._attention, self._chunk_s = options["dtype"], options["attention"], options["chunk_s"]
        if type(self._chunk_s) is not int or not 5 <= self._chunk_s <= 300:
            raise BadRequest(f"{spec.model}: chunk_s must be a whole number from 5 to 300")
        self._vad = options["vad"]
        if type(self._vad) is not bool:
            raise BadRequest(f"{spec.model}: vad must be true or false")
        self._computing = threading.Lock()
        self._tokens = 0
        """Written in the present call."""

    def prepare(self) -> None:
        self.progress("importing qwen_asr")
        qwen3.prepare_torch()
        _import_package()
        if self._vad:
            self._probabilities = speech.silero()
        self.progress("reading the weights")
        on_cpu = "float32" if self._dtype == "auto" else self._dtype
        self._read(Path(self.spec.model_dir), on_cpu if self.spec.device == "cpu" else "auto")

    def _read(self, directory: Path, dtype: str) -> None:
        """As `Qwen3ASRModel.from_pretrained` does, which would make up weights that are missing and keep it to itself.

        The tokenizer is read without its `fix_mistral_regex`, which puts Mistral's way to cut words in place of Qwen's
        where a checkpoint is a directory and not a name on a hub.
        """
        import torch
        from qwen_asr import Qwen3ASRModel
        from transformers import AutoModel, AutoProcessor

        if not qwen3.is_released(qwen3.configuration(self.spec, directory, "asr")):
            raise ConfigInvalid(
                f"{self.spec.model}: {directory} holds the -hf layout, which the package qwen-asr cannot read",
                hint='set engine = "qwen_asr" and runtime = "qwen-asr"',
            )
        qwen3.weights(self.spec, directory)
        model, info = AutoModel.from_pretrained(
            directory,
            dtype="auto" if dtype == "auto" else getattr(torch, dtype),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, with the others
        )
        qwen3.require_whole(self.spec, directory, info)
        try:
            # Given to from_pretrained it would not reach the inner modules.
            model.set_attn_implementation(self._attention)
        except ImportError as error:
            raise qwen3.no_attention(self.spec, self._attention, error) from error
        try:
            processor = AutoProcessor.from_pretrained(directory)
        except (OSError, ValueError, TypeError, ImportError) as error:
            raise qwen3.incomplete(self.spec, f"the tokenizer in {directory} is not whole: {error}") from error
        model.eval()
        model.thinker.register_forward_pre_hook(self._at_token)
        self._checkpoint = qwen3.Checkpoint(model, processor, model.config)
        self._package = Qwen3ASRModel("transformers", model, processor)

    def load(self) -> None:
        self.progress("moving the weights")
        qwen3.move(self._checkpoint.model, self.spec.device, self._dtype, self.spec.threads)

    def warm(self) -> None:
        """A second of noise: kernels are chosen, memory pools made."""
        noise = np.random.default_rng(0).normal(0, 0.1, PCM_RATE_IN).astype(np.float32)
        self._call(noise, _Asked(), limit=4)

    def transcribe(self, audio: Audio, request: Transcribe, cancelled: Cancelled) -> Generator[Segment, None, str]:
        asked = self._asked(request)
        spoken: dict[str, int] = {}
        before = ""
        for begin, end in self._pieces(audio):
            self.jobs.rest()
            for start, last, text, language in self._heard(audio, begin, end, asked):
                text = glue(before, text) + text
                before = text
                spoken[language] = spoken.get(language, 0) + len(text)
                start_s, end_s = round(start / PCM_RATE_IN, 3), round(last / PCM_RATE_IN, 3)
                yield Segment(
                    request.job,
                    start_s,
                    end_s,
                    text,
                    temperature=request.temperature,
                    words=alignment.estimate(text, start_s, end_s) if request.words else [],
                    words_estimated=request.words,
                )
            if cancelled():
                break
        return max(spoken, key=lambda language: spoken[language], default="")

    def _pieces(self, audio: Audio) -> Iterator[tuple[int, int]]:
        if self._vad:
            return speech.pieces(audio, self._chunk_s, self._hear)
        return chunks.split(audio, self._chunk_s)

    def _hear(self, audio: Audio) -> Iterator[float]:
        self.jobs.rest()
        return self._probabilities(audio)

    def _asked(self, request: Transcribe) -> _Asked:
        """Raises BadRequest for what the package has no way to do."""
        if request.translate_to:
            raise BadRequest(f"{self.spec.model} does not translate", param="translate_to")
        candidates = {qwen3.name_of_language(self.spec, language, "languages[]") for language in request.languages}
        language = qwen3.name_of_language(self.spec, request.language, "language")
        if not language and len(candidates) > 1:
            raise BadRequest(
                f"{self.spec.model} takes one language or any, it cannot choose among several",
                hint='leave languages out, or have the model served by engine = "qwen_asr"',
                param="languages[]",
            )
        return _Asked(language or "".join(candidates), self._checkpoint.context(request), request.temperature)

    def _heard(
        self, audio: Audio, begin: int, end: int, asked: _Asked
    ) -> Generator[tuple[int, int, str, str], None, None]:
        """First and last sample, text and language of a chunk, or of its halves; nothing where nobody speaks."""
        chunk = np.nan_to_num(audio[begin:end], posinf=0.0, neginf=0.0)
        loud = chunks.loud(chunk)
        if loud is None or loud[1] - loud[0] < _SHORTEST_S * PCM_RATE_IN:
            return
        text, language, endless = self._call(chunk, asked, _TOKENS + round(_TOKENS_PER_S * chunk.size / PCM_RATE_IN))
        if endless and chunk.size > 2 * _SHORTEST_HALF_S * PCM_RATE_IN:
            middle = begin + chunks.halves(chunk)
            for half in ((begin, middle), (middle, end)):
                self.jobs.rest()
                yield from self._heard(audio, *half, asked)
        elif text:
            yield begin + loud[0], begin + loud[1], text, language

    def _call(self, chunk: Audio, asked: _Asked, limit: int) -> tuple[str, str, bool]:
        """Text and language of a chunk; and whether the text had no end after `limit` tokens."""
        shortest = round(_SHORTEST_CALL_S * PCM_RATE_IN)
        if chunk.size < shortest:
            chunk = np.pad(chunk, (0, shortest - chunk.size))
        with self._computing:
            self._tokens = 0
            self._package.max_new_tokens = limit + 1
            settings = self._checkpoint.model.thinker.generation_config
            settings.do_sample = asked.temperature > 0
            settings.temperature, settings.top_k = (asked.temperature, 0) if settings.do_sample else (1.0, 50)
            (heard,) = self._package.transcribe((chunk, PCM_RATE_IN), asked.context, asked.language or None)
            endless = self._tokens > limit
        text = self._checkpoint.plain(heard.text).strip()
        return text, qwen3.code_of_language(heard.language.partition(",")[0]), endless

    def _at_token(self, *_: object) -> None:
        """Called by torch whenever the model computes a token: the package can neither count them nor be stopped."""
        self._tokens += 1
        if self.jobs.mine is not None and self.jobs.mine.aborted:
            raise Aborted


@dataclass
class _Asked:
    """What all chunks of a job have in common. The language by the model's name."""

    language: str = ""
    context: str = ""
    temperature: float = 0.0


class _Unused(ModuleType):
    """Stands for a module that the package imports and that the runtime leaves out. Any use of it is an error."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self.__name__}.{name}: audiod's runtime of qwen-asr leaves {self.__name__} out")


def _import_package() -> None:
    """Import qwen_asr where the modules are missing that it imports and never calls for us.

    They stand in for the time of its import only: nobody else is to take them for the real ones.
    """
    # Looks for librosa when it is imported, and must not find ours.
    import transformers.audio_utils  # noqa: F401

    missing = [name for name in _UNUSED if importlib.util.find_spec(name) is None]
    sys.modules.update({name: _Unused(name) for name in missing})
    try:
        import qwen_asr  # noqa: F401
    finally:
        for name in missing:
            del sys.modules[name]
