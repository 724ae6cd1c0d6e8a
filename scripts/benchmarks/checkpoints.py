"""Models of generated checkpoints: making them, their runtimes, the states that they pass through."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.daemons import daemon
from benchmarks.machine import Figures, spread
from benchmarks.programs import BIN, TOP, output_of, runtime_python, timed


@contextlib.contextmanager
def checkpoints(runtime: str, script: str, wanted: dict[str, dict[str, Any]]) -> Iterator[Path]:
    """Checkpoints by tests/tiny/<script>.py, by their names in a directory."""
    with tempfile.TemporaryDirectory(prefix="audiod-bench-") as directory:
        output_of(runtime_python(runtime), TOP / f"tests/tiny/{script}.py", directory, json.dumps(wanted))
        yield Path(directory)


def states(model: str, entry: str, times: int, what: str) -> Figures:
    """What a model takes that is unloaded, parked or ready, for its first `what` (none where that is empty); and what
    parking and loading take alone."""
    found: dict[str, list[float]] = {}
    with daemon(entries={model: entry}) as one:

        def took(name: str, seconds: float) -> None:
            found.setdefault(f"{name}_s", []).append(seconds)

        def ctl(name: str, *arguments: str) -> None:
            took(name, timed(BIN / "audioctl", "--socket", one.socket, *arguments, model))

        one.ctl("load", model)
        for _ in range(times):
            if what:  # a text of random weights has no end
                took(f"{what}_when_ready", one.ask(model))
                one.ctl("park", model)
                took(f"{what}_when_parked", one.ask(model))
                one.ctl("unload", model)
                took(f"{what}_when_unloaded", one.ask(model))
            ctl("park", "park")
            ctl("load_from_parked", "load")
            ctl("unload", "unload")
            ctl("load_from_unloaded", "load")
    return {name: spread(values) for name, values in found.items()}


def in_turns(entries: dict[str, str], times: int) -> Figures:
    """Seconds that a request takes longer because the other model has to leave first, and how often one really left.

    The budget is what the greater needs alone, with the work that it is at.
    """
    with daemon(entries=entries) as one:
        needs = []
        for model in entries:
            one.ask(model)
            needs.append(one.row(model)["needs"])
    budget = max(each["ready_bytes"] + each["work_bytes"] for each in needs)
    found: dict[str, list[float]] = {model: [] for model in entries}
    left = 0
    with daemon(f'[residency]\nbudget = "{budget}B"\nmax_switch_wait = "0s"\n', entries=entries) as one:
        for number in range((times + 1) * len(entries)):
            model = list(entries)[number % len(entries)]
            switched_s = one.ask(model)
            if number >= len(entries):
                left += sum(one.row(other)["state"] != "ready" for other in entries if other != model)
                found[model].append(switched_s - one.ask(model))
    return {f"to_{model}_s": spread(values) for model, values in found.items()} | {
        "switches": sum(map(len, found.values())),
        "with_the_other_gone": left,
        "budget_mb": round(budget / 1e6),
    }
