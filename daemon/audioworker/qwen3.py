"""Qwen3-ASR's checkpoints through transformers' own classes: read from disk, held in memory, moved to a device.

Owns the layouts, the languages and the prompt that the models were trained with. Recognises and aligns nothing. What
does not name a class of transformers serves the authors' package too.

Two layouts are read: that of the `-hf` repositories, and the released one, whose config.json has a `thinker_config`.
transformers takes the latter for its own, finds none of its weights and makes up random ones, so it is turned into the
former in memory; nothing is ever loaded that lacks a tensor or has one too many.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from audioproto.errors import AudiodError, BadRequest, ConfigInvalid, ModelNotInstalled
from audioproto.languages import code_of
from audioproto.types import EngineSpec
from audioproto.worker import Transcribe
from audioworker import device

if TYPE_CHECKING:
    import torch

Kind = Literal["asr", "aligner"]

LANGUAGES = {
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "mk": "Macedonian",
    "ms": "Malay",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "th": "Thai",
    "tl": "Filipino",
    "tr": "Turkish",
    "vi": "Vietnamese",
    "yue": "Cantonese",
    "zh": "Chinese",
}
"""Code to the name that the model was trained with (transformers, models/qwen3_asr/processing_qwen3_asr.py)."""

ALIGNED = ("de", "en", "es", "fr", "it", "ja", "ko", "pt", "ru", "yue", "zh")
"""What the forced aligner was trained on (the same file)."""

_DIALECTS = {"wuu": "zh", "nan": "zh"}
"""Tags of dialects that the model writes down under another name; the other dialects' tags begin with that name's."""

DTYPES = ("auto", "float32", "float16", "bfloat16")
ATTENTION = ("sdpa", "eager", "flash_attention_2")

AUDIO = "<|audio_start|><|audio_pad|><|audio_end|>"
"""Where the audio stands in a prompt; the middle token is repeated for as long as it lasts."""

_PREFIXES = (
    ("audio_tower.proj1.", "model.multi_modal_projector.linear_1."),
    ("audio_tower.proj2.", "model.multi_modal_projector.linear_2."),
    ("audio_tower.", "model.audio_tower."),
    ("model.", "model.language_model."),
)
_AUDIO_KEYS = (
    "num_mel_bins", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "d_model", "output_dim", "n_window",
    "n_window_infer", "downsample_hidden_size", "activation_function",
)  # fmt: skip
_TEXT_KEYS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps", "attention_bias", "tie_word_embeddings",
)  # fmt: skip


@dataclass
class Checkpoint:
    """A model in memory, and what turns audio and text into its input."""

    model: Any
    processor: Any
    config: Any

    def __post_init__(self) -> None:
        marks = sorted(self.processor.tokenizer.get_added_vocab(), key=len, reverse=True)
        self._control = re.compile("|".join([*map(re.escape, marks), r"<\|[^<>|]{0,40}\|>"]))

    def plain(self, text: str) -> str:
        """`text` without anything that the model would take for an order."""
        while (less := self._control.sub("", text)) != text:
            text = less
        return text

    def context(self, request: Transcribe) -> str:
        """What stands before the audio: the prompt, and the words that may be heard."""
        lines = [request.prompt.strip(), ", ".join(word.strip() for word in request.keywords if word.strip())]
        return self.plain("\n".join(filter(None, lines)))

    def id_of(self, mark: str) -> int:
        number: int = self.processor.tokenizer.convert_tokens_to_ids(mark)
        return number


def options(spec: EngineSpec, engine: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """The engine's options with those of the model's entry. Raises BadRequest for one that it does not have."""
    for name in spec.options:
        if name not in defaults:
            raise BadRequest(f"{spec.model}: the engine {engine} has no option {name!r}, only {', '.join(defaults)}")
    chosen = defaults | spec.options
    for name, possible in (("dtype", DTYPES), ("attention", ATTENTION)):
        if chosen[name] not in possible:
            raise BadRequest(f"{spec.model}: {name} must be one of {', '.join(possible)}")
    if "chunk_s" in chosen and not (type(chosen["chunk_s"]) is int and 5 <= chosen["chunk_s"] <= 300):
        raise BadRequest(f"{spec.model}: chunk_s must be a whole number from 5 to 300")
    if "vad" in chosen and type(chosen["vad"]) is not bool:
        raise BadRequest(f"{spec.model}: vad must be true or false")
    return chosen


def code_of_language(language: str) -> str:
    """The code of a code, a tag or a name, those of dialects included; what is none of these comes back as it is."""
    code = code_of(language)
    by_name = {name.lower(): code for code, name in LANGUAGES.items()}
    return _DIALECTS.get(code, by_name.get(code, code))


def name_of_language(spec: EngineSpec, language: str, param: str) -> str:
    """What the models call a language, "" where they are to find out. Raises BadRequest for one they do not know."""
    if not language.strip():
        return ""
    try:
        return LANGUAGES[code_of_language(language)]
    except KeyError as error:
        raise BadRequest(
            f"{spec.model} does not know the language {language!r}",
            hint="audioctl models lists the languages of each model; leave language out to have it recognised",
            param=param,
        ) from error


def read(spec: EngineSpec, kind: Kind, dtype: str, attention: str) -> Checkpoint:
    """The checkpoint in `spec.model_dir`, on the CPU.

    With `dtype` "auto" the weights stay as they are in the file, and are read from it only as they are used. Raises
    ModelNotInstalled where files are missing or cut off, and ConfigInvalid where they are another model's.
    """
    import torch
    from transformers import Qwen3ASRForConditionalGeneration, Qwen3ASRForTokenClassification

    directory = Path(spec.model_dir)
    given = configuration(spec, directory, kind)
    released = is_released(given)
    tensors = weights(spec, directory)
    if released:
        tensors = {_renamed(name, kind): tensor for name, tensor in tensors.items()}
    config = _native(given, "lm_head.weight" in tensors) if released else _read_native(directory)
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    made = Qwen3ASRForConditionalGeneration if kind == "asr" else Qwen3ASRForTokenClassification
    try:
        model, info = made.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype="auto" if dtype == "auto" else getattr(torch, dtype),
            attn_implementation=attention,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, with the others
        )
    except ImportError as error:
        raise no_attention(spec, attention, error) from error
    require_whole(spec, directory, info)
    model.eval()
    return Checkpoint(model, _processor(spec, directory, released, config), config)


def no_attention(spec: EngineSpec, attention: str, error: Exception) -> ConfigInvalid:
    return ConfigInvalid(
        f"{spec.model}: attention = {attention!r} does not work here: {error}", hint='set attention = "sdpa"'
    )


def require_whole(spec: EngineSpec, directory: Path, info: dict[str, Any]) -> None:
    """Raise ConfigInvalid where the library's report says that a tensor was missing, or there was one too many."""
    wrong = {what: names for what, names in info.items() if names}
    if wrong:
        what, names = next(iter(wrong.items()))
        raise ConfigInvalid(
            f"{spec.model}: the weights in {directory} are not those of its config.json: "
            f"{what.replace('_', ' ')}: {', '.join(sorted(map(str, names))[:3])}",
            hint=f"audioctl models pull {spec.model}",
        )


def is_released(given: dict[str, Any]) -> bool:
    """Whether a config.json is that of the released layout, and not of the `-hf` one."""
    return "thinker_config" in given


def configuration(spec: EngineSpec, directory: Path, kind: Kind) -> dict[str, Any]:
    """The config.json of a checkpoint of that kind.

    Raises ModelNotInstalled where it is missing or cut off, and ConfigInvalid where it is another model's.
    """
    try:
        given = json.loads((directory / "config.json").read_bytes())
    except FileNotFoundError as error:
        raise incomplete(spec, f"{directory} has no config.json") from error
    except ValueError as error:
        raise incomplete(spec, f"{directory}/config.json is not whole: {error}") from error
    if not isinstance(given, dict) or ("thinker_config" not in given and given.get("model_type") != "qwen3_asr"):
        what = given.get("model_type") if isinstance(given, dict) else None
        raise ConfigInvalid(
            f"{spec.model}: {directory} holds no Qwen3-ASR checkpoint: its config.json says model_type {what!r}",
            hint=f"audioctl models pull {spec.model}, or set `path` to a directory of Qwen3-ASR",
        )
    found = _kind(given)
    if found != kind:
        raise ConfigInvalid(
            f"{spec.model}: {directory} holds {'a forced aligner' if found == 'aligner' else 'a recogniser'}, "
            f"not {'a forced aligner' if kind == 'aligner' else 'a recogniser'}",
            hint="audioctl models path shows where each model's files are",
        )
    return given


def incomplete(spec: EngineSpec, message: str) -> AudiodError:
    return ModelNotInstalled(f"{spec.model}: {message}", hint=f"audioctl models pull {spec.model}")


def _kind(given: dict[str, Any]) -> Kind:
    if thinker := given.get("thinker_config"):
        aligner = "classify_num" in thinker or "forced_aligner" in thinker.get("model_type", "")
    else:
        aligner = "Qwen3ASRForTokenClassification" in (given.get("architectures") or ())
    return "aligner" if aligner else "asr"


def _read_native(directory: Path) -> Any:
    from transformers import Qwen3ASRConfig

    return Qwen3ASRConfig.from_pretrained(directory)


def _native(given: dict[str, Any], has_head: bool) -> Any:
    """transformers' configuration for that of a released repository, with an output layer of its own or not.

    Its multimodal rotary embedding is plain where there is no picture: logits are equal, bit for bit.
    """
    from transformers import Qwen3ASRConfig

    thinker = given["thinker_config"]
    audio, text = thinker["audio_config"], thinker["text_config"]
    rope = {"rope_type": "default", "rope_theta": text.get("rope_theta", 1e6)}
    more: dict[str, Any] = {}
    kind = _kind(given)
    if kind == "aligner":
        more = {"num_labels": thinker["classify_num"], "timestamp_token_id": given["timestamp_token_id"]}
    return Qwen3ASRConfig(
        audio_config={key: audio[key] for key in _AUDIO_KEYS if key in audio} | {"model_type": "qwen3_asr_encoder"},
        text_config={key: text[key] for key in _TEXT_KEYS if key in text}
        | {"model_type": "qwen3", "rope_parameters": rope},
        audio_token_id=thinker["audio_token_id"],
        tie_word_embeddings=bool(text.get("tie_word_embeddings", kind == "asr" and not has_head)),
        **more,
    )


def _renamed(name: str, kind: Kind) -> str:
    """transformers' name of a released repository's tensor."""
    name = name.removeprefix("thinker.")
    if kind == "aligner" and name.startswith("lm_head."):
        return "score." + name.removeprefix("lm_head.")
    for theirs, native in _PREFIXES:
        if name.startswith(theirs):
            return native + name.removeprefix(theirs)
    return name


def weights(spec: EngineSpec, directory: Path) -> dict[str, Any]:
    """All tensors by name, mapped from their files: no copy is made. Raises ModelNotInstalled."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    names = [file.name for file in sorted(directory.glob("*.safetensors"))]
    index = directory / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    if not names:
        raise incomplete(spec, f"{directory} has no safetensors file")
    tensors: dict[str, Any] = {}
    for name in names:
        try:
            tensors |= load_file(directory / name)
        except (FileNotFoundError, SafetensorError) as error:
            raise incomplete(spec, f"{directory / name} is missing or cut off: {error}") from error
    return tensors


def _processor(spec: EngineSpec, directory: Path, released: bool, config: Any) -> Any:
    from transformers import AutoTokenizer, Qwen3ASRFeatureExtractor, Qwen3ASRProcessor

    try:
        if not released:
            return Qwen3ASRProcessor.from_pretrained(directory)
        tokenizer = AutoTokenizer.from_pretrained(directory)
    except (OSError, ValueError, TypeError) as error:
        raise incomplete(spec, f"the tokenizer in {directory} is not whole: {error}") from error
    return Qwen3ASRProcessor(Qwen3ASRFeatureExtractor(feature_size=config.audio_config.num_mel_bins), tokenizer)


def move(model: Any, name: str, dtype: str, threads: int) -> None:
    """Make the model ready on the device of that name. Called in the worker: the first to touch a GPU."""
    import torch

    target = device.open_device(name, threads)
    if target.type == "cpu":
        return
    wanted = getattr(torch, dtype if dtype != "auto" else _dtype_of(torch.cuda.get_device_capability(target)))

    def convert(slot: device.Slot, copied: torch.Tensor) -> torch.Tensor:
        # Rotary frequencies stay in float32: rounded, they shift positions.
        return copied if slot.is_buffer or not copied.is_floating_point() else copied.to(wanted)

    device.fill(list(device.slots(model)), device.Copier(target), convert)
    torch.cuda.synchronize(target)


def _dtype_of(capability: tuple[int, int]) -> str:
    """Ampere (8.0) and later compute in bfloat16; what is older does so slowly or not at all."""
    return "bfloat16" if capability >= (8, 0) else "float16"
