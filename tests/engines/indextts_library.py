"""Run in the runtime of indextts by a test or the bench: the library's own program, on a checkpoint and samples.

    indextts_library.py DIRECTORY REFERENCE.npy OUT CALLS

speaks each of CALLS, a JSON list of `{"text", "seed", ...}`, by `IndexTTS2.infer` and by our phases, and writes
`OUT/<number>.library.npy` and `OUT/<number>.ours.npy`, of float32, and prints the seconds that each took.

The program is given what it would otherwise fetch, and stand-ins for what the runtime leaves out; what it computes is
its own. Where it draws random numbers it is seeded as our engine is.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from audioproto.types import EngineSpec
from audioproto.worker import Emotion, Recording, Reference, Sampling, Synthesize
from audioworker import device, engine
from audioworker.indextts import checkpoint, checkpoint2, front, phases

RATE_HZ = checkpoint.MEL_RATE_HZ
Samples = npt.NDArray[np.float32]

Speak = Callable[[str, int, dict[str, Any]], Samples]
"""Speaks a text with a seed, as the library does with more arguments."""


def library(directory: Path, recordings: dict[str, Samples]) -> Any:
    """`IndexTTS2` as it is, with `recordings` in place of files."""
    import indextts.emotion
    import indextts.infer_v2 as program
    import indextts.utils.maskgct_utils as semantic
    import torch
    import yaml
    from munch import munchify

    def load(path: str, sr: int = RATE_HZ) -> tuple[Samples, int]:
        return phases.resampled(recordings[path], RATE_HZ, sr), sr

    def resample(rate_hz: int, wanted_hz: int) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda audio: torch.from_numpy(phases.resampled(audio[0].numpy(), rate_hz, wanted_hz))[None]

    def fbank(audio: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.from_numpy(phases.filter_banks(audio[0].numpy()))

    def open_config(path: str) -> Any:
        config = munchify(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
        config.vocoder.name = str(directory / "hf_cache/bigvgan")
        return config

    def local(kind: Any) -> Any:
        w2v = directory / "hf_cache/w2v-bert-2.0"
        return SimpleNamespace(from_pretrained=lambda name: kind.from_pretrained(w2v))

    downloads = {"amphion/MaskGCT": "semantic_codec_model.safetensors", "funasr/campplus": "campplus_cn_common.bin"}
    program.librosa = SimpleNamespace(load=load)
    program.torchaudio = SimpleNamespace(
        transforms=SimpleNamespace(Resample=resample),
        compliance=SimpleNamespace(kaldi=SimpleNamespace(fbank=fbank)),
    )
    program.OmegaConf = SimpleNamespace(load=open_config)
    program.hf_hub_download = lambda repo, filename: str(directory / "hf_cache" / downloads[repo])
    program.SeamlessM4TFeatureExtractor = local(program.SeamlessM4TFeatureExtractor)
    semantic.Wav2Vec2BertModel = local(semantic.Wav2Vec2BertModel)
    causal = indextts.emotion.AutoModelForCausalLM
    indextts.emotion.AutoModelForCausalLM = SimpleNamespace(
        # Without `device_map`, which needs accelerate.
        from_pretrained=lambda path, **_: causal.from_pretrained(path, dtype=torch.float32)
    )
    program.TextNormalizer._get_nemo_normalizer = lambda self, lang: front.Reader(lang)
    writer = program.UnifiedVoice.post_init_gpt2_config

    def with_mask(self: Any, **arguments: Any) -> None:
        """transformers from 5.18 on leaves out a mask that masks nothing, which the library does not expect."""
        writer(self, **arguments)
        prepare = self.inference_model.prepare_inputs_for_generation

        def prepare_inputs_for_generation(input_ids: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
            if kwargs.get("attention_mask") is None:
                kwargs["attention_mask"] = torch.ones_like(input_ids)
            return prepare(input_ids, past_key_values=past_key_values, **kwargs)

        self.inference_model.prepare_inputs_for_generation = prepare_inputs_for_generation

    program.UnifiedVoice.post_init_gpt2_config = with_mask
    return program.IndexTTS2(model_dir=str(directory), device="cpu")


def seeded(call: Callable[..., Any], seed: int, draw: int) -> Callable[..., Any]:
    """`call`, drawing as our engine does for the first part of a text."""

    def with_seed(*arguments: Any, **named: Any) -> Any:
        phases.seed(seed, 1, draw)
        return call(*arguments, **named)

    return with_seed


def compare(engine_name: str, make: Callable[[Path, dict[str, Samples]], Speak], full_scale: float = 1.0) -> None:
    """Speak all calls by the library's program, which `make` makes, and by the engine of that name.

    `full_scale` is the library's for the loudest sample.
    """
    directory, reference, out = Path(sys.argv[1]), np.load(sys.argv[2]).astype(np.float32), Path(sys.argv[3])
    recordings = {name: samples for name, samples in (("voice", reference), ("emotion", reference[::-1].copy()))}
    joined = np.concatenate(list(recordings.values()))
    ours: Any = engine.find(engine_name)(EngineSpec(engine_name, "tiny", str(directory)))
    ours.prepare()
    ours.load()
    speak = make(directory, recordings)
    took: list[dict[str, float]] = []
    for number, call in enumerate(json.loads(sys.argv[4])):
        text, seed, emotion = call["text"], call["seed"], call.get("emotion")
        began = time.monotonic()
        spoken = speak(text, seed, call.get("library", {}))
        library_s = time.monotonic() - began
        request = Synthesize(
            0,
            text,
            speed=call.get("speed", 1.0),
            reference=Reference(Recording(reference.size, RATE_HZ)),
            emotion=None if emotion is None else read_emotion(emotion, reference.size),
            sampling=Sampling(seed=seed),
        )
        began = time.monotonic()
        said = list(ours.synthesize(request, lambda one: joined[one.begin : one.begin + one.samples], lambda: False))
        took.append({"library_s": library_s, "ours_s": time.monotonic() - began})
        np.save(out / f"{number}.library.npy", spoken)
        np.save(out / f"{number}.ours.npy", np.concatenate(said) * np.float32(full_scale))
    print(json.dumps(took))


def of_two(directory: Path, recordings: dict[str, Samples]) -> Speak:
    tts = library(directory, recordings)
    write, draw = tts.gpt.inference_speech, tts.s2mel.models["cfm"].inference

    def speak(text: str, seed: int, more: dict[str, Any]) -> Samples:
        tts.gpt.inference_speech = seeded(write, seed, 0)
        tts.s2mel.models["cfm"].inference = seeded(draw, seed, 2)
        # As a stream, which is not yet rounded to 16 bits; after each part comes a pause, even after the last.
        spoken = list(tts.infer("voice", text, None, stream_return=True, **more))[:-1]
        return np.concatenate([part.numpy().ravel() for part in spoken])

    return speak


def read_emotion(asked: dict[str, Any], samples: int) -> Emotion:
    recording = Recording(samples, RATE_HZ, begin=samples) if asked.pop("recording", False) else None
    return Emotion(recording, **asked)


if __name__ == "__main__":
    device.prepare_torch()
    checkpoint2.import_library()
    compare("indextts2", of_two)
