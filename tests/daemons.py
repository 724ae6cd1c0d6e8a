"""A real daemon for tests: started as a process, talked to over its sockets, its log checked at the end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from audioctl.client import Client
from audioproto.control import GetStatus

TOP = Path(__file__).resolve().parents[1]
AUDIO = TOP / "tests" / "data" / "audio"


class Daemon:
    """A daemon process of the test's own, on a free port, with the installed models and a fresh configuration."""

    def __init__(self, directory: Path, state_dir: Path, settings: str = "", made: Path | None = None) -> None:
        """`made` is a folder of code with engines made for tests (see tests/made), whose models it has too."""
        self.directory = directory
        self.made = made
        self.socket = directory / "control.sock"
        self.config = directory / "audiod.toml"
        self.log = directory / "log"
        self.config.write_text(
            f'[storage]\nruntimes_dir = "{state_dir / "runtimes"}"\nmodels_dir = "{state_dir / "models"}"\n{settings}'
        )
        (directory / "models.d").mkdir(exist_ok=True)
        for file in [*(TOP / "etc" / "models.d").glob("*.toml"), *((made or directory) / "models.d").glob("*.toml")]:
            (directory / "models.d" / file.name).write_text(file.read_text())
        self.url = ""

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOD_")}
        kept |= {"PYTHONPATH": f"{TOP / 'daemon'}:{TOP / 'ctl'}", "PYTHONWARNINGS": "error"}
        return kept | ({"MADE_FOR_TESTS": str(self.made)} if self.made else {})

    def command(self) -> list[str]:
        return [
            *(sys.executable, str(TOP / "tests" / "guarded_daemon.py"), "serve", "--config", str(self.config)),
            *("--port", "0", "--socket", str(self.socket), "--state-dir", str(self.directory / "state")),
        ]

    def start(self, pass_fds: Sequence[int] = ()) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environment(),
                text=True,
                pass_fds=pass_fds,
            )
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        if " serves " not in first:
            self.process.stdout.close()
        assert " serves " in first, f"the daemon did not start: {self.log.read_text()}"
        self.url = first.split(" serves ")[1].split()[0]

    def stop(self) -> int:
        """SIGTERM, as systemd would; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def check_log(self) -> None:
        """Whatever a test is about: nothing blocked the loop, and nothing unexpected was raised."""
        text = self.log.read_text()
        assert "BlockingError" not in text, text
        assert "unexpected error" not in text, text
        assert "Traceback" not in text, text

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run audioctl against this daemon."""
        return subprocess.run(
            [sys.executable, "-m", "audioctl", "--socket", str(self.socket), *arguments],
            capture_output=True,
            text=True,
            env=self.environment(),
            timeout=120,
        )

    def status(self) -> dict[str, Any]:
        # Asked for so often that starting a program each time would be felt.
        status: dict[str, Any] = json.loads(Client(str(self.socket)).call(GetStatus()))
        return status

    def model(self, name: str) -> dict[str, Any]:
        return next(model for model in self.status()["models"] if model["model"] == name)

    def get(self, path: str) -> tuple[int, bytes]:
        return self.request("GET", path)

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """One plain HTTP request; an error status is an answer here."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, body, named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@contextlib.contextmanager
def running(directory: Path, state_dir: Path, settings: str = "", made: Path | None = None) -> Iterator[Daemon]:
    daemon = Daemon(directory, state_dir, settings, made)
    daemon.start()
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.stop()
        daemon.check_log()


def say(daemon: Daemon, text: str = "Hello there.", **more: object) -> tuple[int, bytes]:
    body = {"model": "tts-1", "voice": "alloy", "input": text, "response_format": "wav"} | more
    return daemon.request("POST", "/v1/audio/speech", json.dumps(body).encode(), Content_Type="application/json")


def form(file: bytes, **fields: str) -> tuple[bytes, str]:
    """A multipart body and its content type."""
    parts = [f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    parts.append(b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + file + b"\r\n--b--\r\n")
    return b"".join(parts), "multipart/form-data; boundary=b"


def transcribe(daemon: Daemon, file: bytes, **fields: str) -> tuple[int, bytes]:
    body, kind = form(file, **({"model": "whisper-1"} | fields))
    return daemon.request("POST", "/v1/audio/transcriptions", body, Content_Type=kind)
