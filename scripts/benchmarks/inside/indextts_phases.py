"""Seconds and device memory of each phase of IndexTTS2: for a new voice, with an emotion described, for a known voice.

    python -m benchmarks.inside.indextts_phases DIRECTORY WAV DEVICE CAP_GIB CODES OPTIONS

CAP_GIB of 0 is no cap, OPTIONS are the engine's, as JSON. Knows the inside of the engine: how many codes a text makes
is forced, because random weights find no end.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.inside.common import Memory, engine_of, samples, say, timed

TEXT = "今天我们来说一说这个地方的人。"
CODE_S = 0.02


def main(directory: str, file: str, device: str, cap_gib: float, codes: int, options: dict[str, Any]) -> None:
    import numpy as np
    import torch

    from audioproto.worker import Emotion, Phase, Recording, Reference, Sampling, Synthesize
    from audioworker.engines import indextts2
    from audioworker.indextts import speaker

    indextts2.Engine.codes_per_token, indextts2.Engine.least_codes, speaker._TRIES = 0, codes, 1
    it = engine_of("indextts2", directory, device, memory_bytes=int(cap_gib * 2**30), **options)
    figures: dict[str, Any] = {"torch": torch.__version__, "options": options}
    if device != "cpu":
        torch.cuda.init()
        figures |= {"device": torch.cuda.get_device_name(), "capped_gib": cap_gib}
    memory = Memory(device)
    figures["read_s"] = round(timed(it.prepare), 3)
    figures["load_s"] = round(timed(it.load, memory.settle), 3)
    figures["loaded_mb"] = memory.now_mb()
    figures["warm_s"] = round(timed(it.warm, memory.settle), 3)
    seen: list[Phase] = []
    it.on_phase = seen.append
    voice = samples(file)[: 15 * 16_000]
    reference = Reference(Recording(voice.size, 16_000))

    def speak(emotion: Emotion | None) -> Any:
        request = Synthesize(1, TEXT, reference=reference, emotion=emotion, sampling=Sampling(seed=1))
        return np.concatenate(list(it.synthesize(request, lambda recording: voice, lambda: False)))

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


if __name__ == "__main__":
    directory, file, device, cap_gib, codes, options = sys.argv[1:]
    main(directory, file, device, float(cap_gib), int(codes), json.loads(options))
