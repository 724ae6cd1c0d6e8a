"""What scripts/bench measures of IndexTTS2 inside its runtime. Run by the runtime's Python; prints one line of JSON.

    bench_indextts.py phases DIRECTORY WAV DEVICE CAP_GB CODES OPTIONS
        seconds and device memory of each phase, for a new voice, with and without an emotion's description, and for the
        voice a second time; CAP_GB of 0 is no cap, OPTIONS are the engine's, as JSON

Asserts nothing. Knows the inside of the engine: how many codes a text makes is forced, because random weights find no
end.
"""

from __future__ import annotations

import json
import sys
import wave
from collections.abc import Sequence
from typing import Any

from bench_qwen import Memory, say, timed

TEXT = "今天我们来说一说这个地方的人。"
CODE_S = 0.02


def phases(directory: str, file: str, device: str, cap_gb: float, codes: int, options: dict[str, Any]) -> None:
    import os

    import numpy as np
    import torch

    from audioproto.types import EngineSpec
    from audioproto.worker import Emotion, Phase, Recording, Reference, Sampling, Synthesize
    from audioworker.engines import indextts2

    indextts2._CODES_PER_TOKEN, indextts2._LEAST_CODES, indextts2._TRIES = 0, codes, 1
    with wave.open(file) as opened:
        rate_hz = opened.getframerate()
        samples = np.frombuffer(opened.readframes(15 * rate_hz), "<i2").astype(np.float32) / np.float32(32768)
    cap_bytes = int(cap_gb * 2**30)
    cores = len(os.sched_getaffinity(0))
    it = indextts2.Engine(
        EngineSpec("indextts2", "bench", directory, device, cores, options=options, memory_bytes=cap_bytes)
    )
    figures: dict[str, Any] = {"torch": torch.__version__, "options": options}
    if device != "cpu":
        torch.cuda.init()
        figures |= {"device": torch.cuda.get_device_name(), "capped_gib": cap_gb}
    memory = Memory(device)
    figures["read_s"] = round(timed(it.prepare), 3)
    figures["load_s"] = round(timed(lambda: (it.load(), memory.settle())), 3)
    figures["loaded_mb"] = memory.now_mb()
    figures["warm_s"] = round(timed(lambda: (it.warm(), memory.settle())), 3)
    seen: list[Phase] = []
    it.on_phase = seen.append
    reference = Reference(Recording(samples.size, rate_hz))

    def speak(emotion: Emotion | None) -> Any:
        request = Synthesize(1, TEXT, reference=reference, emotion=emotion, sampling=Sampling(seed=1))
        return np.concatenate(list(it.synthesize(request, lambda recording: samples, lambda: False)))

    for name, emotion in (("new_voice", None), ("described_emotion", Emotion(text="生气")), ("known_voice", None)):
        seen.clear()
        memory.forget()
        try:
            took_s = timed(lambda: speak(emotion))  # noqa: B023 - called at once
        except torch.OutOfMemoryError as error:
            figures[name] = {"fits": False, "error": str(error).splitlines()[0]}
            continue
        figures[name] = {
            "fits": True,
            "took_s": round(took_s, 3),
            "real_time_factor": round(took_s / (codes * CODE_S), 3),
            "peak_reserved_mb": memory.peak_mb(),
            "phases": [
                {"name": phase.name, "s": round(phase.seconds, 3), "peak_mb": round(phase.peak_bytes / 1e6, 1)}
                for phase in seen
            ],
        }
    say(figures)


def main(arguments: Sequence[str]) -> None:
    match arguments:
        case ["phases", directory, file, device, cap_gb, codes, options]:
            phases(directory, file, device, float(cap_gb), int(codes), json.loads(options))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
