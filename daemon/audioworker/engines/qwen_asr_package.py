"""qwen_asr_package: Qwen3-ASR through its authors' own package, `qwen-asr`, for whoever wants just that.

Owns how audio becomes calls of the package, and what their answers mean. Languages and checkpoints are qwen3.py's.

It is not the default, because qwen_asr does more with less: on sdpa the package's encoder attends beyond its windows of
8 s, it tells text only when a call is over, and two threads must not call it at once.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from audioproto.errors import BadRequest, ConfigInvalid
from audioproto.types import PCM_RATE_IN, EngineSpec, Hold
from audioproto.worker import Segment, Transcribe
from audioworker import device, engine, piecewise, qwen3, speech
from audioworker.absent import standing_in
from audioworker.engine import Audio, Cancelled
from audioworker.jobs import Aborted
from audioworker.piecewise import Said

_OPTIONS: dict[str, Any] = {"dtype": "auto", "attention": "sdpa", "chunk_s": 30, "vad": True}

_UNUSED = ("librosa", "nagisa", "soundfile")
"""What the package imports to read files and to align Japanese, and a recogniser that is given samples never calls."""

_SHORTEST_CALL_S = 0.5
"""The package fills up only what it has cut itself to this length (MIN_ASR_INPUT_SECONDS); less than 12.5 ms fails."""


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
        self._dtype, self._attention = options["dtype"], options["attention"]
        self._chunk_s, self._vad = options["chunk_s"], options["vad"]
        self._computing = threading.Lock()
        self._tokens = 0
        """Written in the present call."""

    def prepare(self) -> None:
        self._cut = speech.cutter(self._vad, self.jobs.rest)
        self.progress("importing qwen_asr")
        device.prepare_torch()
        _import_package()
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

        def hear(chunk: Audio, before: str) -> Said:
            return self._call(chunk, asked, piecewise.most_tokens(chunk))

        places = self._cut(audio, self._chunk_s)
        return (yield from piecewise.transcribe(audio, places, request, hear, self.jobs, cancelled))

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

    def _call(self, chunk: Audio, asked: _Asked, limit: int) -> Said:
        """What the package says of a chunk; endless if there is no end after `limit` tokens."""
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
        return Said(text, qwen3.code_of_language(heard.language.partition(",")[0]), endless)

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


def _import_package() -> None:
    """Import qwen_asr where the modules are missing that it imports and never calls for us."""
    # Looks for librosa when it is imported, and must not find ours.
    import transformers.audio_utils  # noqa: F401

    with standing_in(*_UNUSED):
        import qwen_asr  # noqa: F401
