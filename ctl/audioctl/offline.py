"""Installing without a daemon: the same requests, done by the `audiod` program itself, which answers in the same way.

Knows which of its verbs does what a request asks, and no more.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator

from audioctl import programs
from audioctl.client import Client
from audioproto.control import (
    GetModels,
    GetRuntimes,
    InstallRuntime,
    Pull,
    Remove,
    RemoveRuntime,
    Request,
    Verify,
    VerifyRuntime,
)
from audioproto.errors import DaemonUnreachable, NotFound, PermissionDenied


class Installer(Client):
    """The client of a daemon, and where none runs, of the program. What the latter cannot do stays unreachable."""

    def call(self, request: Request, timeout_s: float = 60.0) -> bytes:
        try:
            return super().call(request, timeout_s)
        except DaemonUnreachable as error:
            return b"".join(self._alone(request, error))

    def stream(self, request: Request, timeout_s: float | None = None) -> Generator[bytes, None, None]:
        lines = super().stream(request, timeout_s)
        try:
            first = next(lines, None)
        except DaemonUnreachable as error:
            yield from self._alone(request, error)
            return
        if first is not None:
            yield first
            yield from lines

    def _alone(self, request: Request, unreachable: DaemonUnreachable) -> Generator[bytes, None, None]:
        """The program's lines. Its errors are among them, as the daemon's would be."""
        verb = _verb(request)
        if verb is None or os.path.lexists(self.path):
            raise unreachable  # one is there and hangs, or is not ours: it must not be gone behind
        try:
            command = [programs.audiod(), *verb, "--json"]
        except NotFound:
            raise unreachable from None
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            said = False
            for line in process.stdout:
                if stripped := line.strip():
                    said = True
                    yield stripped
        if not said:  # a configuration that cannot be read, which it has told itself
            raise PermissionDenied("audiod could not do it", hint="audioctl config check") from unreachable


def _verb(request: Request) -> list[str] | None:
    match request:
        case GetModels():
            return ["models", "list"]
        case GetRuntimes():
            return ["runtime", "list"]
        case InstallRuntime(name):
            return ["runtime", "install", name]
        case VerifyRuntime(name):
            return ["runtime", "verify", name]
        case RemoveRuntime(name):
            return ["runtime", "remove", name]
        case Pull(model):
            return ["install", model]
        case Verify(model):
            return ["models", "verify", model]
        case Remove(model):
            return ["models", "remove", model]
    return None
