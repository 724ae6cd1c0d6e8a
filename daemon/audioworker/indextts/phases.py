"""What each phase of IndexTTS2 and IndexTTS-2.5 computes, as far as it is the same: the arithmetic of the libraries'
`infer_generator`, cut where phases end.

Takes the networks as they are, wherever they are; bringing them to the device is the engine's. Parity with the
libraries is tested bit by bit. All tensors are on the device unless said otherwise.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from audioproto.errors import EngineFailed
from audioproto.worker import Sampling
from audioworker.engine import Audio
from audioworker.indextts.checkpoint import FEATURE_RATE_HZ, MEL_RATE_HZ, STYLE_MELS, STYLE_WIDTH, Checkpoint

if TYPE_CHECKING:
    import torch

Voice = dict[str, "torch.Tensor"]
"""What is known of a voice: `emotion` [1, width] for the language model, `style` [1, 192], `prompt` [1, frames,
channels] and `mel` [1, 80, frames] for the diffusion model, and what only one of the two models needs."""

Written = tuple["torch.Tensor", ...]
"""Semantic codes, [1, n], and what else the diffusion model is told of them."""

Made = TypeVar("Made", bound=Checkpoint)

_COLDEST, _LEAST_PENALTY = 0.01, 0.01
"""Of what may be asked for, what float32 can still compute with."""

_FEATURE_FRAMES = 1.72
"""Frames of the spectrogram in a semantic feature, of which there are 50 a second."""


class Phases(ABC, Generic[Made]):
    """The computations with the networks of `made`, on `device`. `at_token` is called before each token; it may raise.

    `half` is the type that the language model computes in, where that is not float32.
    """

    def __init__(
        self, made: Made, device: torch.device, at_token: Callable[[], None], half: torch.dtype | None
    ) -> None:
        self._made = made
        self._device = device
        self._half = half
        self._at_token = at_token
        self._mean, self._deviation = made.mean.to(device), made.deviation.to(device)

    @property
    def most_codes(self) -> int:
        """That the language model has places for."""
        most: int = self._made.gpt.max_mel_tokens - 1
        return most

    def cache_bytes(self, beams: int) -> int:
        """What the language model remembers of the longest speech."""
        gpt, width = self._made.gpt, 4 if self._half is None else 2
        places = gpt.max_mel_tokens + gpt.max_text_tokens + 64
        remembered: int = places * beams * gpt.layers * 2 * gpt.model_dim * width
        return remembered

    # --- reference ----------------------------------------------------------------------------------------------------

    def encode(self, recording: Audio, rate_hz: int) -> Voice:
        """What is known of the voice in a recording. Parts `shared` and `encoders`."""
        import torch

        made, spectrum = self._made, self._made.config.s2mel.preprocess_params.spect_params
        heard = resampled(recording, rate_hz, FEATURE_RATE_HZ)
        inputs = made.extract_features(heard, sampling_rate=FEATURE_RATE_HZ, return_tensors="pt").to(self._device)
        hidden = made.w2v(**inputs, output_hidden_states=True).hidden_states[-1]
        features = (hidden - self._mean) / self._deviation
        mel = import_module(f"{made.library}.s2mel.modules.audio").mel_spectrogram(
            torch.from_numpy(resampled(recording, rate_hz, MEL_RATE_HZ))[None].to(self._device),
            n_fft=spectrum.n_fft,
            num_mels=spectrum.n_mels,
            sampling_rate=MEL_RATE_HZ,
            hop_size=spectrum.hop_length,
            win_size=spectrum.win_length,
            fmin=spectrum.get("fmin", 0),
            fmax=None if spectrum.get("fmax", "None") == "None" else 8000,  # as the library reads it
        )
        prompt = self._stretched(self._content(features), mel.size(2))
        banks = torch.from_numpy(filter_banks(heard)).to(self._device)
        style = made.style((banks - banks.mean(dim=0, keepdim=True))[None])
        # The width, and not the number of frames: the library's own mistake, which masks nothing.
        length = torch.tensor([features.shape[-1]], device=self._device)
        with self._in_half():
            conditions = self._conditions(features, length)
        return {"style": style, "prompt": prompt, "mel": mel} | conditions

    @abstractmethod
    def _content(self, features: torch.Tensor) -> torch.Tensor:
        """What the diffusion model is told of the content of a recording."""

    def _conditions(self, features: torch.Tensor, length: torch.Tensor) -> Voice:
        """What the language model is told of the voice, but for `style`."""
        return {"emotion": self._made.gpt.get_emovec(features, length)}

    # --- emotion ------------------------------------------------------------------------------------------------------

    def mix(self, vector: list[float], voice: Voice) -> torch.Tensor:
        """The emotion of that vector, in the way of whom the voice resembles most; shape [1, width]."""
        import torch
        from torch.nn.functional import cosine_similarity

        style = voice["style"].cpu()
        nearest = [int(cosine_similarity(style, speakers, dim=1).argmax()) for speakers in self._made.speakers]
        vectors = torch.stack([found[index] for found, index in zip(self._made.emotions, nearest, strict=True)])
        weights = torch.tensor(vector)
        mixed = (weights.unsqueeze(1) * vectors).sum(0, keepdim=True)
        return mixed.to(self._device) + (1 - weights.sum().to(self._device)) * voice["emotion"]

    # --- speech -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def write(
        self,
        ids: list[int],
        language: str,
        voice: Voice,
        emotion: torch.Tensor,
        sampling: Sampling,
        beams: int,
        most: int,
    ) -> Written:
        """Semantic codes of a text, at most `most`, which is no more than `most_codes`. Parts `shared` and `language`.

        As many as `most` have no end.
        """

    def _choosing(self, sampling: Sampling, beams: int) -> dict[str, Any]:
        """How `generate` is to choose."""
        chance: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if not greedy(sampling):
            chance = {"do_sample": True, "temperature": _or(sampling.temperature, 0.8)}
            chance |= {"top_p": _or(sampling.top_p, 0.8), "top_k": _or(sampling.top_k, 30)}
        return chance | {
            "num_beams": beams,
            "length_penalty": 0.0,
            "repetition_penalty": max(_LEAST_PENALTY, _or(sampling.repetition_penalty, 10.0)),
            # No sound has the code that means the beginning: a hot draw may find it, and a GPU gives up for good.
            "suppress_tokens": [self._made.gpt.start_mel_token],
            "stopping_criteria": [self._watch],
        }

    def _ended(self, written: torch.Tensor) -> torch.Tensor:
        """The codes before the first that means the end; shape [1, n]."""
        ends = (written == self._made.gpt.stop_mel_token).nonzero()
        return written[: int(ends[0, 0]) if len(ends) else None].unsqueeze(0)

    def draw(self, written: Written, voice: Voice, steps: int, guidance: float, stretch: float = 1.0) -> torch.Tensor:
        """The spectrogram of the codes, [1, 80, frames], by diffusion from noise. Parts `shared` and `diffusion`.

        `stretch` is how long it lasts, where 1 is the model's own.
        """
        import torch

        content = self._meaning(*written)
        condition = self._stretched(content, int(content.shape[1] * _FEATURE_FRAMES * stretch))
        condition = torch.cat([voice["prompt"], condition], dim=1)
        length = torch.tensor([condition.size(1)], device=self._device)
        drawn = self._made.s2mel.models["cfm"].inference(
            condition, length, voice["mel"], voice["style"], None, steps, inference_cfg_rate=guidance
        )
        mel: torch.Tensor = drawn[:, :, voice["mel"].size(-1) :]
        return mel

    @abstractmethod
    def _meaning(self, *written: torch.Tensor) -> torch.Tensor:
        """What the diffusion model is told of codes, 50 a second: [1, n, width]."""

    @abstractmethod
    def _stretched(self, content: torch.Tensor, frames: int) -> torch.Tensor:
        """By the length regulator, [1, frames, channels]."""

    def sound(self, mel: torch.Tensor) -> Audio:
        """The waveform of a spectrogram, at MEL_RATE_HZ. Part `vocoder`."""
        audio: Audio = self._made.vocoder(mel.float()).flatten().clamp(-1.0, 1.0).cpu().numpy()
        if not np.isfinite(audio).all():
            raise EngineFailed("its networks gave no numbers for this speech", hint='options.dtype = "float32"')
        return audio

    def nobody(self) -> Voice:
        """A voice of the right shapes and of nobody, a second long, for warming up."""
        import torch

        return {name: torch.zeros(shape, device=self._device) for name, shape in self._shapes().items()}

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        s2mel = self._made.config.s2mel
        return {
            "emotion": (1, self._made.gpt.model_dim),
            "style": (1, STYLE_WIDTH),
            "prompt": (1, 86, s2mel.length_regulator.channels),
            "mel": (1, s2mel.preprocess_params.spect_params.n_mels, 86),
        }

    def _in_half(self) -> Any:
        import torch

        return torch.autocast(self._device.type, enabled=self._half is not None, dtype=self._half)

    def _watch(self, written: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        """Asked by `generate` after each token whether to end."""
        import torch

        self._at_token()
        return torch.zeros(written.shape[0], dtype=torch.bool, device=written.device)


def seed(number: int, part: int, draw: int) -> None:
    """What is drawn from here on follows from a request's seed, the part of the text, and the draw for that part."""
    import torch

    # torch's generator on the CPU takes 32 bits of it: they have to depend on all that is told apart.
    torch.manual_seed(int.from_bytes(hashlib.sha256(f"{number} {part} {draw}".encode()).digest()[:8]) >> 1)


def greedy(sampling: Sampling) -> bool:
    """Whether nothing is drawn, and a second try would come to the same."""
    return sampling.temperature is not None and sampling.temperature < _COLDEST


def resampled(audio: Audio, rate_hz: int, wanted_hz: int) -> Audio:
    """At another rate; what cannot be heard there is filtered out."""
    from scipy.signal import resample_poly

    if rate_hz == wanted_hz:
        return audio
    common = int(np.gcd(rate_hz, wanted_hz))
    new: Audio = resample_poly(audio, wanted_hz // common, rate_hz // common).astype(np.float32)
    return new


def filter_banks(heard: Audio) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """What CAM++ hears: Kaldi's log filter banks of 25 ms every 10 ms; shape [frames, STYLE_MELS]."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    filters = mel_filter_bank(
        257, STYLE_MELS, 20, FEATURE_RATE_HZ // 2, FEATURE_RATE_HZ,
        norm=None, mel_scale="kaldi", triangularize_in_mel_space=True,
    )  # fmt: skip
    banks = spectrogram(
        heard,
        window_function(400, "povey", periodic=False),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=filters,
        log_mel="log",
        mel_floor=float(np.finfo(np.float32).eps),
        remove_dc_offset=True,
    ).T
    return np.ascontiguousarray(banks, np.float32)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
