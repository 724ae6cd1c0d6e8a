"""Clients that a library would not let us be: ones that stop sending, stop reading, or leave; and what they leave."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path

from daemons import Daemon, form
from scraping import until

SPEECH = "/v1/audio/speech"
TRANSCRIPTIONS = "/v1/audio/transcriptions"

LONG_TEXT = "The quick brown fox jumps over the lazy dog, and nobody knows why it should want to do that. " * 43
"""As long as is taken: four minutes and 13 MB of speech, more than sockets hold, and seconds of work for the model."""


class Client:
    """One connection, on which the test says every byte."""

    def __init__(self, daemon: Daemon, receive_bytes: int = 0) -> None:
        """`receive_bytes`: how much the kernel may take for us unread, if not the usual."""
        address = urllib.parse.urlsplit(daemon.url)
        self.sock = socket.socket()
        self.sock.settimeout(60)
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.connect((address.hostname or "", address.port or 0))

    def send_head(self, path: str, content_type: str, length: int | None, **more: str) -> None:
        """The request's headers, with a chunked body where there is no `length`."""
        framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in more.items())
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n{framing}\r\n{named}\r\n"
        self.sock.sendall(head.encode())

    def send_speech(self, text: str, **more: object) -> None:
        body = {"model": "hibari", "voice": "alloy", "input": text, "response_format": "wav"} | more
        encoded = json.dumps(body).encode()
        self.send_head(SPEECH, "application/json", len(encoded))
        self.sock.sendall(encoded)

    def send_transcription(self, file: bytes, **fields: str) -> None:
        body, content_type = form(file, **({"model": "whisper-base"} | fields))
        self.send_head(TRANSCRIPTIONS, content_type, len(body))
        self.sock.sendall(body)

    def chunk(self, data: bytes) -> None:
        self.sock.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def answer(self) -> HTTPResponse:
        """The status and headers of the answer; its body is there to be read."""
        response = HTTPResponse(self.sock)
        response.begin()
        return response

    def error(self) -> tuple[int, dict[str, object]]:
        """The status and the error of an answer that is one."""
        response = self.answer()
        error: dict[str, object] = json.loads(response.read())["error"]
        return response.status, error

    def leave(self) -> None:
        self.sock.close()


@contextlib.contextmanager
def client(daemon: Daemon, receive_bytes: int = 0) -> Iterator[Client]:
    one = Client(daemon, receive_bytes)
    try:
        yield one
    finally:
        one.leave()


def samples(daemon: Daemon) -> dict[str, float]:
    """The daemon's own figures, by name and labels."""
    lines = daemon.get("/metrics")[1].decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


def held_bytes(daemon: Daemon) -> float:
    return samples(daemon)["audiod_audio_memory_bytes"]


def cancelled(daemon: Daemon, model: str, stage: str) -> float:
    return samples(daemon)[f'audiod_cancelled_requests_total{{model="{model}",stage="{stage}"}}']


def leases(daemon: Daemon, model: str) -> float:
    return samples(daemon)[f'audiod_leases{{model="{model}"}}']


def waiting(daemon: Daemon, model: str) -> float:
    return samples(daemon)[f'audiod_queue_requests{{model="{model}"}}']


def descriptors(daemon: Daemon) -> list[str]:
    """What the daemon has open, without its numbers."""
    found = []
    for link in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()).split(":[")[0])
    return sorted(found)


def codecs(daemon: Daemon) -> list[int]:
    """The media processes: those at work, and the one that stands ready."""
    return [child for zygote in _children(daemon.process.pid) if _is_media(zygote) for child in _children(zygote)]


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _is_media(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return "audiod.media.process" in Path(f"/proc/{pid}/cmdline").read_text()
    return False


@dataclass
class Remains:
    """What a request may leave: nothing that was not there before it."""

    daemon: Daemon
    descriptors: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.descriptors = descriptors(self.daemon)

    def check(self) -> None:
        """Wait until no request, lease, waiter, audio or media process at work is left, and no descriptor more."""
        until(lambda: all(value == 0 for value in self.figures().values()))
        until(lambda: len(codecs(self.daemon)) <= 1)
        try:
            until(lambda: len(descriptors(self.daemon)) <= len(self.descriptors))
        except AssertionError:
            assert descriptors(self.daemon) == self.descriptors

    def figures(self) -> dict[str, float]:
        in_flight = [f'audiod_requests_in_flight{{endpoint="{path}"}}' for path in (SPEECH, TRANSCRIPTIONS)]
        wanted = ("audiod_audio_memory_bytes", "audiod_leases{", "audiod_queue_requests{", *in_flight)
        return {name: value for name, value in samples(self.daemon).items() if name.startswith(wanted)}


def cpu_ticks(pid: int) -> int:
    """What a process has computed so far, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@contextlib.contextmanager
def pidfd(pid: int) -> Iterator[int]:
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)
