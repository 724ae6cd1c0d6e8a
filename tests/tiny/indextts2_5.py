"""Makes tiny IndexTTS-2.5 checkpoints, with all that belongs to one; run by the runtime's Python.

    indextts2_5.py DIRECTORY '{"NAME": {"codes": 13}, ...}'

Arguments of a checkpoint are those of `make`. What indextts2.py beside it makes is made by that: the voice's encoders,
the diffusion model and the vocoder, as the released files have them, with weight norms that the library folds. A code
is 40 ms here. The vocabulary of the tokenizer are bytes; its first two, "!" and a quotation mark, are the ids that the
language model takes for a text's beginning and end, as in the released one.

With `size` "full" a checkpoint has the dimensions of the released one (IndexTeam/IndexTTS-2.5, config.yaml), and
weights as a model has before it is trained. Knows of audiod how it imports the libraries, and nothing else. The file
has not the library's name, because it would be found in its place.
"""

from __future__ import annotations

import base64
import json
import random
import sys
from pathlib import Path
from typing import Any

import indextts2 as two
import torch
import yaml

from audioworker import device
from audioworker.indextts import checkpoint2, checkpoint25

ENCODING = "multilingual_zh_ja_yue_char_del"

TINY: dict[str, Any] = two.TINY | {"width": 64, "heads_of_width": 4, "tokens": 256}
FULL: dict[str, Any] = two.FULL | {"width": 1280, "heads_of_width": 20, "tokens": 58_836}


def configuration(size: dict[str, Any], text_tokens: int) -> dict[str, Any]:
    """Like that of IndexTTS2, but for the language model and the codec."""
    plain: dict[str, Any] = two.configuration(size, text_tokens)
    for unknown in ("condition_type", "condition_module", "use_mel_codes_as_input", "train_solo_embeddings"):
        del plain["gpt"][unknown]
    plain["gpt"] |= {"model_dim": size["width"], "heads": size["heads_of_width"]}
    del plain["qwen_emo_path"]
    return plain | {"dataset": {"bpe_model": f"{ENCODING}.tiktoken"}, "version": 2.5}


def make(directory: Path, size: str = "tiny", codes: int = 13, seed: int = 0) -> None:
    from munch import munchify

    torch.manual_seed(seed)
    random.seed(seed)
    sizes = FULL if size == "full" else TINY
    (directory / "hf_cache/bigvgan").mkdir(parents=True)
    plain = configuration(sizes, make_vocabulary(directory, sizes["tokens"]))
    (directory / "config.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    config = munchify(plain)
    make_gpt(directory / "gpt.pth", config, codes if size == "tiny" else -1)
    make_codec(directory / "codec.pth", config)
    two.make_w2v(directory, sizes)
    two.make_emotions(directory, sizes["width"], strength=1.0)
    two.make_style(directory / "hf_cache/campplus_cn_common.bin")
    networks = two.make_s2mel(directory / "s2mel.pth", config)
    two.make_vocoder(directory / "hf_cache/bigvgan", sizes, networks, calibrated=size == "tiny")


def make_vocabulary(directory: Path, tokens: int) -> int:
    """Bytes, and then pairs of them that no text has; returns how many tokens there are with the special ones."""
    from indextts25.utils.tokenizer import get_encoding

    ranks = [bytes([code]) for code in (*range(33, 127), *(code for code in range(256) if not 33 <= code < 127))]
    ranks += [bytes([0, 0, number >> 8, number & 255]) for number in range(tokens - 256)]
    lines = (f"{base64.b64encode(token).decode()} {number}\n" for number, token in enumerate(ranks))
    (directory / f"{ENCODING}.tiktoken").write_text("".join(lines))
    count: int = get_encoding(ENCODING, model_dir=str(directory)).n_vocab
    return count


def make_gpt(file: Path, config: Any, codes: int) -> None:
    """With the text head that training leaves behind."""
    from indextts25.gpt.model_v2 import UnifiedVoice

    gpt = UnifiedVoice(**config.gpt).eval()
    # The code that begins has a place of its own. In so narrow a model emotions have to be loud to be heard.
    two.write_end(gpt, config.gpt, codes - 1, context=100.0)
    with torch.no_grad():
        for block in gpt.gpt.h:
            block.attn.c_proj.weight[:, :2] = 0  # where the end is written
    head = torch.nn.Linear(config.gpt.model_dim, config.gpt.number_text_tokens + 1)
    torch.save(gpt.state_dict() | {f"text_head.{name}": one for name, one in head.state_dict().items()}, file)


def make_codec(file: Path, config: Any) -> None:
    """With something of an encoder, which nobody needs."""
    from indextts25.codec.models import EnhancedCodec

    codec = EnhancedCodec(**config.semantic_codec)
    torch.save({"model": codec.state_dict() | {"encoder.0.embed.bias": torch.zeros(8)}}, file)


def main() -> None:
    device.prepare_torch()
    checkpoint2.import_library()
    checkpoint25.import_library()
    for name, arguments in json.loads(sys.argv[2]).items():
        make(Path(sys.argv[1], name), **arguments)


if __name__ == "__main__":
    main()
