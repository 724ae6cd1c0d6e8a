"""IndexTTS-2.5's networks out of a checkpoint: those that IndexTTS2 has not. Nothing of how they are run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from audioproto.types import EngineSpec
from audioworker.indextts import checkpoint
from audioworker.indextts.checkpoint import CONFIG, FILES, GPT, Checkpoint, Files
from audioworker.indextts.front25 import VOCABULARY, Front25

if TYPE_CHECKING:
    import torch

_LIBRARY = "indextts25"

_UNUSED = ("librosa", "librosa.filters", "omegaconf")
"""What the library imports to read files and its configuration."""

_CODEC = "codec.pth"

NEEDED = (*FILES, VOCABULARY, _CODEC)


def import_library() -> None:
    """Import `indextts25`, in a way that leaves no thread behind."""
    checkpoint.import_program("indextts25.infer_v2_5", _UNUSED)


class Checkpoint25(Checkpoint):
    """`codec` has its decoder alone: from codes to semantic features."""

    def parts(self) -> dict[str, list[Any]]:
        gpt, networks = self.gpt, self.s2mel.models
        return {
            "encoders": [
                self.w2v, self.style, gpt.emo_conditioning_encoder, gpt.emo_perceiver_encoder, gpt.emovec_layer,
                gpt.emo_layer,
            ],
            "vocoder": [self.vocoder],
            "diffusion": [networks["cfm"], self.codec],
            "language": [
                gpt.gpt, gpt.spk_emb_proj, gpt.text_embedding, gpt.text_pos_embedding, gpt.lang_embedding,
                gpt.mel_embedding, gpt.mel_pos_embedding, gpt.final_norm, gpt.mel_head,
            ],
            "shared": [networks["length_regulator"]],
        }  # fmt: skip

    def compile(self) -> None:
        self.s2mel.models["cfm"].estimator.compile(dynamic=True)


def read(spec: EngineSpec, dtype: torch.dtype) -> Checkpoint25:
    """The checkpoint in `spec.model_dir`. `dtype` is of the language model; the others compute in float32.

    Raises ModelNotInstalled where a part is missing or cut off, and ConfigInvalid where it is another model's.
    """
    from transformers.initialization import no_init_weights

    files = Files(spec, "IndexTTS-2.5", NEEDED)
    with files.reading(CONFIG) as file:
        config = checkpoint.configuration(file)
    with no_init_weights():
        with files.reading(GPT) as file:
            gpt = _gpt(config, checkpoint.tensors_in(file)).to(dtype)
        with files.reading(_CODEC) as file:
            codec = _codec(config, checkpoint.tensors_in(file)["model"])
    with files.reading(VOCABULARY):
        front = Front25(spec.model, files.where)
        if front.tokens != config.gpt.number_text_tokens:
            raise ValueError(f"it makes {front.tokens} tokens, and {CONFIG} says {config.gpt.number_text_tokens}")
    made = Checkpoint25(
        gpt=gpt, codec=codec, front=front, **checkpoint.read_shared(files, _LIBRARY, config, gpt.model_dim)
    )
    checkpoint.at_rest(gpt, made.w2v, codec, made.style, made.s2mel, made.vocoder)
    return made


def _gpt(config: Any, tensors: Mapping[str, Any]) -> Any:
    """Its file also has the text head, which only training needs."""
    from indextts25.gpt.model_v2 import UnifiedVoice

    gpt = UnifiedVoice(**config.gpt)
    checkpoint.fill(gpt, tensors.get("model", tensors), exact=False)
    return gpt


def _codec(config: Any, tensors: Mapping[str, Any]) -> Any:
    """Its file also has the encoder."""
    from indextts25.codec.models import EnhancedCodec

    codec = EnhancedCodec(**config.semantic_codec)
    checkpoint.fill(codec, checkpoint.folded(tensors), exact=False)
    return codec
