"""Makes tiny Qwen3-ASR and Qwen3-ForcedAligner checkpoints, in either layout; run by the runtime's Python.

    qwen3_asr.py DIRECTORY '{"NAME": {"kind": "asr", "layout": "hf", "text": "good morning"}, ...}'

Arguments of a checkpoint are those of `make`. All are made by one process, because importing takes longer than making.

The spectrogram, the audio tower, the tokenizer and the decoder are the library's and really run. What is wired by hand:

    scripted asr      greedy decoding writes exactly `language NAME<asr_text>TEXT<|im_end|>`, from wherever in it the
                      prompt ends. No word, or Chinese character, may occur twice.
    scripted aligner  a time is the share of <timestamp> among the tokens so far: 0.08 s times round(99 * share)
    random            letters that depend on the audio, without an end

With `size` "0.6b" a checkpoint has the dimensions of the released one, and weights as a model has before it is trained:
what it says is noise of any tokens, but it takes the memory and the time of the real one. "wide" is tiny but for half a
gigabyte of words that it never says, for who needs a model that takes room.

Special tokens have the ids of the released checkpoints. Knows nothing of audiod.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    Qwen3ASRConfig,
    Qwen3ASRFeatureExtractor,
    Qwen3ASRForConditionalGeneration,
    Qwen3ASRForTokenClassification,
    Qwen3ASRProcessor,
    WhisperFeatureExtractor,
)

HIDDEN = 32
"""Dimensions of the decoder: a script may have as many tokens."""

CLASSES = 5000
"""Times that the aligner tells apart, 80 ms each."""

SPECIAL = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<|audio_start|>": 151669,
    "<|audio_end|>": 151670,
    "<|audio_pad|>": 151676,
}
MARKS = {"<asr_text>": 151704, "<timestamp>": 151705}
"""Added tokens that are text to the tokenizer: `skip_special_tokens` leaves them."""

AUDIO_TOKENS = {
    "audio_token": "<|audio_pad|>",
    "audio_bos_token": "<|audio_start|>",
    "audio_eos_token": "<|audio_end|>",
}

CHAT_TEMPLATE = (
    "<|im_start|>system\n{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}<|im_end|>\n"
    "<|im_start|>user\n{% for m in messages if m.role == 'user' %}{% for part in m.content if part.type == 'audio' %}"
    "<|audio_start|><|audio_pad|><|audio_end|>{% endfor %}{% endfor %}<|im_end|>\n"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Says what that of the released checkpoints does."""

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_CHARACTERS = {byte: chr(byte) for byte in _PRINTABLE} | {
    byte: chr(0x100 + n) for n, byte in enumerate(sorted(set(range(0x100)) - set(_PRINTABLE)))
}
"""The character that stands for each byte in the vocabulary (openai/gpt-2, encoder.py)."""


def in_vocabulary(text: str) -> str:
    return "".join(_CHARACTERS[byte] for byte in text.encode())


def tokens_of(text: str) -> list[str]:
    """Words with the blank before them; Chinese characters and marks each alone."""
    return re.findall(
        r"[\u3000-\u30ff\u4e00-\u9fff\uff00-\uffef]| ?[^\s\u3000-\u30ff\u4e00-\u9fff\uff00-\uffef]+", text
    )


def write_tokenizer(directory: Path, words: list[str]) -> dict[str, int]:
    """A byte-level tokenizer that can read anything, and write `words` as one token each; returns its vocabulary."""
    vocabulary = {_CHARACTERS[byte]: byte for byte in range(0x100)}
    for word in words:
        vocabulary.setdefault(in_vocabulary(word), len(vocabulary))
    added = SPECIAL | MARKS
    names = {number: name for name, number in added.items()}
    for number in range(len(vocabulary), max(names) + 1):  # with holes, the library prints each of them
        vocabulary[names.get(number, f"<{number}>")] = number
    (directory / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (directory / "merges.txt").write_text("#version: 0.2\n")
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "processor_class": "Qwen3ASRProcessor",
        "added_tokens_decoder": {
            str(number): {
                "content": name,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": name in SPECIAL,
            }
            for name, number in added.items()
        },
        "additional_special_tokens": list(SPECIAL),
        "extra_special_tokens": AUDIO_TOKENS,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 131072,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    return vocabulary


AUDIO = {
    "tiny": {
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "d_model": 16,
        "output_dim": HIDDEN,
        "downsample_hidden_size": 4,
    },
    "0.6b": {
        "encoder_layers": 18,
        "encoder_attention_heads": 14,
        "encoder_ffn_dim": 3584,
        "d_model": 896,
        "output_dim": 1024,
        "downsample_hidden_size": 480,
    },
}
TEXT = {
    "tiny": {
        "hidden_size": HIDDEN,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "tie_word_embeddings": False,
    },
    "0.6b": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
}
AUDIO["wide"] = AUDIO["tiny"]
TEXT["wide"] = TEXT["tiny"] | {"vocab_size": 2_000_000}


def configuration(kind: str, size: str) -> Qwen3ASRConfig:
    audio = {"model_type": "qwen3_asr_encoder", "num_mel_bins": 128} | AUDIO[size]
    text = {"model_type": "qwen3", "vocab_size": 151_936, "max_position_embeddings": 65_536} | TEXT[size]
    labels = {"num_labels": CLASSES} if kind == "aligner" else {}
    tied = bool(text["tie_word_embeddings"])
    return Qwen3ASRConfig(audio_config=audio, text_config=text, tie_word_embeddings=tied, **labels)


def silence_blocks(decoder: Any) -> None:
    """Have the layers add nothing to what passes them."""
    for layer in decoder.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()


def script_text(model: Any, script: list[int]) -> None:
    """Have each token of the script be followed by the next."""
    if len(script) > HIDDEN or len(set(script)) < len(script):
        raise SystemExit(f"the text must be of at most {HIDDEN - 4} words, all different")
    silence_blocks(model.model.language_model)
    embedding, head = model.model.language_model.embed_tokens.weight, model.lm_head.weight
    embedding.zero_()
    head.zero_()
    for dimension, (token, following) in enumerate(itertools.pairwise(script)):
        embedding[token, dimension] = 1.0
        head[following, dimension] = 1.0


def script_times(model: Any) -> None:
    """Dimension 0 says "any token", 1 "a timestamp", 2 gets the share of timestamps so far, by uniform attention."""
    decoder = model.model.language_model
    silence_blocks(decoder)
    decoder.embed_tokens.weight.zero_()
    decoder.embed_tokens.weight[:, 0] = 1.0
    decoder.embed_tokens.weight[MARKS["<timestamp>"], :2] = torch.tensor([0.0, 1.0])
    projector = model.model.multi_modal_projector.linear_2
    projector.weight.zero_()
    projector.bias.zero_()
    projector.bias[0] = 1.0
    attention = decoder.layers[0].self_attn
    attention.q_proj.weight.zero_()
    attention.v_proj.weight.zero_()
    attention.v_proj.weight[0, 1] = 1.0
    attention.o_proj.weight[2, 0] = 1.0
    # With x the value of dimension 2 over that of 1, the class nearest to x is where 2 t x - t t is largest.
    times = torch.linspace(0, HIDDEN**0.5, 100)
    model.score.weight.zero_()
    model.score.weight[:100, 2] = 2 * times
    model.score.weight[:100, 1] = -(times**2)
    model.score.weight[100:, 1] = -1e4


def make_noise(model: Any, vocabulary: dict[str, int]) -> None:
    """Large random weights, of which only letters and blanks can come out."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0.0, 0.3)
    if hasattr(model, "lm_head"):
        letters = [vocabulary[in_vocabulary(letter)] for letter in "abcdefghijklmnopqrstuvwxyz "]
        kept = model.lm_head.weight[letters].clone()
        model.lm_head.weight.zero_()
        model.lm_head.weight[letters] = kept


def release(directory: Path, kind: str) -> None:
    """Turn the native layout into that of the released repositories: what transformers made of `thinker_config`."""
    native = json.loads((directory / "config.json").read_text())
    audio, text = native["audio_config"], native["text_config"]
    text["rope_theta"] = text.pop("rope_parameters", {}).get("rope_theta", 10_000.0)
    quarter = text["head_dim"] // 8  # in sum they are half the head, as 24, 20, 20 of the released ones
    sections = [text["head_dim"] // 2 - 2 * quarter, quarter, quarter]
    text["rope_scaling"] = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": sections}
    thinker = {
        "model_type": "qwen3_asr" if kind == "asr" else "qwen3_forced_aligner",
        "audio_config": audio | {"model_type": "qwen3_asr_audio_encoder"},
        "text_config": text | {"model_type": "qwen3_asr_text"},
        "audio_token_id": SPECIAL["<|audio_pad|>"],
        "audio_start_token_id": SPECIAL["<|audio_start|>"],
        "audio_end_token_id": SPECIAL["<|audio_end|>"],
        "initializer_range": 0.02,
    }
    top: dict[str, Any] = {
        "architectures": ["Qwen3ASRForConditionalGeneration"],
        "model_type": "qwen3_asr",
        "thinker_config": thinker,
    }
    if kind == "aligner":
        thinker["classify_num"] = CLASSES
        top |= {"timestamp_token_id": MARKS["<timestamp>"], "timestamp_segment_time": 80}
    (directory / "config.json").write_text(json.dumps(top, indent=1))
    renamed = {}
    for name, tensor in load_file(directory / "model.safetensors").items():
        for ours, theirs in (
            ("model.multi_modal_projector.linear_1.", "audio_tower.proj1."),
            ("model.multi_modal_projector.linear_2.", "audio_tower.proj2."),
            ("model.audio_tower.", "audio_tower."),
            ("model.language_model.", "model."),
            ("score.", "lm_head."),
            ("lm_head.", "lm_head."),
        ):
            if name.startswith(ours):
                renamed["thinker." + theirs + name.removeprefix(ours)] = tensor
                break
        else:
            raise SystemExit(f"what is {name}?")
    save_file(renamed, directory / "model.safetensors", metadata={"format": "pt"})
    WhisperFeatureExtractor(feature_size=128).save_pretrained(directory)
    (directory / "chat_template.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))


def make(
    directory: Path,
    kind: str = "asr",
    layout: str = "released",
    mode: str = "scripted",
    text: str = "hello brave new world",
    language: str = "English",
    seed: int = 0,
    size: str = "tiny",
) -> None:
    """Write one checkpoint: `kind` asr or aligner, `layout` released or hf, `mode` scripted or random, `size`."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    words = ["language", f" {language}", *tokens_of(text)]
    vocabulary = write_tokenizer(directory, words)
    made = Qwen3ASRForConditionalGeneration if kind == "asr" else Qwen3ASRForTokenClassification
    model = made(configuration(kind, size)).eval()
    with torch.no_grad():
        if size == "0.6b":
            pass  # as transformers initialises it
        elif mode == "random":
            make_noise(model, vocabulary)
        elif kind == "aligner":
            script_times(model)
        else:
            begin, spoken = ["\n", *words[:2]], words[2:]
            script = [vocabulary[in_vocabulary(word)] for word in begin] + [MARKS["<asr_text>"]]
            script += [vocabulary[in_vocabulary(word)] for word in spoken] + [SPECIAL["<|im_end|>"]]
            script_text(model, script)
    # As released: the decoder's classes of time need more than the eight bits of bfloat16 to be told apart.
    model.to(torch.float32 if kind == "aligner" else torch.bfloat16).save_pretrained(directory)
    GenerationConfig(eos_token_id=[151643, 151645], pad_token_id=151643).save_pretrained(directory)
    if layout == "released":
        release(directory, kind)
    else:
        extractor, tokenizer = Qwen3ASRFeatureExtractor(), AutoTokenizer.from_pretrained(directory)
        Qwen3ASRProcessor(extractor, tokenizer).save_pretrained(directory)


def main() -> None:
    directory, wanted = Path(sys.argv[1]), json.loads(sys.argv[2])
    for name, how in wanted.items():
        make(directory / name, **how)


if __name__ == "__main__":
    main()
