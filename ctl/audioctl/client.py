"""The control socket as a blocking caller sees it: one request, one connection, HTTP/1.0 over AF_UNIX.

Knows no verb and prints nothing. Written by hand because http.client brings the email package, which alone takes longer
to import than the daemon takes to answer. HTTP/1.0 spares us chunked encoding: the answer ends with the connection.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Generator, Iterator
from typing import NoReturn, TypeVar

import msgspec

from audioproto import __version__
from audioproto.control import Request
from audioproto.errors import AudiodError, BadRequest, DaemonUnreachable, ErrorBody, PermissionDenied, from_body

CALL_TIMEOUT_S = 60.0
"""For a whole answer that ought to come at once. `Reload` is the slowest of these: it reads every file of models.d."""

_LINE_LIMIT_BYTES = 1 << 24
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})\b")
_LOOK = "journalctl -u audiod -n 50"

T = TypeVar("T")


class Client:
    """Speaks to the daemon behind one socket. Holds no connection between requests."""

    def __init__(self, path: str) -> None:
        self.path = path

    def call(self, request: Request, timeout_s: float = CALL_TIMEOUT_S) -> bytes:
        """The whole JSON answer. Raises what the daemon answered, PermissionDenied or DaemonUnreachable."""
        return b"".join(self._answer(request, timeout_s))

    def stream(self, request: Request, timeout_s: float | None = None) -> Generator[bytes, None, None]:
        """The lines of an answer as they come, without their line ends; closing the iterator hangs up.

        `timeout_s` is the longest silence between two of them. Raises as `call` does, at the first `next`.
        """
        for line in self._answer(request, timeout_s):
            if stripped := line.strip():
                yield stripped

    def _answer(self, request: Request, timeout_s: float | None) -> Iterator[bytes]:
        try:
            body = b"" if request.method == "GET" else msgspec.json.encode(request)
        except UnicodeEncodeError as error:  # a model's name typed in another encoding
            raise BadRequest("a name is not UTF-8", hint="audioctl models") from error
        head = (
            f"{request.method} {request.path} HTTP/1.0\r\nHost: localhost\r\nUser-Agent: audioctl/{__version__}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            try:
                connection.connect(self.path)
            except OSError as error:
                self._raise_connect(error)
            try:
                connection.sendall(head.encode() + body)
                with connection.makefile("rb") as reader:
                    first = reader.readline(_LINE_LIMIT_BYTES)
                    status = _STATUS_LINE.match(first)
                    if not first:
                        raise DaemonUnreachable("the daemon hung up without an answer", hint=_LOOK)
                    if status is None:
                        raise DaemonUnreachable(f"what answers on {self.path} is not audiod", hint="audioctl --help")
                    length = None
                    while header := reader.readline(_LINE_LIMIT_BYTES).strip():
                        name, _, value = header.partition(b":")
                        if name.lower() == b"content-length":
                            length = int(value)
                    if int(status[1]) >= 400:
                        raise _refusal(int(status[1]), reader.read())
                    received = 0
                    while line := reader.readline(_LINE_LIMIT_BYTES):
                        received += len(line)
                        yield line
                    if length is not None and received < length:
                        raise DaemonUnreachable("the daemon ended in the middle of its answer", hint=_LOOK)
            except TimeoutError:
                raise DaemonUnreachable(f"the daemon did not answer within {timeout_s:.0f} s", hint=_LOOK) from None
            except OSError as error:
                raise DaemonUnreachable(f"the daemon hung up: {error.strerror}", hint=_LOOK) from error

    def _raise_connect(self, error: OSError) -> NoReturn:
        start = "systemctl status audiod (installed), or scripts/run (checkout)"
        match error.errno:
            case errno.ENOENT:
                raise DaemonUnreachable(f"audiod is not running: there is no socket {self.path}", hint=start)
            case errno.ECONNREFUSED:
                raise DaemonUnreachable(f"audiod is not running: nothing listens on {self.path}", hint=start)
            case errno.EACCES | errno.EPERM:
                raise PermissionDenied(
                    f"you may not open {self.path}",
                    hint='sudo usermod -aG audiod "$USER", then log in again',
                )
            case None:  # Python's own: the path does not fit into sockaddr_un.
                raise BadRequest(f"{self.path}: {error}", hint="audioctl --socket PATH with a shorter path")
            case _:
                raise DaemonUnreachable(f"cannot connect to {self.path}: {error.strerror}", hint=start)


def decode(body: bytes, kind: type[T]) -> T:
    """Read one JSON answer as `kind`. Raises AudiodError where this audioctl cannot."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise AudiodError(f"the daemon's answer makes no sense here: {error}", hint="audioctl version") from error


def _refusal(status: int, body: bytes) -> AudiodError:
    try:
        return from_body(msgspec.json.decode(body, type=ErrorBody))
    except (msgspec.DecodeError, RecursionError):
        return AudiodError(f"the daemon answered with HTTP status {status}", hint="audioctl version")
