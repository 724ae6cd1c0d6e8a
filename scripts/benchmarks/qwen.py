"""Qwen3-ASR: both of its engines."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.checkpoints import checkpoints, states
from benchmarks.daemons import JFK
from benchmarks.machine import Figures, spread
from benchmarks.programs import first_gpu, inside

ENGINES = {"qwen_asr": "qwen-asr", "qwen_asr_package": "qwen-asr-package"}
"""The engines that serve Qwen3-ASR, the default first, with their runtimes."""


def qwen(calls: int) -> Figures:
    """Both engines of Qwen3-ASR on tiny checkpoints: coming up, the states, over their libraries, an hour of audio."""
    figures: Figures = {}
    with qwen_checkpoints({"scripted": {}, "noise": {"mode": "random"}}) as made:
        scripted, endless = made / "scripted", made / "noise"
        turns: dict[str, list[Figures]] = {engine: [] for engine in ENGINES}
        for _ in range(max(3, calls // 10)):
            for engine in ENGINES:
                turns[engine].append(inside(ENGINES[engine], "up", engine, scripted, '{"vad": false}'))
        for engine in ENGINES:
            figures[engine] = {
                "up": {name: spread([turn[name] for turn in turns[engine]]) for name in turns[engine][0]},
                "daemon": qwen_states(engine, scripted, max(3, calls // 10)),
            }
            found = inside(ENGINES[engine], "qwen_calls", engine, scripted, endless, calls)
            for kind, sides in found.items():
                added_ms = [(a - b) * 1000 for a, b in zip(sides["engine_s"], sides["library_s"], strict=True)]
                figures[engine][kind] = {
                    "engine_s": spread(sides["engine_s"]),
                    "library_s": spread(sides["library_s"]),
                    "added_ms_pairwise": spread(added_ms, 2),
                }
            figures[engine]["hour"] = inside(ENGINES[engine], "hour", engine, scripted, JFK, 60)
    return figures


def qwen_card(calls: int) -> Figures:
    """Qwen3-ASR 0.6B with random weights on the first GPU; where there is none, a tiny checkpoint on the CPU."""
    device, size, lengths_s, runs = "cpu", "tiny", [10, 60], [("float32", 0)]
    if first_gpu():
        device, size, lengths_s = "cuda:0", "0.6b", [10, 60, 600]
        runs = [(dtype, cap_gb) for dtype in ("float16", "bfloat16") for cap_gb in (0, 4)]
    figures: Figures = {"device": device, "size": size}
    with qwen_checkpoints({"full": {"size": size, "mode": "random"}}) as made:
        for dtype, cap_gb in runs:
            name = dtype + (f"_capped_at_{cap_gb}_gb" if cap_gb else "")
            figures[name] = inside("qwen-asr", "qwen_card", made / "full", device, dtype, cap_gb, *lengths_s)
        figures["daemon"] = qwen_states("qwen_asr", made / "full", max(3, calls // 10), wordy=False)
    return figures


def qwen_checkpoints(wanted: dict[str, dict[str, str]]) -> AbstractContextManager[Path]:
    return checkpoints("qwen-asr", "qwen3_asr", wanted)


def qwen_entry(model: str, checkpoint: Path, engine: str = "qwen_asr") -> str:
    return (
        f'id = "{model}"\nengine = "{engine}"\nruntime = "{ENGINES[engine]}"\ntask = "transcribe"\n'
        f'languages = ["en"]\npath = "{checkpoint}"\n'
    )


def qwen_states(engine: str, checkpoint: Path, times: int, *, wordy: bool = True) -> Figures:
    model = f"qwen-{engine.replace('_', '-')}"
    return states(model, qwen_entry(model, checkpoint, engine), times, "text" if wordy else "")
