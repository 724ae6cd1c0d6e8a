"""indextts2: IndexTTS2, a voice from a few seconds of anybody's, and emotions apart from it. Chinese and English.

Owns the jobs: which phase needs what on the device, how a text is cut, what is kept of voices. What a phase computes is
audioworker/indextts's, moving weights device.py's.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from audioproto.errors import BadAudio, BadRequest, UnspeakableText, VoiceNotFound
from audioproto.sentences import sentences
from audioproto.types import EMOTIONS, EngineSpec, Hold
from audioproto.worker import Phase, Recording, Sampling, Synthesize
from audioworker import device, encodings, engine, text
from audioworker.engine import Audio, Cancelled, Recordings
from audioworker.indextts import checkpoint, emotions, phases
from audioworker.indextts.phases import Phases, Voice
from audioworker.jobs import Aborted
from audioworker.loudness import Level

if TYPE_CHECKING:
    import torch

_OPTIONS: dict[str, Any] = {
    "staging": "auto",
    "dtype": "auto",
    "part_tokens": 120,
    "beams": 3,
    "diffusion_steps": 25,
    "guidance": 0.7,
    "compile": False,
}
"""From `part_tokens` on the library's own values."""

_CHOICES = {"staging": ("auto", "off", "full"), "dtype": ("auto", "float16", "float32")}
_RANGES: dict[str, tuple[float, float]] = {
    "part_tokens": (20, 300), "beams": (1, 10), "diffusion_steps": (1, 100), "guidance": (0, 3)
}  # fmt: skip

_VERSION = "indextts2 1"
"""Of what is kept of voices on disk, to be changed with what is computed of them."""

_SHORTEST_REFERENCE_S, _LONGEST_REFERENCE_S = 0.5, 15.0
"""Of a recording the library hears the latter; of less than 0.1 s it makes nothing."""

_CONTEXT_BYTES, _WORKING_BYTES = 300 * 2**20, 800 * 2**20
"""Device memory that is no weight: CUDA's own, and the most that a phase computes with: the language model's cache of
three beams, or half a minute in the vocoder."""

_FIRST_TOKENS = 40
"""Of the first part, which somebody waits for: some ten seconds of speech, where whole sentences may have thirty."""

_CODES_PER_TOKEN, _LEAST_CODES = 40, 150
"""As many codes of 20 ms are no speech any more: a token of text is said in 0.2 to 0.4 s."""

_TRIES = 2
"""How often a part is written whose codes have no end."""

_PAUSE_S = 0.2
_MOST_DESCRIPTION = 1000


class Engine(engine.Engine, engine.Synthesizer):
    """`model_dir` holds IndexTTS-2 and the four models that it needs, as the authors' own program has them on disk.

    Options: `staging` ("auto": what fits the model's share of the device stays there, the rest comes when its phase
    begins; "off": everything stays; "full": only what a phase needs is there), `dtype` ("auto": float16 for the
    language models on a GPU, float32 on a CPU; or one of these), `part_tokens` (120; 20 to 300: tokens of text that
    are spoken in one go), `beams` (3; 1 is faster), `diffusion_steps` (25; fewer are faster), `guidance` (0.7; 0 halves
    the time of the diffusion), `compile` (false; true compiles the diffusion model, which the first request waits for).

    It has no voices of its own: each request brings a recording. Several threads may call `synthesize`; one phase of
    one job is computed at a time. A job that is given up ends at the next token or step, a paused one rests when its
    phase is over.
    """

    hold: ClassVar[Hold] = Hold.WEIGHTS
    sample_rate: ClassVar[int] = checkpoint.MEL_RATE_HZ

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        self._options = _checked(spec)
        self._computing = threading.Lock()

    def prepare(self) -> None:
        self.progress("importing indextts")
        device.prepare_torch()
        checkpoint.import_library()
        self.progress("reading the weights")
        self._made = checkpoint.read(self.spec, self._dtype())
        self._made.s2mel.models["cfm"].estimator.register_forward_pre_hook(self._at_token)

    def load(self) -> None:
        made, gpt, networks = self._made, self._made.gpt, self._made.s2mel.models
        allocated_bytes = max(0, self.spec.memory_bytes - _CONTEXT_BYTES)
        target = device.open_device(self.spec.device, self.spec.threads, allocated_bytes)
        self._phases = Phases(made, target, self._at_token, half=gpt.mel_head.weight.element_size() == 2)
        self._device = target
        self._staging = device.Staging(device.Copier(target), self._room_bytes())
        self._staging.add("emotion", made.emotion_model)
        self._staging.add(
            "encoders", made.w2v, made.codec.encoder, made.style, gpt.conditioning_encoder, gpt.perceiver_encoder,
            gpt.emo_conditioning_encoder, gpt.emo_perceiver_encoder, gpt.emovec_layer, gpt.emo_layer,
        )  # fmt: skip
        self._staging.add("vocoder", made.vocoder)
        self._staging.add("diffusion", networks["cfm"])
        self._staging.add(
            "language", gpt.gpt, gpt.text_embedding, gpt.text_pos_embedding, gpt.mel_embedding, gpt.mel_pos_embedding,
            gpt.final_norm, gpt.mel_head, gpt.speed_emb,
        )  # fmt: skip
        self._staging.add("shared", made.codec.quantizer, networks["length_regulator"], networks["gpt_layer"])
        self.progress("moving the weights")
        self._staging.fill()
        version = f"{_VERSION}, {self._dtype()}, {checkpoint.fingerprint(Path(self.spec.model_dir))}"
        self._encodings = encodings.Encodings(self.spec.voices_dir, version)
        if self._options["compile"]:
            made.s2mel.enable_torch_compile()

    def _dtype(self) -> torch.dtype:
        import torch

        chosen = self._options["dtype"]
        if chosen == "auto":
            chosen = "float32" if self.spec.device == "cpu" else "float16"
        return getattr(torch, chosen)

    def _room_bytes(self) -> int | None:
        match self._options["staging"]:
            case "full":
                return 0
            case "auto" if self.spec.memory_bytes:
                return max(0, self.spec.memory_bytes - _CONTEXT_BYTES - _WORKING_BYTES)
            case _:
                return None

    def warm(self) -> None:
        """A few codes in nobody's voice: kernels are chosen, memory pools made."""
        voice, ids = self._phases.nobody(), [0, 1, 2]
        with self._phase(0, "warm", "shared", "language"):
            _, hidden = self._phases.write(ids, voice, voice["emotion"], Sampling(), self._options["beams"], 8)
        if hidden.shape[1]:
            with self._phase(0, "warm", "shared", "diffusion"):
                codes = hidden.new_zeros(hidden.shape[:2]).long()
                mel = self._phases.draw(codes, hidden, voice, 2, self._options["guidance"])
            with self._phase(0, "warm", "vocoder"):
                self._phases.sound(mel)

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def synthesize(self, request: Synthesize, recordings: Recordings, cancelled: Cancelled) -> Iterator[Audio]:
        if text.only_punctuation(request.text):
            yield _silence(_PAUSE_S)
            return
        parts = list(self._parts(request.text))
        if not parts:
            raise UnspeakableText(
                f"{self.spec.model} speaks Chinese and English and finds nothing to say in this text",
                hint="audioctl models lists the languages of each model",
                param="input",
            )
        voice = self._voice(request, recordings)
        emotion = self._emotion(request, voice, recordings)
        seed = int.from_bytes(os.urandom(4)) if request.sampling.seed is None else request.sampling.seed
        pause = _silence(_PAUSE_S if request.pause_s is None else request.pause_s)
        level = Level(self.sample_rate)
        for number, ids in enumerate(parts, 1):
            place = (number, len(parts))
            audio = self._speak(request.job, ids, voice, emotion, request.sampling, seed, place)
            if audio.size:
                yield level.even(audio)
                if number < len(parts) and pause.size:
                    yield pause

    def _parts(self, written: str) -> Iterator[list[int]]:
        """The text as tokens, in parts that are spoken in one go. The first is short, so that it is heard soon.

        A part ends where a sentence does, unless one is too long. What has no sound is left out.
        """
        most, part, begun = self._options["part_tokens"], list[int](), False
        for sentence in sentences(text.clean(written)):
            for ids in text.encoded(sentence, self._made.encode, most if part or begun else min(most, _FIRST_TOKENS)):
                if self._made.silent.issuperset(ids):
                    continue
                if part and (not begun or len(part) + len(ids) > most):
                    yield part
                    part, begun = [], True
                part = part + ids
        if part:
            yield part

    def _speak(
        self,
        job: int,
        ids: list[int],
        voice: Voice,
        emotion: torch.Tensor,
        sampling: Sampling,
        seed: int,
        place: tuple[int, int],
    ) -> Audio:
        most = _LEAST_CODES + _CODES_PER_TOKEN * len(ids)
        for attempt in range(_TRIES):
            with self._phase(job, "autoregression", "shared", "language", place=place):
                phases.seed(seed, place[0], attempt)
                codes, hidden = self._phases.write(ids, voice, emotion, sampling, self._options["beams"], most)
            if codes.shape[1] < most:
                break
            print(
                f"{len(ids)} tokens of text made {codes.shape[1]} codes and no end, in try {attempt + 1}",
                file=sys.stderr,
            )
        if not codes.shape[1]:
            return _silence(0.0)
        with self._phase(job, "s2mel", "shared", "diffusion", place=place):
            phases.seed(seed, place[0], _TRIES)
            mel = self._phases.draw(codes, hidden, voice, self._options["diffusion_steps"], self._options["guidance"])
        with self._phase(job, "vocoder", "vocoder", place=place):
            return self._phases.sound(mel)

    # --- voices and emotions ------------------------------------------------------------------------------------------

    def _voice(self, request: Synthesize, recordings: Recordings) -> Voice:
        if request.reference is None:
            raise VoiceNotFound(
                f"{self.spec.model} has no voices of its own; it speaks with a stored voice, or as in a recording",
                hint="audioctl voices add NAME FILE",
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
        digest = encodings.digest(audio)
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
            described = (asked.text or request.text)[:_MOST_DESCRIPTION]
            with self._phase(request.job, "emotion", "emotion"):
                vector = emotions.parse(self._phases.describe(described), described)
        return self._phases.mix([asked.alpha * value for value in vector], voice)

    # --- phases -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _phase(self, job: int, name: str, *parts: str, place: tuple[int, int] = (0, 0)) -> Iterator[None]:
        """A phase of a job, 0 for none, computed inside with these parts on the device. Raises Aborted."""
        import torch

        self.jobs.rest()
        with self._computing, torch.inference_mode():
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


def _silence(duration_s: float) -> Audio:
    return np.zeros(round(duration_s * checkpoint.MEL_RATE_HZ), np.float32)


def _checked(spec: EngineSpec) -> dict[str, Any]:
    """The options with the entry's. Raises BadRequest."""
    for name in spec.options:
        if name not in _OPTIONS:
            raise BadRequest(f"{spec.model}: the engine indextts2 has no option {name!r}, only {', '.join(_OPTIONS)}")
    chosen = _OPTIONS | spec.options
    for name, possible in _CHOICES.items():
        if chosen[name] not in possible:
            raise BadRequest(f"{spec.model}: {name} must be one of {', '.join(possible)}")
    for name, (low, high) in _RANGES.items():
        kinds = (int, float) if isinstance(_OPTIONS[name], float) else (int,)
        if type(chosen[name]) not in kinds or not low <= chosen[name] <= high:
            raise BadRequest(f"{spec.model}: {name} must be a number from {low:g} to {high:g}")
    if chosen["dtype"] == "float16" and spec.device == "cpu":
        raise BadRequest(f"{spec.model}: float16 needs a GPU", hint='dtype = "auto"')
    if type(chosen["compile"]) is not bool:
        raise BadRequest(f"{spec.model}: compile must be true or false")
    return chosen
