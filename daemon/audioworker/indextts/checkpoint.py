"""Networks out of the checkpoints of IndexTTS2 and IndexTTS-2.5, where they are the same. Nothing of how they are run.

Each has a package of its own, `indextts` and `indextts25`, with its own copy of the same networks: `library` names it.
Both packages run everything in one class, with every network on the device for good and hidden downloads; what is used
here are the networks alone. torch and the libraries are imported where they are used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from audioproto.errors import AudiodError, ConfigInvalid, ModelNotInstalled
from audioproto.types import EMOTIONS, EngineSpec
from audioworker import engine
from audioworker.absent import standing_in
from audioworker.indextts.front import Front

if TYPE_CHECKING:
    import torch

MEL_RATE_HZ = 22_050
"""Of the speech, and of the spectrogram of the voice that it is to imitate."""

FEATURE_RATE_HZ = 16_000
"""Of what w2v-bert-2.0 and CAM++ hear."""

STYLE_MELS = 80
STYLE_WIDTH = 192
"""What CAM++ hears and says (infer_v2.py)."""

_W2V_LAYERS = 17
"""Of w2v-bert-2.0's 24: the output of this one is the semantic feature (infer_v2.py, `hidden_states[17]`)."""

_LONGEST_MEL = 8192
"""Frames of the diffusion model's positions (infer_v2.py)."""

CONFIG, GPT, S2MEL, STATISTICS = "config.yaml", "gpt.pth", "s2mel.pth", "wav2vec2bert_stats.pt"
EMOTION_VECTORS, SPEAKERS = "feat2.pt", "feat1.pt"
W2V, STYLE, VOCODER = "hf_cache/w2v-bert-2.0", "hf_cache/campplus_cn_common.bin", "hf_cache/bigvgan"

FILES = (
    CONFIG, GPT, S2MEL, STATISTICS, EMOTION_VECTORS, SPEAKERS, STYLE,
    f"{W2V}/config.json", f"{W2V}/preprocessor_config.json", f"{W2V}/model.safetensors",
    f"{VOCODER}/config.json", f"{VOCODER}/bigvgan_generator.pt",
)  # fmt: skip
"""Of either checkpoint, where the authors' own programs have them on disk."""


def import_program(name: str, unused: tuple[str, ...]) -> Any:
    """Import a library's program, in a way that leaves no thread behind; `unused` are modules that are not there."""
    # It looks for librosa when it is imported, and must not find ours.
    import transformers.audio_utils  # noqa: F401

    with standing_in(*unused):
        program = import_module(name)
        audio: Any = import_module(f"{name.partition('.')[0]}.s2mel.modules.audio")
    audio.librosa_mel_fn = _mel_filters
    return program


def _mel_filters(sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float | None) -> npt.NDArray[np.float32]:
    """Slaney's filters, as librosa.filters.mel makes them; shape [n_mels, 1 + n_fft / 2]."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(1 + n_fft // 2, n_mels, fmin, fmax or sr / 2, sr, norm="slaney", mel_scale="slaney")
    return np.asarray(filters.T, np.float32)


@dataclass(kw_only=True)
class Checkpoint(ABC):
    """All networks, on the CPU, and what surrounds them."""

    library: str
    config: Any
    gpt: Any
    """UnifiedVoice: conditioners, and the language model that writes semantic codes."""
    w2v: Any
    codec: Any
    """Of semantic codes."""
    style: Any
    """CAM++: a speaker's timbre."""
    s2mel: Any
    """Diffusion (`cfm`) and length regulator."""
    vocoder: Any
    extract_features: Any
    """For w2v-bert-2.0."""
    mean: torch.Tensor
    deviation: torch.Tensor
    """Of its features; shape [1024]."""
    emotions: list[torch.Tensor]
    """For each of EMOTIONS some vectors, shape [n, width of the language model]."""
    speakers: list[torch.Tensor]
    """The timbres that they belong to, shape [n, STYLE_WIDTH]."""
    front: Front

    @abstractmethod
    def parts(self) -> dict[str, list[Any]]:
        """Networks that are needed together, by the name of the part; what is needed most comes last."""

    @abstractmethod
    def compile(self) -> None:
        """Have the diffusion model compiled when it is first used."""


class Files:
    """The files of a checkpoint in `spec.model_dir`. Raises ModelNotInstalled where one of the `needed` is missing.

    `model` is what people call what it is a checkpoint of.
    """

    def __init__(self, spec: EngineSpec, model: str, needed: tuple[str, ...]) -> None:
        self._spec = spec
        self._model = model
        self.where = Path(spec.model_dir)
        if missing := [name for name in needed if not (self.where / name).is_file()]:
            raise self._incomplete(f"{self.where} has no {', '.join(missing[:3])}{', ...' if missing[3:] else ''}")

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """Whatever the libraries raise inside, it is told as a fault of the file or directory `name`.

        Raises ModelNotInstalled where that is cut off, and ConfigInvalid where it is another model's.
        """
        try:
            yield self.where / name
        except Exception as error:
            if engine.is_out_of_memory(error):
                raise
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            # safetensors, pickle, zip and torch's reader of it each have an error of their own for a file that is cut
            # off.
            if isinstance(error, OSError | EOFError) or "truncated" in str(error).lower() or _is_cut_off(error):
                raise self._incomplete(f"{name} is cut off or cannot be read: {first_line}") from error
            raise ConfigInvalid(
                f"{self._spec.model}: {name} is not that of {self._model}: {first_line}",
                hint=f"audioctl models pull {self._spec.model}, or set `path` to a directory of {self._model}",
            ) from error

    def _incomplete(self, message: str) -> AudiodError:
        return ModelNotInstalled(f"{self._spec.model}: {message}", hint=f"audioctl models pull {self._spec.model}")


def _is_cut_off(error: Exception) -> bool:
    if "Weights only load failed" in str(error):  # it is whole, and more than weights
        return False
    kind = type(error).__name__
    return kind in ("UnpicklingError", "BadZipFile", "SafetensorError") or "PytorchStreamReader" in str(error)


def tensors_in(file: Path) -> Any:
    """What torch has saved there, mapped and not read where its format allows. A checkpoint is data, and never code."""
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        return torch.load(file, map_location="cpu", weights_only=True)  # torch's format before 1.6


def configuration(file: Path) -> Any:
    """The configuration, with keys as attributes."""
    import yaml
    from munch import munchify

    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    missing = {"gpt", "semantic_codec", "s2mel", "emo_num"} - set(found)
    if missing:
        raise ValueError(f"it has no {', '.join(sorted(missing))}")
    return munchify(found)


def fill(network: Any, tensors: Mapping[str, Any], *, exact: bool = True) -> None:
    """Give the network the tensors, as they lie in their file.

    Without `exact`, tensors too many are left out, as are buffers, which training may have had in another size.
    """
    if not exact:
        own = {name for name, _ in network.named_parameters()}
        tensors = {name: tensor for name, tensor in tensors.items() if name in own}
        if missing := sorted(own - tensors.keys()):
            raise ValueError(f"it has no {', '.join(missing[:3])}")
    network.load_state_dict(tensors, assign=True, strict=exact)


def read_shared(files: Files, library: str, config: Any, width: int, **s2mel: Any) -> dict[str, Any]:
    """Those fields of a checkpoint that are read alike; `width` is the language model's, `s2mel` more for its networks.

    They compute in float32. Raises ModelNotInstalled and ConfigInvalid.
    """
    from transformers.initialization import no_init_weights

    with no_init_weights():
        with files.reading(S2MEL) as file:
            diffusion = _s2mel(library, config, tensors_in(file)["net"], s2mel)
        with files.reading(STYLE) as file:
            style = _style(library, tensors_in(file))
        with files.reading(VOCODER) as directory:
            vocoder = _vocoder(library, directory)
    with files.reading(W2V) as directory:
        w2v, extract_features = _w2v(directory)
    with files.reading(STATISTICS) as file:
        statistics = tensors_in(file)
        mean, deviation = statistics["mean"].float(), statistics["var"].float().sqrt()
    with files.reading(EMOTION_VECTORS) as file:
        emotions = _by_emotion(config, tensors_in(file), width)
    with files.reading(SPEAKERS) as file:
        speakers = _by_emotion(config, tensors_in(file), STYLE_WIDTH)
    return {
        "library": library, "config": config, "s2mel": diffusion, "style": style, "vocoder": vocoder, "w2v": w2v,
        "extract_features": extract_features, "mean": mean, "deviation": deviation, "emotions": emotions,
        "speakers": speakers,
    }  # fmt: skip


def _s2mel(library: str, config: Any, nets: Mapping[str, Any], arguments: dict[str, Any]) -> Any:
    s2mel = import_module(f"{library}.s2mel.modules.commons").MyModel(config.s2mel, **arguments)
    fold_weight_norms(s2mel)
    for name, network in s2mel.models.items():
        fill(network, folded({key.removeprefix("module."): one for key, one in nets[name].items()}), exact=False)
    s2mel.models["cfm"].estimator.setup_caches(max_batch_size=1, max_seq_length=_LONGEST_MEL)
    # An attribute, which would stay behind when the network goes to a device.
    transformer = s2mel.models["cfm"].estimator.transformer
    frequencies = transformer.freqs_cis
    del transformer.freqs_cis
    transformer.register_buffer("freqs_cis", frequencies, persistent=False)
    return s2mel


def _style(library: str, tensors: Mapping[str, Any]) -> Any:
    networks = import_module(f"{library}.s2mel.modules.campplus.DTDNN")
    style = networks.CAMPPlus(feat_dim=STYLE_MELS, embedding_size=STYLE_WIDTH)
    fill(style, tensors)
    return style.float()


def _vocoder(library: str, directory: Path) -> Any:
    networks = import_module(f"{library}.s2mel.modules.bigvgan.bigvgan")
    vocoder = networks.BigVGAN(networks.load_hparams_from_json(directory / "config.json"))
    fold_weight_norms(vocoder)
    fill(vocoder, folded(tensors_in(directory / "bigvgan_generator.pt")["generator"]))
    return vocoder


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


def _by_emotion(config: Any, matrix: torch.Tensor, width: int) -> list[torch.Tensor]:
    import torch

    if len(config.emo_num) != len(EMOTIONS):
        raise ValueError(f"{CONFIG} counts {len(config.emo_num)} emotions, not {len(EMOTIONS)}")
    if tuple(matrix.shape) != (sum(config.emo_num), width):
        raise ValueError(f"its shape is {tuple(matrix.shape)}, not {(sum(config.emo_num), width)}")
    return list(torch.split(matrix.float(), list(config.emo_num)))


def fold_weight_norms(network: Any) -> None:
    """Compute once what would be computed before each call, and kept where no device's move finds it."""
    from torch.nn.utils import remove_weight_norm
    from torch.nn.utils.weight_norm import WeightNorm

    for module in network.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)


def folded(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The same in float32, with a weight in place of each norm and direction that training has made of it."""
    import torch

    plain = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    for name in tensors:
        if name.endswith(".weight_g"):
            weight = name.removesuffix("_g")
            plain[weight] = torch._weight_norm(plain.pop(f"{weight}_v"), plain.pop(name), 0)
    return plain


def at_rest(*networks: Any) -> None:
    """Make them compute, and learn nothing."""
    for network in networks:
        fold_weight_norms(network)
        network.eval().requires_grad_(requires_grad=False)


def fingerprint(where: Path, *more: str) -> str:
    """Tells checkpoints apart, by the sizes and dates of what a voice is encoded with."""
    files = [where / name for name in (GPT, S2MEL, STYLE, STATISTICS, f"{W2V}/model.safetensors", *more)]
    return " ".join(f"{found.st_size}.{found.st_mtime_ns}" for found in map(Path.stat, files))
