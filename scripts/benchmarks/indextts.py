"""IndexTTS2."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from benchmarks.checkpoints import checkpoints, in_turns, states
from benchmarks.daemons import JFK
from benchmarks.machine import Figures, spread
from benchmarks.programs import TOP, first_gpu, inside, output_of, runtime_python
from benchmarks.qwen import qwen_checkpoints, qwen_entry

STAGED_GIB = 3.4
"""As etc/models.d/indextts-2.toml has it."""


def indextts(calls: int) -> Figures:
    """IndexTTS2 on a tiny checkpoint: coming up, the states, over its library, in turns with Qwen3-ASR."""
    figures: Figures = {}
    times = max(3, calls // 10)
    with (
        checkpoints("indextts", "indextts2", {"tiny": {}}) as made,
        qwen_checkpoints({"wide": {"size": "wide"}}) as heard,
    ):
        tiny = made / "tiny"
        turns = [inside("indextts", "up", "indextts2", tiny, "{}") for _ in range(times)]
        figures["up"] = {name: spread([turn[name] for turn in turns]) for name in turns[0]}
        figures["daemon"] = states("tiny-tts", indextts_entry("tiny-tts", tiny), times, "sound")
        figures["over_the_library"] = over_indextts(tiny, calls)
        entries = {
            "tiny-tts": indextts_entry("tiny-tts", tiny),
            "qwen-wide": qwen_entry("qwen-wide", heard / "wide"),
        }
        figures["in_turns"] = in_turns(entries, times)
    return figures


def indextts_card(calls: int) -> Figures:
    """IndexTTS2 with random weights on the first GPU: memory and time of each phase, staged and not; else tiny."""
    device, size, codes = ("cuda:0", "full", 500) if first_gpu() else ("cpu", "tiny", 50)
    runs: dict[str, tuple[float, Figures]] = {
        "as_the_library": (0, {}),
        "staged": (STAGED_GIB, {}),
        "in_4_gib": (4, {}),
        "float32": (0, {"dtype": "float32"}),
        "one_beam": (0, {"beams": 1}),
        "ten_steps": (0, {"beams": 1, "diffusion_steps": 10}),
        "compiled": (0, {"compile": True}),
    }
    figures: Figures = {"device": device, "size": size}
    with checkpoints("indextts", "indextts2", {"one": {"size": size, "codes": -1}}) as made:
        for name, (cap_gib, options) in runs.items():
            arguments = (made / "one", JFK, device, cap_gib, codes, json.dumps(options))
            figures[name] = inside("indextts", "indextts_phases", *arguments)
    return figures


def indextts_entry(model: str, checkpoint: Path) -> str:
    return (
        f'id = "{model}"\nengine = "indextts2"\nruntime = "indextts"\ntask = "speak"\nclones = true\n'
        f'languages = ["en", "zh"]\nscripts = ["latin", "han"]\npath = "{checkpoint}"\n'
    )


def over_indextts(checkpoint: Path, calls: int) -> Figures:
    """Our engine and the library's own program on the same text and voice, in turns."""
    python = runtime_python("indextts")
    texts = [{"text": "你好世界。", "seed": seed} for seed in range(calls + 2)]
    with tempfile.TemporaryDirectory(prefix="audiod-bench-") as directory:
        voice = Path(directory, "voice.npy")
        noise = "import numpy, sys; numpy.save(sys.argv[1], numpy.random.default_rng(0).normal(0, .1, 44100))"
        output_of(python, "-c", noise, voice)
        library = TOP / "tests/engines/indextts_library.py"
        printed = output_of(python, library, checkpoint, voice, directory, json.dumps(texts))
    took = json.loads(printed.splitlines()[-1])[2:]
    return {
        "engine_s": spread([call["ours_s"] for call in took]),
        "library_s": spread([call["library_s"] for call in took]),
        "added_ms_pairwise": spread([(call["ours_s"] - call["library_s"]) * 1000 for call in took], 2),
    }
