"""IndexTTS2's networks out of a checkpoint, and its front end for text. Nothing of how they are run.

Two packages have the same module `indextts`: `indextts2-inference`, which our runtime has, and the authors' own. Both
run everything in one class, with every network on the device for good and hidden downloads; what is used here are the
networks alone. torch and the library are imported where they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from audioproto.errors import AudiodError, ConfigInvalid, ModelNotInstalled
from audioproto.types import EMOTIONS, EngineSpec
from audioworker import engine
from audioworker.absent import standing_in

if TYPE_CHECKING:
    import torch

MEL_RATE_HZ = 22_050
"""Of the speech, and of the spectrogram of the voice that it is to imitate."""

FEATURE_RATE_HZ = 16_000
"""Of what w2v-bert-2.0 and CAM++ hear."""

STYLE_MELS = 80
STYLE_WIDTH = 192
"""What CAM++ hears and says (infer_v2.py)."""

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

_W2V_LAYERS = 17
"""Of w2v-bert-2.0's 24: the output of this one is the semantic feature (infer_v2.py, `hidden_states[17]`)."""

_LONGEST_MEL = 8192
"""Frames of the diffusion model's positions (infer_v2.py)."""

_CONFIG, _GPT, _S2MEL, _STATISTICS = "config.yaml", "gpt.pth", "s2mel.pth", "wav2vec2bert_stats.pt"
_EMOTIONS, _SPEAKERS, _BPE = "feat2.pt", "feat1.pt", "bpe.model"
_W2V, _STYLE, _VOCODER = "hf_cache/w2v-bert-2.0", "hf_cache/campplus_cn_common.bin", "hf_cache/bigvgan"
_CODEC = "hf_cache/semantic_codec_model.safetensors"
_EMOTION_MODEL = "qwen0.6bemo4-merge"

_FILES = (
    _CONFIG, _GPT, _S2MEL, _STATISTICS, _EMOTIONS, _SPEAKERS, _BPE, _CODEC, _STYLE,
    f"{_W2V}/config.json", f"{_W2V}/preprocessor_config.json", f"{_W2V}/model.safetensors",
    f"{_VOCODER}/config.json", f"{_VOCODER}/bigvgan_generator.pt",
    f"{_EMOTION_MODEL}/config.json", f"{_EMOTION_MODEL}/tokenizer_config.json",
)  # fmt: skip
"""Of a checkpoint, where the authors' own program has them on disk."""


def import_library() -> None:
    """Import `indextts`, in a way that leaves no thread behind and writes no progress bars into the log."""
    # It looks for librosa when it is imported, and must not find ours.
    import transformers.audio_utils  # noqa: F401

    with standing_in(*_UNUSED):
        import indextts.infer_v2  # noqa: F401
        from indextts.s2mel.modules import audio, flow_matching
    audio.librosa_mel_fn = _mel_filters
    flow_matching.tqdm = lambda steps: steps


def _mel_filters(sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float | None) -> npt.NDArray[np.float32]:
    """Slaney's filters, as librosa.filters.mel makes them; shape [n_mels, 1 + n_fft / 2]."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(1 + n_fft // 2, n_mels, fmin, fmax or sr / 2, sr, norm="slaney", mel_scale="slaney")
    return np.asarray(filters.T, np.float32)


@dataclass
class Checkpoint:
    """All networks, on the CPU, and what surrounds them."""

    config: Any
    gpt: Any
    """UnifiedVoice: conditioners, and the language model that writes semantic codes."""
    w2v: Any
    codec: Any
    """MaskGCT's, without its decoder: the language model's hidden states take its place."""
    style: Any
    """CAM++: a speaker's timbre."""
    s2mel: Any
    """Diffusion (`cfm`), length regulator, and the layer for the language model's hidden states."""
    vocoder: Any
    emotion_model: Any
    emotion_tokenizer: Any
    extract_features: Any
    """For w2v-bert-2.0."""
    mean: torch.Tensor
    deviation: torch.Tensor
    """Of its features; shape [1024]."""
    emotions: list[torch.Tensor]
    """For each of EMOTIONS some vectors, shape [n, width of the language model]."""
    speakers: list[torch.Tensor]
    """The timbres that they belong to, shape [n, STYLE_WIDTH]."""
    encode: Callable[[str], list[int]]
    """Text to ids of tokens; numbers, dates and signs are read aloud."""
    silent: frozenset[int]
    """Ids of tokens without a sound: punctuation, and what the tokenizer has no token for."""


def read(spec: EngineSpec, dtype: torch.dtype) -> Checkpoint:
    """The checkpoint in `spec.model_dir`. `dtype` is of the two language models; the others compute in float32.

    Raises ModelNotInstalled where a part is missing or cut off, and ConfigInvalid where it is another model's.
    """
    import torch
    from transformers.initialization import no_init_weights

    where = Path(spec.model_dir)
    if missing := [name for name in _FILES if not (where / name).is_file()]:
        raise incomplete(spec, f"{where} has no {', '.join(missing[:3])}{', ...' if missing[3:] else ''}")
    with _reading(spec, _CONFIG):
        config = _configuration(where / _CONFIG)
    with no_init_weights():
        with _reading(spec, _GPT):
            gpt = _gpt(config, _tensors(where / _GPT)).to(dtype)
        with _reading(spec, _S2MEL):
            s2mel = _s2mel(config, _tensors(where / _S2MEL)["net"])
        with _reading(spec, _STYLE):
            style = _style(_tensors(where / _STYLE))
        with _reading(spec, _CODEC):
            codec = _codec(config, where / _CODEC)
        with _reading(spec, _VOCODER):
            vocoder = _vocoder(where / _VOCODER)
    with _reading(spec, _W2V):
        w2v, extract_features = _w2v(where / _W2V)
    with _reading(spec, _STATISTICS):
        statistics = _tensors(where / _STATISTICS)
        mean, deviation = statistics["mean"].float(), torch.sqrt(statistics["var"].float())
    with _reading(spec, _EMOTION_MODEL):
        emotion_model, emotion_tokenizer = _emotion_model(where / _EMOTION_MODEL, dtype)
    with _reading(spec, _EMOTIONS):
        emotions = _by_emotion(config, _tensors(where / _EMOTIONS), gpt.model_dim)
    with _reading(spec, _SPEAKERS):
        speakers = _by_emotion(config, _tensors(where / _SPEAKERS), STYLE_WIDTH)
    with _reading(spec, _BPE):
        encode, silent = _front_end(where)
    for network in (gpt, w2v, codec, style, s2mel, vocoder, emotion_model):
        _fold_weight_norms(network)
        network.eval().requires_grad_(requires_grad=False)
    return Checkpoint(
        config, gpt, w2v, codec, style, s2mel, vocoder, emotion_model, emotion_tokenizer, extract_features,
        mean, deviation, emotions, speakers, encode, silent,
    )  # fmt: skip


def incomplete(spec: EngineSpec, message: str) -> AudiodError:
    return ModelNotInstalled(f"{spec.model}: {message}", hint=f"audioctl models pull {spec.model}")


@contextmanager
def _reading(spec: EngineSpec, name: str) -> Iterator[None]:
    """Whatever the libraries raise inside, it is told as a fault of the file or directory `name`."""
    try:
        yield
    except Exception as error:
        if engine.is_out_of_memory(error):
            raise
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        # safetensors, pickle, zip and torch's reader of it each have an error of their own for a file that is cut off.
        if isinstance(error, OSError | EOFError) or "truncated" in str(error).lower() or _is_cut_off(error):
            raise incomplete(spec, f"{name} is cut off or cannot be read: {first_line}") from error
        raise ConfigInvalid(
            f"{spec.model}: {name} is not that of IndexTTS2: {first_line}",
            hint=f"audioctl models pull {spec.model}, or set `path` to a directory of IndexTTS2",
        ) from error


def _is_cut_off(error: Exception) -> bool:
    if "Weights only load failed" in str(error):  # it is whole, and more than weights
        return False
    kind = type(error).__name__
    return kind in ("UnpicklingError", "BadZipFile", "SafetensorError") or "PytorchStreamReader" in str(error)


def _tensors(file: Path) -> Any:
    """What torch has saved there, mapped and not read where its format allows. A checkpoint is data, and never code."""
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        return torch.load(file, map_location="cpu", weights_only=True)  # torch's format before 1.6


def _configuration(file: Path) -> Any:
    """The configuration, with keys as attributes."""
    import yaml
    from munch import munchify

    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    missing = {"gpt", "semantic_codec", "s2mel", "emo_num"} - set(found)
    if missing:
        raise ValueError(f"it has no {', '.join(sorted(missing))}")
    return munchify(found)


def _fill(network: Any, tensors: Mapping[str, Any], *, exact: bool = True) -> None:
    """Give the network the tensors, as they lie in their file.

    Without `exact`, tensors too many are left out, as are buffers, which training may have had in another size.
    """
    if not exact:
        buffers = {name for name, _ in network.named_buffers()}
        own = {name for name, _ in network.named_parameters()}
        tensors = {name: tensor for name, tensor in tensors.items() if name in own}
        if missing := sorted(own - tensors.keys()):
            raise ValueError(f"it has no {', '.join(missing[:3])}")
        assert not buffers & tensors.keys()
    network.load_state_dict(tensors, assign=True, strict=exact)


def _gpt(config: Any, tensors: Mapping[str, Any]) -> Any:
    from indextts.gpt.model_v2 import UnifiedVoice

    gpt = UnifiedVoice(**config.gpt)
    _fill(gpt, tensors.get("model", tensors))
    return gpt


def _s2mel(config: Any, nets: Mapping[str, Any]) -> Any:
    from indextts.s2mel.modules.commons import MyModel

    s2mel = MyModel(config.s2mel, use_gpt_latent=True)
    for name, network in s2mel.models.items():
        _fill(network, {key.removeprefix("module."): tensor for key, tensor in nets[name].items()}, exact=False)
    s2mel.float()
    s2mel.models["cfm"].estimator.setup_caches(max_batch_size=1, max_seq_length=_LONGEST_MEL)
    # Attributes, which would stay behind when the network goes to a device.
    transformer = s2mel.models["cfm"].estimator.transformer
    frequencies, mask = transformer.freqs_cis, transformer.causal_mask
    del transformer.freqs_cis, transformer.causal_mask
    transformer.register_buffer("freqs_cis", frequencies, persistent=False)
    # 64 MiB of which nothing is read: everything here attends to everything.
    transformer.register_buffer("causal_mask", mask[:1, :1].clone(), persistent=False)
    return s2mel


def _style(tensors: Mapping[str, Any]) -> Any:
    from indextts.s2mel.modules.campplus.DTDNN import CAMPPlus

    style = CAMPPlus(feat_dim=STYLE_MELS, embedding_size=STYLE_WIDTH)
    _fill(style, tensors)
    return style.float()


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


def _vocoder(directory: Path) -> Any:
    from indextts.s2mel.modules.bigvgan import bigvgan

    vocoder = bigvgan.BigVGAN(bigvgan.load_hparams_from_json(directory / "config.json"), use_cuda_kernel=False)
    tensors = _tensors(directory / "bigvgan_generator.pt")["generator"]
    if not any(name.endswith("weight_g") for name in tensors):  # its weight norms are folded already
        _fold_weight_norms(vocoder)
    _fill(vocoder, tensors)
    return vocoder.float()


def _w2v(directory: Path) -> tuple[Any, Any]:
    import torch
    from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

    config = Wav2Vec2BertConfig.from_pretrained(directory)
    config.num_hidden_layers = _W2V_LAYERS
    w2v, info = Wav2Vec2BertModel.from_pretrained(
        directory, config=config, dtype=torch.float32, output_loading_info=True
    )
    if info["missing_keys"]:
        raise ValueError(f"it has no {', '.join(sorted(info['missing_keys'])[:3])}")
    return w2v, SeamlessM4TFeatureExtractor.from_pretrained(directory)


def _emotion_model(directory: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model, info = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, output_loading_info=True)
    if info["missing_keys"]:
        raise ValueError(f"it has no {', '.join(sorted(info['missing_keys'])[:3])}")
    return model, tokenizer


def _by_emotion(config: Any, matrix: torch.Tensor, width: int) -> list[torch.Tensor]:
    import torch

    if len(config.emo_num) != len(EMOTIONS):
        raise ValueError(f"{_CONFIG} counts {len(config.emo_num)} emotions, not {len(EMOTIONS)}")
    if tuple(matrix.shape) != (sum(config.emo_num), width):
        raise ValueError(f"its shape is {tuple(matrix.shape)}, not {(sum(config.emo_num), width)}")
    return list(torch.split(matrix.float(), list(config.emo_num)))


def _fold_weight_norms(network: Any) -> None:
    """Compute once what would be computed before each call, and kept where no device's move finds it."""
    from torch.nn.utils import remove_weight_norm
    from torch.nn.utils.weight_norm import WeightNorm

    for module in network.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)


# --- text -------------------------------------------------------------------------------------------------------------


class Reader:
    """Reads numbers, dates and signs of one language aloud, where the library asks NeMo to.

    The authors' own package has the same grammars, by WeTextProcessing; these are compiled, while NeMo compiles its own
    for 48 s and with 850 MB at the first use.
    """

    def __init__(self, language: str) -> None:
        from wetext import Normalizer

        self._normalizer = Normalizer(lang=language, operator="tn")

    def normalize(self, text: str, verbose: bool = False) -> str:
        read: str = self._normalizer.normalize(text)
        return read


def _front_end(where: Path) -> tuple[Callable[[str], list[int]], frozenset[int]]:
    """Text to ids, and the ids without a sound."""
    from indextts.utils.front import TextNormalizer, TextTokenizer

    normalizer = TextNormalizer()
    normalizer.enable_glossary = True
    chinese, english = Reader("zh"), Reader("en")
    normalizer._normalizers = {"zh": chinese, "en": english}
    normalizer.zh_normalizer, normalizer.en_normalizer = chinese, english  # as the authors' own package calls them
    if (where / "glossary.yaml").exists():
        normalizer.load_glossary_from_yaml(str(where / "glossary.yaml"))
    tokenizer = TextTokenizer(str(where / _BPE), None)

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(normalizer.normalize(text))
        return ids

    pieces = tokenizer.convert_ids_to_tokens(list(range(tokenizer.vocab_size)))
    silent = {number for number, piece in enumerate(pieces) if not any(map(str.isalnum, piece))}
    return encode, frozenset(silent | {tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id})


def fingerprint(where: Path) -> str:
    """Tells checkpoints apart, by the sizes and dates of what a voice is encoded with."""
    files = [where / name for name in (_GPT, _S2MEL, _STYLE, _CODEC, _STATISTICS, f"{_W2V}/model.safetensors")]
    return " ".join(f"{found.st_size}.{found.st_mtime_ns}" for found in map(Path.stat, files))
