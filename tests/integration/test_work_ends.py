"""A client that leaves takes its work with it: nothing is computed any more for an answer that nobody waits for."""

from __future__ import annotations

import http.client
import json
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from audioproto.types import PCM_RATE_IN
from daemons import Daemon, form, say
from sounds import wav
from zygotes import recording

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
GRACE_S = 10.0
"""residency.abort_grace, unless configured."""


def cpu_s(pid: int) -> float:
    """Seconds that all threads of the process have computed, in the kernel or out of it; -1 once it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1.0
    return (int(fields[11]) + int(fields[12])) * TICK_S


def until(daemon: Daemon, model: str, leases: int) -> None:
    while daemon.model(model)["leases"] != leases:
        pass


def ask(daemon: Daemon, path: str, body: bytes, kind: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(urlsplit(daemon.url).netloc, timeout=120)
    connection.request("POST", path, body, {"Content-Type": kind})
    return connection


def check_that_work_stops(daemon: Daemon, model: str, client: http.client.HTTPConnection) -> None:
    until(daemon, model, leases=1)
    worker = daemon.model(model)["worker_pid"]
    before_s = cpu_s(worker)
    while cpu_s(worker) < before_s + 0.3:  # it is at work
        daemon.status()
    assert client.sock is not None
    client.sock.close()
    client.close()
    left_at = time.monotonic()
    until(daemon, model, leases=0)
    assert time.monotonic() - left_at < GRACE_S + 5
    stopped_s = cpu_s(worker)
    for _ in range(5):
        assert say(daemon, "Some work elsewhere, so that time goes by.", model="hibari")[0] == 200
    assert cpu_s(worker) <= stopped_s + 3 * TICK_S


def test_when_the_client_leaves_transcribing_stops(daemon: Daemon) -> None:
    daemon.ctl("load", "whisper-base")
    audio = np.tile(recording("librispeech-6930-75918-0001"), 20).astype(np.float64)
    body, kind = form(wav(audio, PCM_RATE_IN), model="whisper-base", language="en")
    check_that_work_stops(daemon, "whisper-base", ask(daemon, "/v1/audio/transcriptions", body, kind))


def test_when_the_client_leaves_speaking_stops(daemon: Daemon) -> None:
    daemon.ctl("load", "kokoro-82m")
    text = "This is one of very many sentences, and the next one is too. " * 60
    body = json.dumps({"model": "kokoro-82m", "voice": "af_heart", "input": text, "response_format": "pcm"})
    client = ask(daemon, "/v1/audio/speech", body.encode(), "application/json")
    check_that_work_stops(daemon, "kokoro-82m", client)
