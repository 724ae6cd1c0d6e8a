"""Run in the runtime of indextts by a test or the bench: IndexTTS-2.5's own program, on a checkpoint and samples.

Called as indextts_library.py is, and does the same; a call may also have a `speed`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from indextts_library import RATE_HZ, Samples, Speak, compare, seeded

from audioworker import device
from audioworker.indextts import checkpoint25, front, phases


def library(directory: Path, recordings: dict[str, Samples]) -> Any:
    """`IndexTTS2` of 2.5 as it is, with `recordings` in place of files."""
    import indextts25.infer_v2_5 as program
    import torch
    import yaml
    from munch import munchify

    def load(path: str, sr: int = RATE_HZ) -> tuple[Samples, int]:
        return phases.resampled(recordings[Path(path).name], RATE_HZ, sr), sr

    def resample(audio: torch.Tensor, rate_hz: int, wanted_hz: int) -> torch.Tensor:
        return torch.from_numpy(phases.resampled(audio[0].numpy(), rate_hz, wanted_hz))[None]

    def fbank(audio: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.from_numpy(phases.filter_banks(audio[0].numpy()))

    def read_aloud(normalizer: Any) -> bool:
        if normalizer.zh_normalizer is None:
            normalizer.zh_normalizer, normalizer.en_normalizer = front.Reader("zh"), front.Reader("en")
        return True

    program.librosa = SimpleNamespace(load=load)
    program.resample, program.kaldi_fbank = resample, fbank
    program.OmegaConf = SimpleNamespace(
        load=lambda path: munchify(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    )
    program.TextNormalizer.load = read_aloud
    return program.IndexTTS2(cfg_path=str(directory / "config.yaml"), model_dir=str(directory), device="cpu")


def of_two_and_a_half(directory: Path, recordings: dict[str, Samples]) -> Speak:
    tts = library(directory, recordings)
    voices = {name: Path(sys.argv[3], name) for name in recordings}
    for file in voices.values():  # it looks at their dates
        file.touch()
    write, draw = tts.gpt.inference_speech, tts.s2mel.models["cfm"].inference

    def speak(text: str, seed: int, more: dict[str, Any]) -> Samples:
        tts.gpt.inference_speech = seeded(write, seed, 0)
        tts.s2mel.models["cfm"].inference = seeded(draw, seed, 2)
        named = {key: str(voices[value]) if key == "emo_audio_prompt" else value for key, value in more.items()}
        spoken = list(tts.infer_generator(str(voices["voice"]), text, None, stream_return=True, **named))
        return np.concatenate([part.numpy().ravel() for part in spoken])

    return speak


if __name__ == "__main__":
    device.prepare_torch()
    checkpoint25.import_library()
    compare("indextts25", of_two_and_a_half, full_scale=32_767.0)
