"""Time and memory of qwen_asr on a card, for lengths and batches.

    python -m benchmarks.inside.qwen_card DIRECTORY DEVICE DTYPE CAP_GB SECONDS...

Knows the inside of the engine: how many tokens are forced, because random weights find no end.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.inside.common import Memory, engine_of, noise, say, timed

TOKENS_PER_S = 150 * 4 / 3 / 60
"""150 words a minute, four tokens to three words."""

BATCHES = (1, 8)


def main(directory: str, device: str, dtype: str, cap_gb: float, lengths_s: Sequence[int]) -> None:
    """qwen_asr as it computes, with as many tokens to a chunk as somebody says in it; 0 for no cap on the memory."""
    import torch

    from audioworker.engines import qwen_asr

    qwen_asr._REPEATS = 10**9  # random weights repeat themselves
    figures: dict[str, Any] = {"torch": torch.__version__, "dtype": dtype}
    if device != "cpu":
        torch.cuda.init()
        figures["device"] = torch.cuda.get_device_name()
        if cap_gb:
            whole = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, cap_gb * 1e9 / whole))
            figures["capped_gb"] = cap_gb
    it = engine_of("qwen_asr", directory, device, max(BATCHES), dtype=dtype, vad=False)
    memory = Memory(device)
    figures["read_s"] = round(timed(it.prepare), 3)
    figures["load_s"] = round(timed(it.load, memory.settle), 3)
    figures["loaded_mb"] = memory.now_mb()
    figures["warm_s"] = round(timed(it.warm, memory.settle), 3)
    for seconds in lengths_s:
        for batch in BATCHES:
            memory.forget()
            key = f"{seconds}_s_times_{batch}"
            try:
                took_s = timed(lambda: hear(it, seconds, batch), memory.settle)  # noqa: B023 - called at once
            except torch.OutOfMemoryError:
                figures[key] = {"fits": False}
                continue
            figures[key] = {
                "fits": True,
                "took_s": round(took_s, 3),
                "real_time_factor": round(took_s / seconds / batch, 4),
                "peak_mb": memory.peak_mb(),
            }
    if not cap_gb:
        figures["decoding_100_tokens"] = compiled(it, memory)
    say(figures)


def hear(it: Any, seconds: float, batch: int) -> None:
    """As many jobs as `batch`, chunk by chunk together, each chunk to its last token."""
    from audioworker import chunks
    from audioworker.engines.qwen_asr import _Asked

    audio = [noise(seconds, seed) for seed in range(batch)]
    for begin, end in chunks.split(audio[0], it._chunk_s):
        limit = max(1, round((end - begin) / 16_000 * TOKENS_PER_S))
        it._compute(0.0, [it._begin(each[begin:end], _Asked("English"), limit=limit) for each in audio])


def compiled(it: Any, memory: Memory) -> dict[str, Any]:
    """transformers' own decoding of 10 s, with a cache that grows, and one that stands still and lets it compile.

    On a GPU transformers compiles the step for the latter and replays it as a CUDA graph; on the CPU it does not.
    """
    from audioworker import qwen3

    model, processor = it._checkpoint.model, it._checkpoint.processor
    prompt = f"<|im_start|>user\n{qwen3.AUDIO}<|im_end|>\n<|im_start|>assistant\nlanguage English<asr_text>"
    inputs = processor(text=[prompt], audio=[noise(10)], return_tensors="pt")
    inputs.pop("num_audio_tokens", None)
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    inputs["input_features"] = inputs["input_features"].to(model.dtype)
    found: dict[str, Any] = {}
    for name, more in (("growing", {}), ("static", {"cache_implementation": "static"})):

        def call(more: dict[str, str] = more) -> None:
            model.generate(**inputs, min_new_tokens=100, max_new_tokens=100, **more)
            memory.settle()

        try:
            first_s = timed(call)
            found[name] = {"first_s": round(first_s, 3), "s": round(min(timed(call) for _ in range(3)), 3)}
        except Exception as error:  # compilers fail in their own ways, and that is a figure too
            found[name] = {"error": f"{type(error).__name__}: {error}"[:200]}
    return found


if __name__ == "__main__":
    directory, device, dtype, cap_gb, *lengths_s = sys.argv[1:]
    main(directory, device, dtype, float(cap_gb), [int(seconds) for seconds in lengths_s])
