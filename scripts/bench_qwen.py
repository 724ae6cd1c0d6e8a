"""What scripts/bench measures of Qwen3-ASR, and of any engine's coming up, inside a runtime.

Run by the runtime's Python; prints one line of JSON.

    bench_qwen.py up ENGINE DIRECTORY                     import, reading and loading: seconds and memory
    bench_qwen.py calls ENGINE SCRIPTED NOISE COUNT       the engine and its library on the same call, in turns
    bench_qwen.py hour ENGINE DIRECTORY WAV MINUTES       peak memory of long audio
    bench_qwen.py card DIRECTORY DEVICE DTYPE CAP_GB SECONDS...
                                                          time and memory of qwen_asr, for lengths and batches

Asserts nothing. Knows the inside of the engines: what is forced here, such as how many tokens, no user can ask for.
"""

from __future__ import annotations

import json
import sys
import time
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()

TOKENS_PER_S = 150 * 4 / 3 / 60
"""150 words a minute, four tokens to three words."""

BATCHES = (1, 8)


def status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(round(int(line.split()[1]) * 1024 / 1e6, 1) for line in lines if line.startswith(field + ":"))


def made(
    name: str, directory: str, device: str = "cpu", dtype: str = "auto", max_batch: int = 1, vad: bool = False
) -> Any:
    """`vad` where it is to hear speech; what is not measured with speech is noise."""
    import os

    from audioproto.types import EngineSpec
    from audioworker import engine

    cores = len(os.sched_getaffinity(0))
    options = {"dtype": dtype} | ({"vad": vad} if name.startswith("qwen_asr") else {})
    spec = EngineSpec(name, "bench", directory, device, cores, max_batch, max_batch, options=options)
    return engine.find(name)(spec)


def ready(*arguments: Any, vad: bool = False) -> Any:
    it = made(*arguments, vad=vad)
    it.prepare()
    it.load()
    it.warm()
    return it


def noise(seconds: float, seed: int = 0) -> Any:
    import numpy as np

    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * 16_000)).astype(np.float32)


def say(figures: dict[str, Any]) -> None:
    print(json.dumps(figures))


# --- coming up --------------------------------------------------------------------------------------------------------


def up(name: str, directory: str) -> None:
    """Times and memory between the steps that an engine says it takes."""
    steps = [("start", STARTED, 0.0)]
    it = made(name, directory)
    it.on_progress = lambda message: steps.append((message, time.perf_counter(), status_mb("VmRSS")))
    it.prepare()
    it.load()
    it.warm()
    it.progress("end")
    began = {message.partition(" ")[0]: (at, mb) for message, at, mb in steps}
    say(
        {
            "import_s": round(began["reading"][0] - began["importing"][0], 3),
            "imported_rss_mb": began["reading"][1],
            "read_s": round(began["moving"][0] - began["reading"][0], 3),
            "load_and_warm_s": round(began["end"][0] - began["moving"][0], 3),
            "loaded_rss_mb": began["end"][1],
            "peak_rss_mb": status_mb("VmHWM"),
        }
    )


# --- over the library -------------------------------------------------------------------------------------------------


def calls(name: str, scripted: str, endless: str, count: int) -> None:
    """Seconds of the engine and of its library for 3 s of audio: ten tokens, and some 140."""
    from audioworker.engines import qwen_asr

    qwen_asr._REPEATS = 10**9  # random weights repeat themselves
    figures = {}
    for kind, directory in (("ten_tokens", scripted), ("140_tokens", endless)):
        it = ready(name, directory)
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


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


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


# --- long audio -------------------------------------------------------------------------------------------------------


def hour(name: str, directory: str, file: str, minutes: int) -> None:
    """A recording again and again. The samples themselves are in the memory, four bytes each."""
    import numpy as np

    from audioproto.worker import Transcribe

    with wave.open(file) as opened:
        once = np.frombuffer(opened.readframes(opened.getnframes()), "<i2").astype(np.float32) / np.float32(32768)
    it = ready(name, directory, vad=True)
    through(it, once)()
    audio = np.resize(once, minutes * 60 * 16_000)
    before = status_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    began = time.perf_counter()
    segments = sum(1 for _ in it.transcribe(audio, Transcribe(0, audio.size), lambda: False))
    say(
        {
            "minutes": minutes,
            "segments": segments,
            "took_s": round(time.perf_counter() - began, 2),
            "samples_mb": round(audio.nbytes / 1e6, 1),
            "rss_before_mb": before,
            "peak_rss_mb": status_mb("VmHWM"),
        }
    )


# --- on a card --------------------------------------------------------------------------------------------------------


class Memory:
    """What a device's allocator holds; on the CPU what the process does."""

    def __init__(self, device: str) -> None:
        import torch

        self._cuda = torch.cuda if device != "cpu" else None

    def now_mb(self) -> float:
        return round(self._cuda.memory_allocated() / 1e6, 1) if self._cuda else status_mb("VmRSS")

    def peak_mb(self) -> float:
        """Since `forget`, of what is reserved: what the device lacks for others, but for the context."""
        return round(self._cuda.max_memory_reserved() / 1e6, 1) if self._cuda else status_mb("VmHWM")

    def forget(self) -> None:
        if self._cuda:
            self._cuda.empty_cache()
            self._cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def settle(self) -> None:
        if self._cuda:
            self._cuda.synchronize()


def card(directory: str, device: str, dtype: str, cap_gb: float, lengths_s: Sequence[int]) -> None:
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
    it = made("qwen_asr", directory, device, dtype, max(BATCHES))
    memory = Memory(device)
    figures["read_s"] = round(timed(it.prepare), 3)
    figures["load_s"] = round(timed(lambda: (it.load(), memory.settle())), 3)
    figures["loaded_mb"] = memory.now_mb()
    figures["warm_s"] = round(timed(lambda: (it.warm(), memory.settle())), 3)
    for seconds in lengths_s:
        for batch in BATCHES:
            memory.forget()
            key = f"{seconds}_s_times_{batch}"
            try:
                took_s = timed(lambda: (hear(it, seconds, batch), memory.settle()))  # noqa: B023 - called at once
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


def main(arguments: Sequence[str]) -> None:
    match arguments:
        case ["up", name, directory]:
            up(name, directory)
        case ["calls", name, scripted, endless, count]:
            calls(name, scripted, endless, int(count))
        case ["hour", name, directory, file, minutes]:
            hour(name, directory, file, int(minutes))
        case ["card", directory, device, dtype, cap_gb, *lengths_s]:
            card(directory, device, dtype, float(cap_gb), [int(seconds) for seconds in lengths_s])
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
