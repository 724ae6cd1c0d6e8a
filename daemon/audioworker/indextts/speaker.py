"""The jobs of both engines of IndexTTS: what is needed when on the device, how a speech is made of its parts, what is
kept of voices.

Knows neither of the two models: what a phase computes is phases.py's, how a text is cut front.py's, moving weights
device.py's, and which of each it is the engine says.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from audioproto.errors import BadAudio, BadRequest, UnspeakableText, VoiceNotFound
from audioproto.types import EMOTIONS, EngineSpec
from audioproto.worker import Emotion, Phase, Recording, Sampling, Synthesize
from audioworker import device, encodings, engine, loudness, text
from audioworker.engine import Audio, Cancelled, Recordings
from audioworker.indextts import checkpoint, emotions, phases
from audioworker.indextts.checkpoint import Checkpoint
from audioworker.indextts.phases import Phases, Voice
from audioworker.jobs import Aborted

if TYPE_CHECKING:
    import torch

_OPTIONS: dict[str, Any] = {
    "dtype": "auto",
    "part_tokens": 120,
    "beams": 3,
    "diffusion_steps": 25,
    "guidance": 0.7,
    "compile": False,
}
"""From `part_tokens` on the libraries' own values."""

_RANGES: dict[str, tuple[float, float]] = {
    "part_tokens": (20, 300), "beams": (1, 10), "diffusion_steps": (1, 100), "guidance": (0, 3)
}  # fmt: skip

_SHORTEST_REFERENCE_S, _LONGEST_REFERENCE_S = 0.5, 15.0
"""Of a recording the libraries hear the latter; of less than 0.1 s they make nothing."""

_CONTEXT_BYTES, _WORKING_BYTES = 300 * 2**20, 600 * 2**20
"""Device memory that is no weight: CUDA's own, and what half a minute of speech takes in the vocoder. What the language
model remembers may be more."""

_SILENT = 10 ** (-50 / 20)
"""Of full scale: nobody speaks in what is never louder."""

_TRIES = 2
"""How often a part is written whose codes have no end."""

_PAUSE_S = 0.2


class Speaker(engine.Engine, engine.Synthesizer):
    """`model_dir` holds the model and the others that it needs, as the authors' own program has them on disk.

    With `memory_bytes` it is staged: what fits beside the computation stays on the device, the rest comes when its
    phase begins.

    Options: `dtype` ("auto": float16, or bfloat16 of IndexTTS-2.5, for language models on a GPU, float32 on a CPU; or
    one of these), `part_tokens` (120; 20 to 300: tokens of text that are spoken in one go), `beams` (3; 1 is faster),
    `diffusion_steps` (25; fewer are faster), `guidance` (0.7; 0 halves the time of the diffusion), `compile` (false;
    true compiles the diffusion model, which the first request waits for).

    It has no voices of its own: each request brings a recording. Several threads may call `synthesize`; one phase of
    one job is computed at a time. A job that is given up ends at the next token or step, a paused one rests when its
    phase is over.
    """

    sample_rate: ClassVar[int] = checkpoint.MEL_RATE_HZ

    half: ClassVar[str]
    """The name of torch's type of 16 bits that its language models compute in."""

    codes_per_token: ClassVar[int]
    least_codes: ClassVar[int]
    """As many semantic codes are no speech any more: a token of text is said in 0.2 to 0.4 s."""

    encoding: ClassVar[str]
    """The version of what is kept of voices on disk, to be changed with what is computed of them."""

    _made: Checkpoint
    _phases: Phases[Any]

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        self._options = self._checked(spec)
        self._computing = threading.Lock()

    def prepare(self) -> None:
        self.progress("importing the library")
        device.prepare_torch()
        self.import_library()
        self.progress("reading the weights")
        self._made = self.read(self._dtype())
        loudness.import_library()

    def load(self) -> None:
        allocated_bytes = max(0, self.spec.memory_bytes - _CONTEXT_BYTES)
        target = device.open_device(self.spec.device, self.spec.threads, allocated_bytes)
        dtype = self._dtype()
        self._phases = self.phases(target, dtype if dtype.itemsize == 2 else None)
        self._device = target
        self._staging = device.Staging(device.Copier(target), self._room_bytes())
        for name, modules in self._made.parts().items():
            self._staging.add(name, *modules)
        self.progress("moving the weights")
        self._staging.fill()
        version = f"{self.encoding}, {dtype}, {self.fingerprint(Path(self.spec.model_dir))}"
        self._encodings = encodings.Encodings(self.spec.voices_dir, version)
        if self._options["compile"]:
            self._made.compile()
        # Of what is compiled, if it is: inside, the compiler would read the hook.
        self._made.s2mel.models["cfm"].estimator.register_forward_pre_hook(self._at_token)

    # --- of each model ------------------------------------------------------------------------------------------------

    @abstractmethod
    def import_library(self) -> None:
        """As `prepare` may: no thread, no device, no network."""

    @abstractmethod
    def read(self, dtype: torch.dtype) -> Checkpoint:
        """The checkpoint, with its language models in that type. Raises ModelNotInstalled and ConfigInvalid."""

    @abstractmethod
    def phases(self, target: torch.device, half: torch.dtype | None) -> Phases[Any]:
        """The computations with what was read, on that device; `half` as Phases has it."""

    @abstractmethod
    def fingerprint(self, where: Path) -> str:
        """Of the checkpoint in that directory, see checkpoint.fingerprint."""

    @abstractmethod
    def told(self, request: Synthesize, emotion: Emotion) -> list[float]:
        """The vector of an emotion that is told in words, or is to be read from the text. Raises BadRequest."""

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def warm(self) -> None:
        """A few codes in nobody's voice: kernels are chosen, memory pools made."""
        voice = self._phases.nobody()
        with self._phase(0, "warm", "shared", "language"):
            written = self._phases.write(
                [2, 3, 4], "en", voice, voice["emotion"], Sampling(), self._options["beams"], 8
            )
        if written[0].shape[1]:
            with self._phase(0, "warm", "shared", "diffusion"):
                mel = self._phases.draw(written, voice, 2, self._options["guidance"])
            with self._phase(0, "warm", "vocoder"):
                self._phases.sound(mel)

    def synthesize(self, request: Synthesize, recordings: Recordings, cancelled: Cancelled) -> Iterator[Audio]:
        if text.only_punctuation(request.text):
            yield _silence(_PAUSE_S)
            return
        front = self._made.front
        language = front.language(request.language, request.text)
        parts = front.parts(request.text, language, self._options["part_tokens"])
        if (first := next(parts, None)) is None:
            raise UnspeakableText(
                f"{self.spec.model} speaks {front.spoken} and finds nothing to say in this text",
                hint="audioctl models lists the languages of each model",
                param="input",
            )
        voice = self._voice(request, recordings)
        emotion = self._emotion(request, voice, recordings)
        seed = int.from_bytes(os.urandom(4)) if request.sampling.seed is None else request.sampling.seed
        pause = _silence(_PAUSE_S if request.pause_s is None else request.pause_s)
        level = loudness.Level(self.sample_rate)
        begun = False
        for number, (ids, count) in enumerate(itertools.chain([first], parts), 1):
            audio = self._speak(request, ids, language, voice, emotion, seed, (number, count))
            if audio.size:
                if begun and pause.size:
                    yield pause
                yield level.even(audio)
                begun = True
            self.jobs.rest()

    def _speak(
        self,
        request: Synthesize,
        ids: list[int],
        language: str,
        voice: Voice,
        emotion: torch.Tensor,
        seed: int,
        place: tuple[int, int],
    ) -> Audio:
        options, sampling = self._options, request.sampling
        most = min(self.least_codes + self.codes_per_token * len(ids), self._phases.most_codes)
        for attempt in range(1 if phases.greedy(sampling) else _TRIES):
            with self._phase(request.job, "autoregression", "shared", "language", place=place):
                phases.seed(seed, place[0], attempt)
                written = self._phases.write(ids, language, voice, emotion, sampling, options["beams"], most)
            count = written[0].shape[1]
            if count < most:
                break
            print(f"{len(ids)} tokens of text made {count} codes and no end, in try {attempt + 1}", file=sys.stderr)
        if not count:
            return _silence(0.0)
        with self._phase(request.job, "s2mel", "shared", "diffusion", place=place):
            phases.seed(seed, place[0], _TRIES)
            mel = self._phases.draw(written, voice, options["diffusion_steps"], options["guidance"], 1 / request.speed)
        with self._phase(request.job, "vocoder", "vocoder", place=place):
            return self._phases.sound(mel)

    # --- voices and emotions ------------------------------------------------------------------------------------------

    def _voice(self, request: Synthesize, recordings: Recordings) -> Voice:
        if request.reference is None:
            raise VoiceNotFound(
                f"{self.spec.model} has no voices of its own; it speaks with a stored voice, or as in a recording",
                hint="audioctl voices add NAME FILE --consent FILE --language TAG",
                param="voice",
            )
        recording, name = request.reference.recording, request.reference.voice
        voice = self._encoded(request.job, recordings(recording), recording, name, "voice")
        return {name: tensor.to(self._device) for name, tensor in voice.items()}

    def _encoded(self, job: int, audio: Audio, recording: Recording, voice: str, param: str) -> Voice:
        """What is known of the voice in a recording; of a stored `voice` it is computed once."""
        if audio.size < _SHORTEST_REFERENCE_S * recording.rate_hz:
            raise BadAudio(f"the recording is shorter than {_SHORTEST_REFERENCE_S:g} s", param=param)
        audio = audio[: round(_LONGEST_REFERENCE_S * recording.rate_hz)]
        if np.abs(audio).max() < _SILENT:
            raise BadAudio(f"the first {_LONGEST_REFERENCE_S:g} s of the recording are silent", param=param)
        digest = encodings.digest(audio, recording.rate_hz)
        found = self._encodings.get(digest, voice)
        if found is None:
            with self._phase(job, "reference", "shared", "encoders"):
                found = self._phases.encode(audio, recording.rate_hz)
            self._encodings.put(digest, voice, found)
        return found

    def _emotion(self, request: Synthesize, voice: Voice, recordings: Recordings) -> torch.Tensor:
        """What the language model is told of the emotion; shape [1, width]."""
        asked, own = request.emotion, voice["emotion"]
        if asked is None:
            return own
        if asked.recording is not None:
            heard = self._encoded(request.job, recordings(asked.recording), asked.recording, "", "emotion")
            return own + asked.alpha * (heard["emotion"].to(self._device) - own)
        if asked.vector:
            if len(asked.vector) != len(EMOTIONS):
                raise BadRequest(f"an emotion vector has {len(EMOTIONS)} values", param="emotion")
            vector = emotions.natural(asked.vector)
        else:
            vector = self.told(request, asked)
        return self._phases.mix([asked.alpha * value for value in vector], voice)

    # --- phases -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _phase(self, job: int, name: str, *parts: str, place: tuple[int, int] = (0, 0)) -> Iterator[None]:
        """A phase of a job, 0 for none, computed inside with these parts on the device. Raises Aborted."""
        import torch

        self.jobs.rest()
        with self._computing, torch.inference_mode():
            self._at_token()
            with device.measured(self._device) as moved:
                came_bytes = self._staging.need(*parts)
            with device.measured(self._device) as took:
                yield
        if job and came_bytes:
            self.on_phase(Phase(job, "transfer", moved.seconds, *place))
        if job:
            self.on_phase(Phase(job, name, took.seconds, *place, took.peak_bytes))

    def _at_token(self, *_: object) -> None:
        """Called before each token and each step of diffusion."""
        if self.jobs.mine is not None and self.jobs.mine.aborted:
            raise Aborted

    # --- options ------------------------------------------------------------------------------------------------------

    def _dtype(self) -> torch.dtype:
        import torch

        chosen = self._options["dtype"]
        if chosen == "auto":
            chosen = "float32" if self.spec.device == "cpu" else self.half
        return getattr(torch, chosen)

    def _room_bytes(self) -> int | None:
        if not self.spec.memory_bytes:
            return None
        working_bytes = max(_WORKING_BYTES, self._phases.cache_bytes(self._options["beams"]))
        return max(0, self.spec.memory_bytes - _CONTEXT_BYTES - working_bytes)

    def _checked(self, spec: EngineSpec) -> dict[str, Any]:
        """The options with the entry's. Raises BadRequest."""
        for name in spec.options:
            if name not in _OPTIONS:
                known = ", ".join(_OPTIONS)
                raise BadRequest(f"{spec.model}: the engine {spec.engine} has no option {name!r}, only {known}")
        chosen = _OPTIONS | spec.options
        if chosen["dtype"] not in (types := ("auto", self.half, "float32")):
            raise BadRequest(f"{spec.model}: dtype must be one of {', '.join(types)}")
        for name, (low, high) in _RANGES.items():
            kinds = (int, float) if isinstance(_OPTIONS[name], float) else (int,)
            if type(chosen[name]) not in kinds or not low <= chosen[name] <= high:
                raise BadRequest(f"{spec.model}: {name} must be a number from {low:g} to {high:g}")
        if chosen["dtype"] == self.half and spec.device == "cpu":
            raise BadRequest(f"{spec.model}: {self.half} needs a GPU", hint='dtype = "auto"')
        if type(chosen["compile"]) is not bool:
            raise BadRequest(f"{spec.model}: compile must be true or false")
        return chosen


def _silence(duration_s: float) -> Audio:
    return np.zeros(round(duration_s * checkpoint.MEL_RATE_HZ), np.float32)
