"""IndexTTS2's networks out of a checkpoint: those that IndexTTS-2.5 has not. Nothing of how they are run.

Two packages have the same module `indextts`: `indextts2-inference`, which our runtime has, and the authors' own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioproto.types import EngineSpec
from audioworker.indextts import checkpoint
from audioworker.indextts.checkpoint import CONFIG, FILES, GPT, Checkpoint, Files
from audioworker.indextts.front2 import BPE, Front2

if TYPE_CHECKING:
    import torch

_LIBRARY = "indextts"

_UNUSED = (
    "librosa",
    "librosa.filters",
    "modelscope",
    "omegaconf",
    "torchaudio",
    "torchaudio.functional",
    "torchaudio.functional.functional",
)
"""What the library imports to read files, to resample and to read its configuration. torchaudio has no build for the
CPU, nor one for torch from 2.12 on; librosa brings a compiler and 200 MB."""

CODEC = "hf_cache/semantic_codec_model.safetensors"
_EMOTION_MODEL = "qwen0.6bemo4-merge"

NEEDED = (*FILES, BPE, CODEC, f"{_EMOTION_MODEL}/config.json", f"{_EMOTION_MODEL}/tokenizer_config.json")


def import_library() -> None:
    """Import `indextts`, in a way that leaves no thread behind and writes no progress bars into the log."""
    checkpoint.import_program("indextts.infer_v2", _UNUSED)
    from indextts.s2mel.modules import flow_matching

    flow_matching.tqdm = lambda steps: steps


@dataclass(kw_only=True)
class Checkpoint2(Checkpoint):
    """`codec` is MaskGCT's, without its decoder: the language model's hidden states take its place, by a layer in
    `s2mel`."""

    emotion_model: Any
    emotion_tokenizer: Any

    def parts(self) -> dict[str, list[Any]]:
        gpt, networks = self.gpt, self.s2mel.models
        return {
            "emotion": [self.emotion_model],
            "encoders": [
                self.w2v, self.codec.encoder, self.style, gpt.conditioning_encoder, gpt.perceiver_encoder,
                gpt.emo_conditioning_encoder, gpt.emo_perceiver_encoder, gpt.emovec_layer, gpt.emo_layer,
            ],
            "vocoder": [self.vocoder],
            "diffusion": [networks["cfm"]],
            "language": [
                gpt.gpt, gpt.text_embedding, gpt.text_pos_embedding, gpt.mel_embedding, gpt.mel_pos_embedding,
                gpt.final_norm, gpt.mel_head, gpt.speed_emb,
            ],
            "shared": [self.codec.quantizer, networks["length_regulator"], networks["gpt_layer"]],
        }  # fmt: skip

    def compile(self) -> None:
        self.s2mel.enable_torch_compile()


def read(spec: EngineSpec, dtype: torch.dtype) -> Checkpoint2:
    """The checkpoint in `spec.model_dir`. `dtype` is of the two language models; the others compute in float32.

    Raises ModelNotInstalled where a part is missing or cut off, and ConfigInvalid where it is another model's.
    """
    from transformers.initialization import no_init_weights

    files = Files(spec, "IndexTTS2", NEEDED)
    with files.reading(CONFIG) as file:
        config = checkpoint.configuration(file)
    with no_init_weights():
        with files.reading(GPT) as file:
            gpt = _gpt(config, checkpoint.tensors_in(file)).to(dtype)
        with files.reading(CODEC) as file:
            codec = _codec(config, file)
    with files.reading(_EMOTION_MODEL) as directory:
        emotion_model, emotion_tokenizer = _emotion_model(directory, dtype)
    with files.reading(BPE):
        front = Front2(files.where)
    shared = checkpoint.read_shared(files, _LIBRARY, config, gpt.model_dim, use_gpt_latent=True)
    _without_mask(shared["s2mel"])
    made = Checkpoint2(
        gpt=gpt,
        codec=codec,
        emotion_model=emotion_model,
        emotion_tokenizer=emotion_tokenizer,
        front=front,
        **shared,
    )
    checkpoint.at_rest(gpt, made.w2v, codec, made.style, made.s2mel, made.vocoder, emotion_model)
    return made


def _gpt(config: Any, tensors: Mapping[str, Any]) -> Any:
    from indextts.gpt.model_v2 import UnifiedVoice

    gpt = UnifiedVoice(**config.gpt)
    checkpoint.fill(gpt, tensors.get("model", tensors))
    return gpt


def _codec(config: Any, file: Path) -> Any:
    from safetensors.torch import load_model

    try:
        from indextts.utils.maskgct_utils import build_semantic_codec
    except ImportError:  # the authors' own package, from 2.5 on
        from indextts.codec.maskgct_codec import build_semantic_codec

    codec = build_semantic_codec(config.semantic_codec)
    load_model(codec, file)
    del codec.decoder
    return codec.float()


def _emotion_model(directory: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model, info = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, output_loading_info=True)
    if info["missing_keys"]:
        raise ValueError(f"it has no {', '.join(sorted(info['missing_keys'])[:3])}")
    return model, tokenizer


def _without_mask(s2mel: Any) -> None:
    """64 MiB of which nothing is read: everything here attends to everything."""
    transformer = s2mel.models["cfm"].estimator.transformer
    mask = transformer.causal_mask
    del transformer.causal_mask
    transformer.register_buffer("causal_mask", mask[:1, :1].clone(), persistent=False)
