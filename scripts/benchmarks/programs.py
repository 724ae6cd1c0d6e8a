"""Running programs of ours, in audiod's own environment or a runtime's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import Figures

TOP = Path(__file__).resolve().parents[2]
STATE = Path(os.environ.get("AUDIOD_STATE_DIR", TOP / ".state"))
BIN = TOP / ".venv" / "bin"

SEEING_OURS = os.environ | {"PYTHONPATH": f"{TOP}/daemon:{TOP}/scripts", "HF_HUB_OFFLINE": "1"}
"""An environment in which a runtime's Python finds our code, and no library a hub."""


def output_of(*command: object) -> str:
    ran = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True, env=SEEING_OURS)
    return ran.stdout.strip()


def timed(*command: object) -> float:
    """Seconds from its start to its end."""
    began = time.perf_counter()
    subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def runtime_python(runtime: str) -> str:
    look = (
        "import sys; from audiod import config; from audiod.runtimes import build;"
        "p = config.load(None, {}, {'AUDIOD_STATE_DIR': sys.argv[2]}).places;"
        "print(build.find(sys.argv[1], p.locks_dir, p.runtimes_dir) or '')"
    )
    python = output_of(BIN / "python", "-c", look, runtime, STATE)
    return python or sys.exit(f"the runtime {runtime} is not installed: audiod runtime install {runtime}")


def inside(runtime: str, program: str, *arguments: object) -> Figures:
    """The JSON that a program of `inside` prints in a runtime."""
    printed = output_of(runtime_python(runtime), "-m", f"benchmarks.inside.{program}", *arguments)
    figures: Figures = json.loads(printed.splitlines()[-1])
    return figures


def first_gpu() -> bool:
    return bool(int(output_of(BIN / "python", "-c", "from audiod import gpu; print(len(gpu.gpus()))")))
