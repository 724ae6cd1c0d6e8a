"""The daemon as its user meets it: starting, idling, answering, and what it adds to an engine."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator

from benchmarks.daemons import JFK, MODELS, SENTENCE, daemon
from benchmarks.machine import Figures, cpu_s, field_bytes, pss_bytes, spread, switches
from benchmarks.programs import BIN, SEEING_OURS, STATE, output_of, timed


def start(calls: int) -> Figures:
    """From exec to the first 200 of /health/ready, beside a Python that only imports aiohttp."""
    ready, bare = [], []
    for _ in range(max(5, calls // 5)):
        with daemon() as one:
            ready.append(one.ready_s)
        bare.append(timed(BIN / "python", "-c", "import aiohttp.web"))
    return {
        "ready_s": spread(ready),
        "import_aiohttp_s": spread(bare),
        "ratio": round(statistics.median(ready) / statistics.median(bare), 2),
        "targets": {"ready_s p50 <= 0.5": statistics.median(ready) <= 0.5},
    }


def idle(calls: int) -> Figures:
    """A daemon that has served nothing yet, and one whose models are unloaded again: memory, and work in 10 s."""
    with daemon() as one:
        pid = one.process.pid
        fresh = field_bytes(f"/proc/{pid}/status", "VmRSS")
        for model in MODELS:
            one.ask(model)
            one.ctl("unload", model)
        used = field_bytes(f"/proc/{pid}/status", "VmRSS")
        busy_s, switched = cpu_s(pid), switches(pid)
        time.sleep(10)
        busy_s, switched = cpu_s(pid) - busy_s, switches(pid) - switched
        return {
            "rss_fresh_mb": round(fresh / 1e6, 1),
            "rss_after_use_mb": round(used / 1e6, 1),
            "pss_after_use_mb": round(pss_bytes([pid]) / 1e6, 1),
            "cpu_in_10_s": round(busy_s, 3),
            "context_switches_in_10_s": switched,
            "targets": {"rss <= 50 MB fresh": fresh <= 50e6, "rss <= 50 MB after use": used <= 50e6},
        }


def latency(calls: int) -> Figures:
    """A request through the daemon in turns with the same engine called in a process of its own.

    Where the engine's own time varies by more than the daemon could add, the time around it in the same request says
    what the daemon adds: `around_engine_ms` is the request's time less what the worker measured for its engine.
    """
    figures: Figures = {"targets": {}}
    with daemon() as one:
        for model in ("whisper-base", "hibari"):
            around_ms = []
            with direct(model) as call:
                one.ask(model), call()
                pairs = []
                for number in range(calls):
                    if number % 2:
                        before_s, through_s, alone_s = one.engine_s(model), one.ask(model), call()
                    else:
                        alone_s, before_s, through_s = call(), one.engine_s(model), one.ask(model)
                    pairs.append((through_s, alone_s))
                    around_ms.append((through_s - (one.engine_s(model) - before_s)) * 1000)
            added_ms = [(through_s - alone_s) * 1000 for through_s, alone_s in pairs]
            through, alone = ([pair[side] for pair in pairs] for side in (0, 1))
            p50_ms = (statistics.median(through) - statistics.median(alone)) * 1000
            figures[model] = {
                "daemon_s": spread(through),
                "engine_s": spread(alone),
                "added_ms_of_medians": round(p50_ms, 2),
                "added_ms_pairwise": spread(added_ms, 2),
                "ratio": round(statistics.median(through) / statistics.median(alone), 3),
            }
            if one.engine_s(model):
                figures[model]["around_engine_ms"] = spread(around_ms, 2)
                p50_ms = statistics.median(around_ms)
            figures["targets"][f"{model}: added p50 <= 5 ms"] = p50_ms <= 5
    return figures


@contextlib.contextmanager
def direct(model: str) -> Iterator[Callable[[], float]]:
    """The engine alone in its runtime; each call gives the seconds of one job."""
    look = (
        "import sys; from pathlib import Path; from audiod import config; from audiod.models import catalogue, install;"
        "from audiod.runtimes import build; c = config.load(None, {}, {'AUDIOD_STATE_DIR': sys.argv[2]});"
        "e = catalogue.load(c.catalogue_dir)[sys.argv[1]]; p = c.places;"
        "print(build.find(e.runtime, p.locks_dir, p.runtimes_dir), e.engine, install.model_dir(e, p), sep='\\n')"
    )
    python, engine, model_dir = output_of(BIN / "python", "-c", look, model, STATE).splitlines()
    command = [python, "-m", "benchmarks.inside.alone", engine, model_dir, str(JFK), SENTENCE]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=SEEING_OURS, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asking, answers = process.stdin, process.stdout

        def call() -> float:
            asking.write("\n")
            asking.flush()
            return float(answers.readline())

        yield call
        asking.close()


def first_answer(calls: int) -> Figures:
    """The first request to a model that is ready, parked, or not there at all."""
    figures: Figures = {"targets": {}}
    with daemon() as one:
        for model, holds in MODELS.items():
            one.ask(model)
            times: dict[str, list[float]] = {"ready": [], "parked": [], "unloaded": []}
            for _ in range(max(5, calls // 10)):
                times["ready"].append(one.ask(model))
                one.ctl("park", model)
                times["parked"].append(one.ask(model))
                one.ctl("unload", model)
                times["unloaded"].append(one.ask(model))
            ratio = statistics.median(times["unloaded"]) / statistics.median(times["parked"])
            figures[model] = {"zygote_holds": holds, "unloaded_over_parked": round(ratio, 2)} | {
                f"{state}_s": spread(values) for state, values in times.items()
            }
            if holds == "weights":
                figures["targets"][f"{model}: parked >= 5 times faster"] = ratio >= 5
            one.ctl("unload", model)
    return figures


def status(calls: int) -> Figures:
    """`audioctl status`, in turns with a Python that does nothing."""
    with daemon() as one:
        ours, bare = [], []
        for _ in range(max(20, calls)):
            ours.append(timed(BIN / "audioctl", "--socket", one.socket, "status"))
            bare.append(timed(BIN / "python", "-c", "pass"))
    return {
        "status_s": spread(ours),
        "python_s": spread(bare),
        "ratio": round(statistics.median(ours) / statistics.median(bare), 2),
        "targets": {"status_s p50 <= 0.12": statistics.median(ours) <= 0.12},
    }
