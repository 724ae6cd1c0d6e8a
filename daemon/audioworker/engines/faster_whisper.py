"""faster-whisper: Whisper on CTranslate2, any converted size, multilingual or English.

Owns what makes Whisper dependable: silence is cheap, memory is bounded, Chinese comes out in one script.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from audioproto.errors import BadRequest, ModelNotInstalled
from audioproto.languages import code_of
from audioproto.types import PCM_RATE_IN, EngineSpec, Hold
from audioproto.worker import Segment, Token, Transcribe, Word
from audioworker import engine
from audioworker.batching import Batcher
from audioworker.engine import Audio, Cancelled
from audioworker.jobs import Jobs

if TYPE_CHECKING:
    import ctranslate2
    import faster_whisper.transcribe

_OPTIONS: dict[str, Any] = {"compute_type": "int8", "beam_size": 5}
_COMPUTE_TYPES = ("int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16", "float32")
_FILES = ("model.bin", "config.json", "tokenizer.json")

_SHORTEST_SAMPLES = PCM_RATE_IN // 10
"""Less than 0.1 s holds no word, and Whisper makes one up."""

_STRETCH_SAMPLES = 300 * PCM_RATE_IN
"""Audio worked on at once. Its spectrogram takes 50 MB a minute, so an hour in one piece would take 3 GB."""

_LONGEST_SPEECH_S = 60.0
"""Speech without a pause of 2 s is cut at a shorter one after this time, so that a stretch has a place to end."""

_TEMPERATURES = [0.0, 0.4]
"""Whisper's own ladder has six steps; on noise that costs 27 s of CPU for 10 s of audio, and helps nobody."""

_CONTROL = re.compile(r"<\|[^<>|]{0,40}\|>")
_TRADITIONAL = re.compile(r"(?i)zh[-_](?:hant|tw|hk|mo)\b")

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(0x100 + n): byte for n, byte in enumerate(sorted(set(range(0x100)) - set(_PRINTABLE)))
}
"""The characters that stand for bytes in the vocabulary: byte-level BPE as in GPT-2 (openai/gpt-2, encoder.py, MIT)."""

Speech = list[dict[str, int]]
"""Where speech is: begin and end in samples, ascending, as faster_whisper.vad has it."""


class Engine(engine.Engine, engine.Transcriber):
    """`model_dir` holds a model converted for CTranslate2: model.bin, config.json, tokenizer.json and a vocabulary.

    Options: `compute_type` ("int8"; any of CTranslate2's), `beam_size` (5; 1 to 10).

    Several threads may call `transcribe` at once, on one copy of the weights. Up to `spec.concurrency` of them compute
    at the same time, each with `spec.threads` threads.

    With `spec.max_batch` over 1 they share calls instead, one at a time. That is for a GPU (not measured yet). On two
    CPU cores, with base in int8 and 28 s of speech a job, it cost a lone job nothing, and saved CPU time, 7.1 to 6.7 s
    a job for two at once and 7.3 to 6.2 s for four; but it answered later, after 6.6 s a job instead of 3.9 and 4.5
    instead of 4.0, because one call does not keep two cores busy where two calls do.
    """

    hold: ClassVar[Hold] = Hold.IMPORTS  # a model made before the fork waits for ever on threads that it does not have

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        for name in spec.options:
            if name not in _OPTIONS:
                known = ", ".join(_OPTIONS)
                raise BadRequest(f"{spec.model}: the engine faster_whisper has no option {name!r}, only {known}")
        options = _OPTIONS | spec.options
        self._compute_type, self._beam_size = options["compute_type"], options["beam_size"]
        if self._compute_type not in _COMPUTE_TYPES:
            raise BadRequest(f"{spec.model}: compute_type must be one of {', '.join(_COMPUTE_TYPES)}")
        if type(self._beam_size) is not int or not 1 <= self._beam_size <= 10:
            raise BadRequest(f"{spec.model}: beam_size must be a whole number from 1 to 10")

    def prepare(self) -> None:
        # Read by onnxruntime 1.29 and later, which otherwise reports model hashes to its maker, writes into the home
        # directory and starts a thread before the fork.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        self.progress("importing faster-whisper")
        import faster_whisper.vad
        import opencc

        # The weights stay on disk: loaded from memory held here (files=...) they took longer, 0.7 s instead of 0.4 s,
        # and 280 MB more in each worker, because the bytes are copied where the file is read in place.
        faster_whisper.vad.get_speech_timestamps(np.zeros(PCM_RATE_IN, np.float32))
        self._to_simplified: Callable[[str], str] = opencc.OpenCC("t2s").convert
        self._to_traditional: Callable[[str], str] = opencc.OpenCC("s2t").convert

    def load(self) -> None:
        from faster_whisper import WhisperModel

        for name in _FILES:  # faster-whisper would look for a tokenizer on a network
            if not Path(self.spec.model_dir, name).is_file():
                raise ModelNotInstalled(
                    f"{self.spec.model}: {self.spec.model_dir} has no {name}",
                    hint=f"audioctl models pull {self.spec.model}",
                )
        device, _, index = self.spec.device.partition(":")
        shared = self.spec.max_batch > 1  # then one call computes at a time
        self.progress("reading the weights")
        self._model = WhisperModel(
            self.spec.model_dir,
            device=device,
            device_index=int(index or 0),
            compute_type=self._compute_type,
            cpu_threads=self.spec.threads,
            num_workers=1 if shared else self.spec.concurrency,
            local_files_only=True,
        )
        self._model.model = (_SharedModel if shared else _Model)(self._model.model, self.jobs, self.spec)

    def warm(self) -> None:
        """On a GPU only. On a CPU the first request takes 0.1 s of 2.3 longer than the next ones; this took 2 s."""
        if self.spec.device != "cpu":
            noise = np.random.default_rng(0).normal(0, 0.1, PCM_RATE_IN).astype(np.float32)
            language = self._model.supported_languages[0]
            # Straight to the model: `transcribe` would find no speech in it and do nothing.
            found, _ = self._model.transcribe(
                noise, language=language, beam_size=self._beam_size, temperature=0.0, max_new_tokens=4
            )
            list(found)

    def transcribe(self, audio: Audio, request: Transcribe, cancelled: Cancelled) -> Generator[Segment, None, str]:
        from faster_whisper.transcribe import restore_speech_timestamps

        if request.translate_to not in ("", "en"):
            raise BadRequest(f"{self.spec.model} translates into English only", param="translate_to")
        language = self._language(request.language)
        candidates = {self._language(candidate) for candidate in request.languages}
        prompt: str | None = _CONTROL.sub("", request.prompt).strip() or None
        keywords = _CONTROL.sub("", ", ".join(request.keywords)).strip() or None
        heard = ""
        end_s = 0.0
        for begin, speech in _stretches(audio):
            self.jobs.rest()
            if not speech:
                continue
            kept = np.concatenate([audio[begin + part["start"] : begin + part["end"]] for part in speech])
            heard = heard or language or self._detect(kept, candidates)
            translating = request.translate_to not in ("", heard)
            found, _ = self._model.transcribe(
                kept,
                language=heard,
                task="translate" if translating else "transcribe",
                initial_prompt=prompt,
                hotwords=keywords,
                beam_size=self._beam_size,
                temperature=[request.temperature] if request.temperature > 0 else _TEMPERATURES,
                condition_on_previous_text=False,
                word_timestamps=request.words or request.logprobs,
            )
            prompt = None
            for segment in restore_speech_timestamps(found, speech, PCM_RATE_IN):
                made = _segment(segment, request.job, begin / PCM_RATE_IN, end_s, audio.size / PCM_RATE_IN)
                end_s = made.end
                if request.logprobs:
                    made = replace(made, logprobs=self._logprobs(made.tokens))
                yield self._in_one_script(made, request.language) if heard == "zh" and not translating else made
                if cancelled():
                    return heard
        return heard

    def _language(self, asked: str) -> str:
        """The code to tell the model, or "" where it is to find out."""
        known = self._model.supported_languages
        language = code_of(asked) or (known[0] if len(known) == 1 else "")
        if language and language not in known:
            raise BadRequest(
                f"{self.spec.model} does not know the language {asked!r}",
                hint="audioctl models lists the languages of each model; leave language out to have it recognised",
                param="language",
            )
        return language

    def _detect(self, speech: Audio, candidates: set[str]) -> str:
        """The language of `speech`, of the `candidates` where there are any."""
        best, _, probabilities = self._model.detect_language(speech)
        likely = [(probability, language) for language, probability in probabilities if language in candidates]
        return max(likely)[1] if likely else str(best)

    def _logprobs(self, tokens: Sequence[int]) -> list[Token]:
        """Of a segment's tokens of text, as the alignment for the times of its words has just given them."""
        vocabulary = self._model.hf_tokenizer
        end = vocabulary.token_to_id("<|endoftext|>")
        text = [token for token in tokens if token < end]  # behind it come times and other orders
        probabilities = self._model.model.probabilities(text)
        return [
            Token(_bytes_of(vocabulary.id_to_token(token)), math.log(max(probability, 1e-10)))
            for token, probability in zip(text, probabilities, strict=True)
        ]

    def _in_one_script(self, segment: Segment, asked: str) -> Segment:
        """Chinese in simplified characters, or in traditional ones for zh-TW and its like; Whisper mixes them.

        A prompt in simplified characters would reach the first half minute only, and quiet audio would come out as it.
        """
        convert = self._to_traditional if _TRADITIONAL.match(asked.strip()) else self._to_simplified
        converted = convert(segment.text)
        words = [convert(word.word) for word in segment.words]
        if len(converted) == len(segment.text) == sum(len(word.word) for word in segment.words):
            # A character's form can depend on its neighbours in the next word.
            ends = np.cumsum([len(word.word) for word in segment.words])
            words = [converted[end - len(word.word) : end] for word, end in zip(segment.words, ends, strict=True)]
        pairs = zip(segment.words, words, strict=True)
        return replace(segment, text=converted, words=[replace(word, word=form) for word, form in pairs])


class _Model:
    """CTranslate2's model as faster-whisper uses it, with places to rest: before a window of 30 s, and before each try.

    Without them a job could be stopped between two segments only, and noise has none for minutes.
    """

    def __init__(self, model: ctranslate2.models.Whisper, jobs: Jobs, spec: EngineSpec) -> None:
        self._model = model
        self._jobs = jobs
        self._aligned = threading.local()
        """What each job's last alignment gave and no segment has taken yet: tokens, and the probability of each."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, features: ctranslate2.StorageView, to_cpu: bool = False) -> Any:
        self._jobs.rest()
        return self._model.encode(features, to_cpu)

    def generate(self, window: Any, prompts: list[list[int]], **options: Any) -> list[Any]:
        self._jobs.rest()
        made: list[Any] = self._model.generate(window, prompts, **options)
        return made

    def align(
        self, window: Any, start_sequence: list[int], tokens: list[list[int]], num_frames: int, **options: Any
    ) -> list[Any]:
        made: list[Any] = self._align(window, start_sequence, tokens, num_frames, **options)
        self._aligned.rest = (tokens[0], made[0].text_token_probs)
        return made

    def _align(self, *arguments: Any, **options: Any) -> Any:
        return self._model.align(*arguments, **options)

    def probabilities(self, tokens: list[int]) -> list[float]:
        """Of the `tokens` of this job's next segment. faster-whisper leaves segments out, never changes their order."""
        aligned, probabilities = self._aligned.rest
        for at in range(len(aligned) - len(tokens) + 1):
            if aligned[at : at + len(tokens)] == tokens:
                end = at + len(tokens)
                self._aligned.rest = (aligned[end:], probabilities[end:])
                return [float(probability) for probability in probabilities[at:end]]
        raise RuntimeError("a segment has tokens that were not aligned")


class _Window:
    """Half a minute of one job's audio: its spectrogram, and what the encoder made of it once that is needed."""

    def __init__(self, features: ctranslate2.StorageView) -> None:
        self.features = features
        self.encoded: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class _Call:
    """What windows must have in common to share a call of CTranslate2's `method`."""

    method: str
    options: tuple[tuple[str, Any], ...] = ()
    prompt_tokens: int = 0
    start_sequence: tuple[int, ...] = ()


class _SharedModel(_Model):
    """The same, with jobs that wait together computed in one call.

    Equal to the single calls, bit for bit on the CPU. A window is encoded in the call that first needs it, so that jobs
    meet once a window. CTranslate2 wants prompts of one length in a call, and for `align` one language.
    """

    def __init__(self, model: ctranslate2.models.Whisper, jobs: Jobs, spec: EngineSpec) -> None:
        super().__init__(model, jobs, spec)
        self._batcher: Batcher[_Call, tuple[_Window, Any], Any] = Batcher(
            jobs, self._compute, spec.max_batch, spec.max_batch_wait_s
        )

    def encode(self, features: ctranslate2.StorageView, to_cpu: bool = False) -> _Window:
        return _Window(features)

    def generate(self, window: _Window, prompts: list[list[int]], **options: Any) -> list[Any]:
        self._jobs.rest()
        (prompt,) = prompts
        call = _Call("generate", tuple(options.items()), prompt_tokens=len(prompt))
        return [self._batcher(call, (window, prompt))]

    def _align(
        self, window: _Window, start_sequence: list[int], tokens: list[list[int]], num_frames: int, **options: Any
    ) -> list[Any]:
        (of_window,) = tokens
        call = _Call("align", tuple(options.items()), start_sequence=tuple(start_sequence))
        return [self._batcher(call, (window, (of_window, num_frames)))]

    def detect_language(self, window: _Window) -> list[Any]:
        return [self._batcher(_Call("detect_language"), (window, None))]

    def _compute(self, call: _Call, items: Sequence[tuple[_Window, Any]]) -> list[Any]:
        encoded = self._encoded([window for window, _ in items])
        of_windows = [of_window for _, of_window in items]
        made: list[Any]
        match call.method:
            case "generate":
                made = self._model.generate(encoded, of_windows, **dict(call.options))
            case "align":
                tokens, frames = zip(*of_windows, strict=True)
                start = list(call.start_sequence)
                made = self._model.align(encoded, start, list(tokens), list(frames), **dict(call.options))
            case _:
                made = self._model.detect_language(encoded)
        return made

    def _encoded(self, windows: Sequence[_Window]) -> ctranslate2.StorageView:
        from ctranslate2 import DataType, StorageView

        missing = [window for window in windows if window.encoded is None]
        # A GPU is faster with many at once; a CPU, with its caches, is slower by a tenth.
        together = missing and self._model.device == "cuda"
        for group in [missing] if together else [[window] for window in missing]:
            features = np.concatenate([np.array(window.features) for window in group])
            encoded = self._model.encode(StorageView.from_array(features), to_cpu=True)
            if encoded.dtype != DataType.float32:  # numpy has no bfloat16
                encoded = encoded.to(DataType.float32)
            for window, made in zip(group, np.array(encoded), strict=True):
                window.encoded = made
        return StorageView.from_array(np.array([window.encoded for window in windows]))


def _stretches(audio: Audio) -> Iterator[tuple[int, Speech]]:
    """Consecutive stretches of `audio`, each as its first sample and the speech in it, relative to that.

    A stretch ends between two parts of speech, never inside a word if there is any pause.
    """
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    options = VadOptions(max_speech_duration_s=_LONGEST_SPEECH_S)
    begin = 0
    while audio.size - begin >= _SHORTEST_SAMPLES:
        stretch = audio[begin : begin + _STRETCH_SAMPLES]
        end = stretch.size
        speech: Speech = get_speech_timestamps(stretch, options)
        if begin + end < audio.size and len(speech) > 1 and speech[-1]["end"] == end:
            end = speech.pop()["start"]  # goes on behind the border: left to the next stretch
        yield begin, speech
        begin += end


def _segment(
    found: faster_whisper.transcribe.Segment, job: int, offset_s: float, earliest_s: float, latest_s: float
) -> Segment:
    """`found`, which counts from `offset_s`, with ascending times between `earliest_s` and `latest_s`."""

    def time_s(time: float, earliest: float) -> float:
        return round(min(max(_finite(offset_s + time), earliest), latest_s), 3)

    start = time_s(found.start, earliest_s)
    words: list[Word] = []
    for word in found.words or ():
        begin = time_s(word.start, words[-1].end if words else start)
        words.append(Word(word.word, begin, time_s(word.end, begin), _finite(word.probability)))
    return Segment(
        job,
        start,
        max(time_s(found.end, start), words[-1].end if words else start),
        found.text,
        tokens=found.tokens,
        temperature=float(found.temperature or 0.0),
        avg_logprob=_finite(found.avg_logprob),
        compression_ratio=_finite(found.compression_ratio),
        no_speech_prob=_finite(found.no_speech_prob),
        seek=found.seek + round(offset_s * 100),
        words=words,
    )


def _bytes_of(token: str) -> bytes:
    """The text of a token from the vocabulary, which may be part of a character."""
    return bytes(_BYTES[character] for character in token)


def _finite(number: float) -> float:
    """JSON knows no NaN; Whisper has one for a window without tokens."""
    return float(number) if math.isfinite(number) else 0.0
