"""Run in the runtime of qwen_asr by a test: what reading checkpoints gives, for many of them with one import.

`compare KIND RELEASED HF` prints the largest difference of their logits on the same noise,
`threads ENGINE DIRECTORY` how many threads looking for speech adds,
`split HF TEXT` the words that the library aligns of a text, and
`refuse '[["ENGINE", "DIRECTORY", {OPTIONS}], ...]'` the errors that the engines come up with.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from audioproto.types import EngineSpec
from audioworker import device, engine, qwen3


def logits(kind: qwen3.Kind, directory: str) -> Any:
    import torch

    checkpoint = qwen3.read(EngineSpec("qwen_asr", "tiny", directory), kind, "float32", "sdpa")
    audio = np.random.default_rng(0).normal(0, 0.1, 80_000).astype(np.float32)
    inputs = checkpoint.processor(text=[qwen3.AUDIO + "abc"], audio=[audio], return_tensors="pt")
    inputs.pop("num_audio_tokens", None)
    with torch.inference_mode():
        return checkpoint.model(**inputs).logits


def compare(kind: qwen3.Kind, released: str, hf: str) -> dict[str, float]:
    device.prepare_torch()
    return {"difference": float((logits(kind, released) - logits(kind, hf)).abs().max())}


def refuse(tried: list[tuple[str, str, dict[str, object]]]) -> list[Any]:
    errors: list[Any] = []
    for name, directory, options in tried:
        try:
            engine.find(name)(EngineSpec(name, "tiny", directory, options=options)).prepare()
        except Exception as error:
            errors.append(msgspec.to_builtins(engine.typed(error).body()))
        else:
            errors.append(None)
    return errors


def threads(name: str, directory: str) -> dict[str, int]:
    made: Any = engine.find(name)(EngineSpec(name, "tiny", directory))
    made.prepare()
    tasks = Path("/proc/self/task")
    before = len(list(tasks.iterdir()))
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    assert list(made._cut(noise, 30)) == []
    return {"more": len(list(tasks.iterdir())) - before}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["threads", name, directory]:
            print(json.dumps(threads(name, directory)))
        case ["compare", ("asr" | "aligner") as kind, released, hf]:
            print(json.dumps(compare(kind, released, hf)))
        case ["split", hf, text]:
            from transformers import Qwen3ASRProcessor

            print(json.dumps(Qwen3ASRProcessor.from_pretrained(hf).split_words_for_alignment(text)))
        case ["refuse", tried]:
            print(json.dumps(refuse(json.loads(tried))))
