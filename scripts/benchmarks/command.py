"""Measure the daemon as its user meets it, and say how each figure stands to its target.

    scripts/bench                        everything, as a table
    scripts/bench start idle status      some of it
    scripts/bench --json FILE            and all figures as JSON ("-" is standard output)

    scripts/bench qwen_card              Qwen3-ASR 0.6B, random weights, on a GPU; not part of everything
    scripts/bench indextts_card          IndexTTS2, random weights, on a GPU; not part of everything

Starts daemons of its own, on the models of the checkout's .state, which it installs first. What is compared is
measured in turns within one run, so that a busy machine slows both sides alike. Figures are never asserted: a target
that is missed is printed as missed, and the exit status stays 0.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import indextts, qwen, residency, serving, speaking
from benchmarks.machine import Figures
from benchmarks.programs import BIN, STATE, TOP

MEASURES: dict[str, Callable[[int], Figures]] = {
    measure.__name__: measure
    for measure in (
        *(serving.start, serving.idle, serving.status, serving.first_answer, speaking.first_byte, speaking.piece),
        *(residency.unload, serving.latency, residency.switch, residency.queue, residency.scheduler),
        *(qwen.qwen, indextts.indextts, qwen.qwen_card, indextts.indextts_card),
    )
}

APART = ("qwen_card", "indextts_card")
"""Measured only by name: they take gigabytes and minutes."""

RUNTIMES = {
    "qwen": [*qwen.ENGINES.values()],
    "qwen_card": ["qwen-asr"],
    "indextts": ["indextts", "qwen-asr"],
    "indextts_card": ["indextts"],
}
"""What a measure needs that is not embedded."""


def main() -> int:
    root = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root.add_argument("measure", nargs="*", help=f"of {', '.join(MEASURES)}; all by default")
    root.add_argument("--calls", type=int, default=50, help="requests for a latency (50)")
    root.add_argument("--json", metavar="FILE", help="write all figures there")
    arguments = root.parse_args()
    if unknown := set(arguments.measure) - set(MEASURES):
        root.error(f"no measure {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    wanted = arguments.measure or [name for name in MEASURES if name not in APART]
    runtimes = sorted({runtime for measure in wanted for runtime in RUNTIMES.get(measure, ())})
    # Their progress is not part of what may be JSON on standard output.
    installs: list[list[object]] = [[TOP / "scripts/setup"]]
    installs.append([BIN / "audiod", "install", "--all-embedded", "--state-dir", STATE])
    installs += [[BIN / "audiod", "runtime", "install", runtime, "--state-dir", STATE] for runtime in runtimes]
    for command in installs:
        subprocess.run([*map(str, command)], check=True, stdout=sys.stderr)
    results: Figures = {
        "machine": {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()},
        "load_before": os.getloadavg()[0],
    }
    for name in wanted:
        print(f"{name}: {(MEASURES[name].__doc__ or '').strip()}", file=sys.stderr)
        load = os.getloadavg()[0]
        results[name] = MEASURES[name](arguments.calls) | {"load_before_and_after": [load, os.getloadavg()[0]]}
        for line in rows(results[name]):
            print(f"  {line}", file=sys.stderr)
    if arguments.json == "-":
        print(json.dumps(results, indent=2))
    elif arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n")
    return 0


def rows(figures: Figures, under: str = "") -> Iterator[str]:
    for name, value in figures.items():
        if name == "targets":
            continue
        if isinstance(value, dict) and "p50" in value:
            yield f"{under + name:<44} p50 {value['p50']:<10} p95 {value['p95']:<10} min {value['min']}"
        elif isinstance(value, dict):
            yield from rows(value, f"{under}{name}: ")
        else:
            yield f"{under + name:<44} {value}"
    for target, met in figures.get("targets", {}).items():
        yield f"{'met   ' if met else 'MISSED'}  {target}"
