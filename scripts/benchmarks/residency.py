"""Models that come and go: what unloading gives back, switching, queueing, the scheduler alone."""

from __future__ import annotations

import contextlib
import http.client
import json
import statistics

from benchmarks.daemons import MODELS, SECOND, SENTENCE, daemon, model_processes
from benchmarks.machine import Figures, field_bytes, open_files, pss_bytes, spread
from benchmarks.programs import BIN, output_of, timed


def unload(calls: int) -> Figures:
    """What a load and a request have taken is back after the unload: processes, their memory, shared memory."""
    figures: Figures = {"targets": {}}
    with daemon() as one:
        for model in MODELS:
            for _ in range(2):  # what the daemon itself allocates once and keeps
                one.ask(model)
                one.ctl("unload", model)
            residue, held = [], []
            left = 0
            for _ in range(5):
                before = pss_bytes(one.tree()) + field_bytes("/proc/meminfo", "Shmem")
                one.ask(model)
                held.append((pss_bytes(one.tree()) + field_bytes("/proc/meminfo", "Shmem") - before) / 1e6)
                one.ctl("unload", model)
                left = max(left, len(model_processes(one)))
                residue.append((pss_bytes(one.tree()) + field_bytes("/proc/meminfo", "Shmem") - before) / 1e6)
            figures[model] = {
                "processes_left": left,
                "held_mb": round(statistics.median(held), 1),
                "residue_mb": spread(residue, 3),
            }
            figures["targets"][f"{model}: no process, within 1 MB"] = not left and statistics.median(residue) <= 1
    return figures


def switch(calls: int) -> Figures:
    """Two models of which one fits, asked for in turns: the time that a switch adds to a request, and what is left.

    `fork`: the other one is parked. `spawn`: there is room for one zygote only, so that each switch starts one.
    """
    figures: Figures = {"targets": {}}
    for kind, park_budget, times in (("fork", "4GiB", 4 * calls), ("spawn", "250MiB", max(10, calls // 2))):
        settings = f'[residency]\nbudget = "110MiB"\npark_budget = "{park_budget}"\nmax_switch_wait = "0s"\n'
        with daemon(settings) as one:
            for model in ("hibari", SECOND) * 2:
                one.ask(model)
            before, descriptors = pss_bytes([one.process.pid]), open_files(one.process.pid)
            switched, stayed, most_workers = [], [], 0
            for number in range(times):
                model = ("hibari", SECOND)[number % 2]
                switched.append(one.ask(model))
                stayed.append(one.ask(model))
                most_workers = max(most_workers, sum(name.startswith("worker:") for name in model_processes(one)))
            added = [after - without for after, without in zip(switched, stayed, strict=True)]
            figures[kind] = {
                "switch_s": spread(added),
                "request_s": spread(stayed),
                "most_workers_at_a_time": most_workers,
                "descriptors_grown_by": open_files(one.process.pid) - descriptors,
                "daemon_grown_by_mb": round((pss_bytes([one.process.pid]) - before) / 1e6, 2),
            }
            one.ctl("unload", "hibari", SECOND)
            figures[kind]["processes_left"] = len(model_processes(one))
    figures["spawn_over_fork"] = round(figures["spawn"]["switch_s"]["p50"] / figures["fork"]["switch_s"]["p50"], 1)
    return figures


def queue(calls: int) -> Figures:
    """What a waiting request costs the daemon: 1,000 of them behind one that is at work."""
    waiting = 1000
    settings = f'[residency]\nqueue_requests = {waiting + 1}\nqueue_timeout = "10m"\n'
    with daemon(settings) as one, contextlib.ExitStack() as open_connections:
        one.ask("kokoro-82m")
        rss = field_bytes(f"/proc/{one.process.pid}/status", "VmRSS")

        def send(text: str) -> None:
            connection = http.client.HTTPConnection(str(one.address.hostname), one.address.port)
            open_connections.callback(connection.close)
            body = json.dumps({"model": "kokoro-82m", "voice": "alloy", "input": text, "response_format": "pcm"})
            connection.request("POST", "/v1/audio/speech", body, {"Content-Type": "application/json"})

        for _ in range(waiting + 1):
            send(SENTENCE * 40)
        while (queued := json.loads(one.ctl("status", "--json"))["queue"]) < waiting:
            pass
        grown = field_bytes(f"/proc/{one.process.pid}/status", "VmRSS") - rss
        answered_s = timed(BIN / "audioctl", "--socket", one.socket, "status")
    return {"queued": queued, "rss_kb_per_request": round(grown / 1e3 / queued, 1), "status_s": round(answered_s, 3)}


def scheduler(calls: int) -> Figures:
    """Events that the scheduler takes in a second, with 12 models and 1,000 requests waiting."""
    rates = [float(output_of(BIN / "python", "-m", "benchmarks.inside.scheduler")) for _ in range(5)]
    return {
        "events_per_s": spread(rates, 0),
        "targets": {"events_per_s p50 >= 10000": statistics.median(rates) >= 10_000},
    }
