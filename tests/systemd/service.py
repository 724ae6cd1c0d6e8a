"""audiod as it runs in a box: asked over HTTP from inside the box's network, and steered with systemctl and audioctl.

Holds no tests. What fails here fails with the words of whoever was asked.
"""

from __future__ import annotations

import collections
import http.client
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

from systemd.box import Box

T = TypeVar("T")

PORT = 8000
UNITS = ("audiod.service", "audiod.socket", "audiod-control.socket")

_PATIENCE_S = 120.0
"""For one answer: a model may have to be loaded first, on a machine that does other things too."""


def until(condition: Callable[[], object], what: str, limit_s: float = 60.0) -> float:
    """Look again and again until `condition` holds; returns the seconds that took."""
    started = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - started
        assert waited_s < limit_s, f"not within {limit_s:.0f} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - started


class Service:
    """The service in `box`."""

    def __init__(self, box: Box) -> None:
        self.box = box

    # --- HTTP ---------------------------------------------------------------------------------------------------

    def inside(self, function: Callable[[], T]) -> T:
        """What `function` returns when its sockets are the box's."""
        with ThreadPoolExecutor(1, initializer=self.box.enter_network) as thread:
            return thread.submit(function).result()

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """One request over a connection of its own; an error status is an answer here."""
        return self.inside(lambda: ask(method, path, body, headers or {})[:2])

    def speak(self, text: str = "Hello from the box.", model: str = "hibari") -> bytes:
        """A WAV file with `text`."""
        status, audio = self.request(*speech(text, model))
        assert status == 200, audio
        return audio

    def transcribe(self, audio: bytes, model: str = "whisper-base") -> str:
        boundary = secrets.token_hex(8)
        parts = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n'.encode(),
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'.encode() + audio,
            f"\r\n--{boundary}--\r\n".encode(),
        )
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        status, answer = self.request("POST", "/v1/audio/transcriptions", b"".join(parts), headers)
        assert status == 200, answer
        text: str = json.loads(answer)["text"]
        return text

    # --- systemd and audioctl -----------------------------------------------------------------------------------

    def systemctl(self, *arguments: str, check: bool = True) -> int:
        return self.box.run("systemctl", *arguments, check=check).returncode

    def ctl(self, *arguments: str) -> str:
        return self.box.run("audioctl", *arguments).stdout

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.ctl("status", "--json"))
        return status

    def model(self, name: str) -> dict[str, Any]:
        return next(model for model in self.status()["models"] if model["model"] == name)

    @property
    def pid(self) -> int:
        """The daemon's process, by its number in the box; 0 where none runs."""
        return int(self.box.show("audiod.service", "MainPID"))

    def active(self) -> bool:
        return self.box.run("systemctl", "is-active", "--quiet", *UNITS, check=False).returncode == 0

    def well(self) -> None:
        """Bring it to where every test begins: running, with no failures counted against it."""
        self.box.run("systemctl", "reset-failed")
        self.systemctl("start", *UNITS)
        until(lambda: self.request("GET", "/health/ready")[0] == 200, "the service is ready")

    def drop_in(self, unit: str, text: str) -> None:
        """What `systemctl edit --runtime` would do."""
        directory = f"/run/systemd/system/{unit}.d"
        self.box.run("mkdir", "-p", directory)
        self.box.path(f"{directory}/tests.conf").write_text(text)
        self.systemctl("daemon-reload")

    def no_drop_in(self, unit: str) -> None:
        self.box.run("rm", "-rf", f"/run/systemd/system/{unit}.d")
        self.systemctl("daemon-reload")

    def journal_text(self, *options: str) -> str:
        return "\n".join(str(entry["MESSAGE"]) for entry in self.box.journal(*options))


def speech(text: str, model: str = "hibari") -> tuple[str, str, bytes, dict[str, str]]:
    """The request that has `text` spoken, as arguments of `ask`."""
    body = json.dumps({"model": model, "voice": "alloy", "input": text, "response_format": "wav"}).encode()
    return "POST", "/v1/audio/speech", body, {"Content-Type": "application/json"}


def ask(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes, str]:
    """Status, body and Retry-After of one request to the port of whichever network the thread is in."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=_PATIENCE_S)
    try:
        connection.request(method, path, body, {**headers, "Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.getheader("Retry-After", "")
    finally:
        connection.close()


class Stream:
    """Clients that ask without pause from entering to leaving, and what became of their requests.

    Three have texts spoken, each of which needs a model; one asks for the list of models, so often that at every
    moment of a restart some request is on its way. `outcomes` counts by kind: "spoken", "listed", "503" with a
    Retry-After, another status, "refused", or the name of the error that an accepted connection ended in.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._over = threading.Event()
        self._counting = threading.Lock()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._clients = [threading.Thread(target=self._ask, args=(number,)) for number in range(4)]

    def __enter__(self) -> Stream:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        for client in self._clients:
            client.join()

    @property
    def spoken(self) -> int:
        return self.outcomes["spoken"]

    def _ask(self, number: int) -> None:
        self._service.box.enter_network()
        asked = 0
        while not self._over.is_set():
            asked += 1
            outcome = self._one(f"Client {number} asks for the {asked}th time." if number else "")
            with self._counting:
                self.outcomes[outcome] += 1

    def _one(self, text: str) -> str:
        try:
            status, body, retry_after = ask(*speech(text)) if text else ask("GET", "/v1/models", b"", {})
        except ConnectionRefusedError:
            return "refused"
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        if status == 503:
            # As the SDKs do, though they wait for longer.
            self._over.wait(min(float(retry_after or 0), 1.0))
            return "503" if retry_after else "503 without Retry-After"
        if status == 200 and not text:
            self._over.wait(0.01)
            return "listed" if json.loads(body)["data"] else "an empty list"
        if status == 200:
            return "spoken" if body.startswith(b"RIFF") else "200 without a sound"
        return str(status)
