"""An engine of Qwen3-ASR and its library on the same call, in turns.

    python -m benchmarks.inside.qwen_calls ENGINE SCRIPTED NOISE COUNT

Knows the inside of the engines: what is forced here, such as how many tokens, no user can ask for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from benchmarks.inside.common import noise, ready, say, timed


def main(name: str, scripted: str, endless: str, count: int) -> None:
    """Seconds of the engine and of its library for 3 s of audio: ten tokens, and some 140."""
    from audioworker.engines import qwen_asr

    qwen_asr._REPEATS = 10**9  # random weights repeat themselves
    figures = {}
    for kind, directory in (("ten_tokens", scripted), ("140_tokens", endless)):
        it = ready(name, directory, vad=False)
        audio = noise(3)
        bare = package_alone(it, audio) if name == "qwen_asr_package" else transformers_alone(it, audio)
        pairs = []
        for number in range(count + 2):
            both = (through(it, audio), bare)
            order = both if number % 2 else both[::-1]
            took = [timed(call) for call in order]
            pairs.append(took if number % 2 else took[::-1])
        figures[kind] = {"engine_s": [one for one, _ in pairs[2:]], "library_s": [other for _, other in pairs[2:]]}
    say(figures)


def through(it: Any, audio: Any) -> Callable[[], object]:
    from audioproto.worker import Transcribe

    return lambda: list(it.transcribe(audio, Transcribe(0, audio.size), lambda: False))


def package_alone(it: Any, audio: Any) -> Callable[[], object]:
    it._package.max_new_tokens = 64 + 25 * 3 + 1
    return lambda: it._package.transcribe((audio, 16_000))


def transformers_alone(it: Any, audio: Any) -> Callable[[], object]:
    from audioworker import qwen3

    processor, model = it._checkpoint.processor, it._checkpoint.model
    prompt = f"<|im_start|>system\n<|im_end|>\n<|im_start|>user\n{qwen3.AUDIO}<|im_end|>\n<|im_start|>assistant\n"

    def call() -> object:
        inputs = processor(text=[prompt], audio=[audio], return_tensors="pt")
        inputs.pop("num_audio_tokens", None)
        written = model.generate(**inputs, max_new_tokens=64 + 25 * 3, eos_token_id=sorted(it._ends))
        return processor.tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return call


if __name__ == "__main__":
    name, scripted, endless, count = sys.argv[1:]
    main(name, scripted, endless, int(count))
