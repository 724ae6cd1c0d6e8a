"""Daemons to measure, on the models of the checkout, and what is asked of them."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import descendants
from benchmarks.programs import BIN, STATE, TOP, output_of

JFK = TOP / "tests" / "data" / "audio" / "jfk.wav"

SENTENCE = "The quick brown fox jumps over the lazy dog."

MODELS = {"hibari": "weights", "whisper-base": "imports", "kokoro-82m": "imports"}
"""What is measured, and what its zygote holds."""

SECOND = "hibari-second"
"""A copy of hibari, to switch to and fro."""

STAMPED = "stamped"

STAMPING_ENGINE = '''
"""stamped: an engine whose audio says when it was made, half a second of it every 20 ms, as often as the text says."""

import threading
import time
from typing import ClassVar

import numpy as np

from audioproto.types import Hold
from audioworker import engine


class Engine(engine.Engine, engine.Synthesizer):
    hold: ClassVar[Hold] = Hold.WEIGHTS
    sample_rate: ClassVar[int] = 24_000

    def load(self):
        pass

    def synthesize(self, request, recordings, cancelled):
        for _ in range(int(request.text)):
            threading.Event().wait(0.02)
            piece = np.zeros(12_000, np.float32)
            now = time.monotonic_ns()
            piece[:5] = [(now >> 15 * digit & 0x7FFF) / 32767 for digit in range(5)]
            yield piece
'''


class Daemon:
    """A daemon with fresh settings, spoken to over one connection that is kept."""

    def __init__(
        self, directory: Path, settings: str = "", *, stamped: bool = False, entries: dict[str, str] | None = None
    ) -> None:
        """`entries` are models' files by their name, beside those that come with audiod."""
        self.socket = directory / "control.sock"
        config = directory / "audiod.toml"
        config.write_text(f'[storage]\nruntimes_dir = "{STATE}/runtimes"\nmodels_dir = "{STATE}/models"\n{settings}')
        (directory / "models.d").mkdir()
        for file in (TOP / "etc" / "models.d").glob("*.toml"):
            (directory / "models.d" / file.name).write_text(file.read_text())
        second = (directory / "models.d" / "hibari.toml").read_text().replace('id = "hibari"', f'id = "{SECOND}"')
        (directory / "models.d" / "second.toml").write_text(second)
        for name, entry in (entries or {}).items():
            (directory / "models.d" / f"{name}.toml").write_text(entry)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOD_")}
        if stamped:
            add_stamping_engine(directory)
            environment["PYTHONPATH"] = str(directory / "daemon")
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [
                *(BIN / "python", "-m", "audiod", "serve", "--config", config, "--port", "0"),
                *("--socket", self.socket, "--state-dir", directory / "state"),
            ],
            stdout=subprocess.PIPE,
            stderr=(directory / "log").open("wb"),
            env=environment,
            text=True,
        )
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        if "serves" not in words:
            raise SystemExit((directory / "log").read_text())
        self.address = urllib.parse.urlsplit(words[words.index("serves") + 1])
        self.connection = http.client.HTTPConnection(str(self.address.hostname), self.address.port)
        while self.request("GET", "/health/ready")[0] != 200:
            pass
        self.ready_s = time.perf_counter() - began

    def request(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> tuple[int, bytes]:
        self.connection.request(method, path, body, {"Content-Type": kind})
        with self.connection.getresponse() as answer:
            return answer.status, answer.read()

    def ask(self, model: str) -> float:
        """Seconds that one request takes: jfk.wav to text, or a sentence to PCM."""
        if model.startswith(("whisper", "qwen")):
            path, (body, kind) = "/v1/audio/transcriptions", form(JFK.read_bytes(), model=model)
        else:
            recording = base64.b64encode(JFK.read_bytes()).decode()
            voice = f"data:audio/wav;base64,{recording}" if "tts" in model else "alloy"
            spoken = {"model": model, "voice": voice, "input": SENTENCE, "response_format": "pcm"}
            path, body, kind = "/v1/audio/speech", json.dumps(spoken).encode(), "application/json"
        began = time.perf_counter()
        status, answer = self.request("POST", path, body, kind)
        took_s = time.perf_counter() - began
        assert status == 200, answer
        return took_s

    def engine_s(self, model: str) -> float:
        """Seconds that the model's engine has worked, by the daemon's own metric; 0 where it has none."""
        text = self.request("GET", "/metrics")[1].decode()
        found = re.search(rf'^audiod_engine_seconds_total{{model="{model}"}} (.*)$', text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def row(self, model: str) -> dict[str, Any]:
        """Its row of `audioctl status --json`."""
        rows: list[dict[str, Any]] = json.loads(self.ctl("status", "--json"))["models"]
        return next(row for row in rows if row["model"] == model)

    def ctl(self, *arguments: str) -> str:
        return output_of(BIN / "audioctl", "--socket", self.socket, *arguments)

    def tree(self) -> list[int]:
        return [self.process.pid, *descendants(self.process.pid)]

    def close(self) -> None:
        self.connection.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def add_stamping_engine(directory: Path) -> None:
    """A tree of links to our code with one engine more, and a model of it."""
    engines = directory / "daemon" / "audioworker" / "engines"
    engines.mkdir(parents=True)
    for name in ("etc", "packaging", "daemon/audiod", "daemon/audioproto"):
        (directory / name).symlink_to(TOP / name)
    for target in (engines.parent, engines):
        for file in (TOP / target.relative_to(directory)).glob("*.py"):
            (target / file.name).symlink_to(file)
    (engines / f"{STAMPED}.py").write_text(STAMPING_ENGINE)
    model = (TOP / "etc" / "models.d" / "hibari.toml").read_text()
    model = model.replace('id = "hibari"', f'id = "{STAMPED}"').replace('engine = "hibari"', f'engine = "{STAMPED}"')
    (directory / "models.d" / "stamped.toml").write_text(model)


@contextlib.contextmanager
def daemon(settings: str = "", *, stamped: bool = False, entries: dict[str, str] | None = None) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="audiod-bench-") as directory:
        started = Daemon(Path(directory), settings, stamped=stamped, entries=entries)
        try:
            yield started
        finally:
            started.close()


def form(file: bytes, **fields: str) -> tuple[bytes, str]:
    """A multipart body and its content type."""
    parts = [f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    parts.append(b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + file + b"\r\n--b--\r\n")
    return b"".join(parts), "multipart/form-data; boundary=b"


def model_processes(one: Daemon) -> list[str]:
    """Zygotes and workers; the media processes end by themselves when idle."""
    names = []
    for pid in descendants(one.process.pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name.startswith(("zygote:", "worker:")):
                names.append(name)
    return names
