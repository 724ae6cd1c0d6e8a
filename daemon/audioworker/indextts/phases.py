"""What each phase of IndexTTS2 computes: the arithmetic of the library's `infer_generator`, cut where phases end.

Takes the networks as they are, wherever they are; bringing them to the device is the engine's. Parity with the library
is tested bit by bit. All tensors are on the device unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from audioproto.worker import Sampling
from audioworker.engine import Audio
from audioworker.indextts import emotions
from audioworker.indextts.checkpoint import FEATURE_RATE_HZ, MEL_RATE_HZ, STYLE_MELS, STYLE_WIDTH, Checkpoint

if TYPE_CHECKING:
    import torch

Voice = dict[str, "torch.Tensor"]
"""What is known of a voice: `speaker` [1, 32, width] and `emotion` [1, width] for the language model, `style` [1, 192],
`prompt` [1, frames, channels] and `mel` [1, 80, frames] for the diffusion model."""

_CODE_FRAMES = 1.72
"""Frames of the spectrogram in a code of 20 ms."""

_MOST_EMOTION_TOKENS = 200
"""Of the emotion model's answer, which is eight values in JSON."""


class Phases:
    """The computations with the networks of `made`, on `device`. `at_token` is called before each token; it may raise.

    `half`: the language model computes in float16.
    """

    def __init__(self, made: Checkpoint, device: torch.device, at_token: Callable[[], None], *, half: bool) -> None:
        self._made = made
        self._device = device
        self._half = half
        self._at_token = at_token
        self._mean, self._deviation = made.mean.to(device), made.deviation.to(device)
        self._writer = _writer(made)

    # --- reference ----------------------------------------------------------------------------------------------------

    def encode(self, recording: Audio, rate_hz: int) -> Voice:
        """What is known of the voice in a recording. Parts `shared` and `encoders`."""
        import torch
        from indextts.s2mel.modules.audio import mel_spectrogram

        made, spectrum = self._made, self._made.config.s2mel.preprocess_params.spect_params
        heard = resampled(recording, rate_hz, FEATURE_RATE_HZ)
        inputs = made.extract_features(heard, sampling_rate=FEATURE_RATE_HZ, return_tensors="pt").to(self._device)
        hidden = made.w2v(**inputs, output_hidden_states=True).hidden_states[-1]
        features = (hidden - self._mean) / self._deviation
        _, quantized = made.codec.quantize(features)
        mel = mel_spectrogram(
            torch.from_numpy(resampled(recording, rate_hz, MEL_RATE_HZ))[None].to(self._device),
            n_fft=spectrum.n_fft,
            num_mels=spectrum.n_mels,
            sampling_rate=MEL_RATE_HZ,
            hop_size=spectrum.hop_length,
            win_size=spectrum.win_length,
            fmin=spectrum.get("fmin", 0),
            fmax=None if spectrum.get("fmax", "None") == "None" else 8000,  # as the library reads it
        )
        frames = torch.tensor([mel.size(2)], device=self._device)
        prompt = made.s2mel.models["length_regulator"](quantized, ylens=frames, n_quantizers=3, f0=None)[0]
        banks = torch.from_numpy(filter_banks(heard)).to(self._device)
        style = made.style((banks - banks.mean(dim=0, keepdim=True))[None])
        # The width, and not the number of frames: the library's own mistake, which masks nothing.
        length = torch.tensor([features.shape[-1]], device=self._device)
        with self._in_half():
            speaker = made.gpt.get_conditioning(features.transpose(1, 2), length)
            emotion = made.gpt.get_emovec(features, length)
        return {"speaker": speaker, "emotion": emotion, "style": style, "prompt": prompt, "mel": mel}

    # --- emotion ------------------------------------------------------------------------------------------------------

    def describe(self, described: str) -> str:
        """The emotion model's answer about a text. Part `emotion`."""
        made = self._made
        asked = [{"role": "system", "content": emotions.PROMPT}, {"role": "user", "content": described}]
        prompt = made.emotion_tokenizer.apply_chat_template(
            asked, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        inputs = made.emotion_tokenizer([prompt], return_tensors="pt").to(self._device)
        written = made.emotion_model.generate(
            **inputs,
            max_new_tokens=_MOST_EMOTION_TOKENS,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=made.emotion_tokenizer.eos_token_id,
            stopping_criteria=[self._watch],
        )[0, inputs["input_ids"].shape[1] :]
        answer: str = made.emotion_tokenizer.decode(written, skip_special_tokens=True)
        return answer

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

    def write(
        self, ids: list[int], voice: Voice, emotion: torch.Tensor, sampling: Sampling, beams: int, most: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Semantic codes of a text, [1, n], at most `most`, and the hidden states behind them, [1, n, width].

        Parts `shared` and `language`. As many as `most` have no end.
        """
        import torch

        gpt = self._made.gpt
        words = torch.tensor([ids], dtype=torch.int32, device=self._device)
        zero = torch.zeros(1, dtype=torch.long, device=self._device)
        most = min(most, gpt.max_mel_tokens - 1)
        temperature = _or(sampling.temperature, 0.8)
        chance: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if temperature:
            chance = {"do_sample": True, "temperature": temperature}
            chance |= {"top_p": _or(sampling.top_p, 0.8), "top_k": _or(sampling.top_k, 30)}
        with self._in_half():
            durations = (gpt.speed_emb(zero + 1).unsqueeze(1), gpt.speed_emb(zero).unsqueeze(1))
            conditions = torch.cat((voice["speaker"] + emotion.unsqueeze(1), *durations), 1)
            prompt, embedded, mask = gpt.prepare_gpt_inputs(conditions, words)
            self._writer.store_mel_emb(embedded)
            written = self._writer.generate(
                prompt,
                bos_token_id=gpt.start_mel_token,
                pad_token_id=gpt.stop_mel_token,
                eos_token_id=gpt.stop_mel_token,
                attention_mask=mask,
                max_length=prompt.shape[1] + most,
                num_beams=beams,
                length_penalty=0.0,
                **chance,
                repetition_penalty=_or(sampling.repetition_penalty, 10.0),
                stopping_criteria=[self._watch],
            )[0, prompt.shape[1] :]
            ends = (written == gpt.stop_mel_token).nonzero()
            codes = written[: int(ends[0, 0]) if len(ends) else None].unsqueeze(0)
            hidden = gpt(
                voice["speaker"],
                words,
                zero + words.shape[1],
                codes,
                zero + codes.shape[1],
                None,
                emo_vec=emotion,
                use_speed=zero,
            )
        return codes, hidden.float()

    def draw(
        self, codes: torch.Tensor, hidden: torch.Tensor, voice: Voice, steps: int, guidance: float
    ) -> torch.Tensor:
        """The spectrogram of the codes, [1, 80, frames], by diffusion from noise. Parts `shared` and `diffusion`."""
        import torch

        networks = self._made.s2mel.models
        content = self._made.codec.quantizer.vq2emb(codes.unsqueeze(1)).transpose(1, 2)
        content = content + networks["gpt_layer"](hidden)
        frames = (torch.tensor([codes.shape[1]], device=self._device) * _CODE_FRAMES).long()
        condition = networks["length_regulator"](content, ylens=frames, n_quantizers=3, f0=None)[0]
        condition = torch.cat([voice["prompt"], condition], dim=1)
        length = torch.tensor([condition.size(1)], device=self._device)
        drawn = networks["cfm"].inference(
            condition, length, voice["mel"], voice["style"], None, steps, inference_cfg_rate=guidance
        )
        mel: torch.Tensor = drawn[:, :, voice["mel"].size(-1) :]
        return mel

    def sound(self, mel: torch.Tensor) -> Audio:
        """The waveform of a spectrogram, at MEL_RATE_HZ. Part `vocoder`."""
        audio: Audio = self._made.vocoder(mel.float()).flatten().clamp(-1.0, 1.0).cpu().numpy()
        return audio

    def nobody(self) -> Voice:
        """A voice of the right shapes and of nobody, a second long, for warming up."""
        import torch

        gpt, channels = self._made.gpt, self._made.config.s2mel.length_regulator.channels
        shapes = {
            "speaker": (1, gpt.cond_num, gpt.model_dim),
            "emotion": (1, gpt.model_dim),
            "style": (1, STYLE_WIDTH),
            "prompt": (1, 86, channels),
            "mel": (1, self._made.config.s2mel.preprocess_params.spect_params.n_mels, 86),
        }
        return {name: torch.zeros(shape, device=self._device) for name, shape in shapes.items()}

    def _in_half(self) -> Any:
        import torch

        return torch.autocast(self._device.type, enabled=self._half, dtype=torch.float16)

    def _watch(self, written: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        """Asked by `generate` after each token whether to end."""
        import torch

        self._at_token()
        return torch.zeros(written.shape[0], dtype=torch.bool, device=written.device)


def seed(number: int, part: int, draw: int) -> None:
    """What is drawn from here on follows from a request's seed, the part of the text, and the draw for that part."""
    import torch

    torch.manual_seed((number << 20 | part << 4 | draw) % 2**63)


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


def _writer(made: Checkpoint) -> Any:
    """The language model as transformers' `generate` wants it, made as the library does (post_init_gpt2_config)."""
    import torch
    from indextts.gpt.model_v2 import GPT2InferenceModel
    from transformers import GPT2Config

    gpt = made.gpt

    class Writer(GPT2InferenceModel):  # type: ignore[misc]
        # `generate` goes by the name of **kwargs; from transformers 5.18 on it leaves out a mask that masks nothing.
        def prepare_inputs_for_generation(self, input_ids: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
            if kwargs.get("attention_mask") is None:
                kwargs["attention_mask"] = torch.ones_like(input_ids)
            return super().prepare_inputs_for_generation(input_ids, past_key_values=past_key_values, **kwargs)

    config = GPT2Config(
        vocab_size=gpt.number_mel_codes,
        n_positions=gpt.max_mel_tokens + gpt.max_text_tokens + 2,
        n_embd=gpt.model_dim,
        n_layer=gpt.layers,
        n_head=gpt.heads,
        bos_token_id=gpt.start_mel_token,
        eos_token_id=gpt.stop_mel_token,
    )
    gpt.gpt.wte = gpt.mel_embedding
    return Writer(
        config, gpt.gpt, gpt.mel_pos_embedding, gpt.mel_embedding, gpt.final_norm, gpt.mel_head, kv_cache=True
    ).eval()


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
