"""The daemon's handles on the media zygote and on a process that it forked: start, speak, kill.

Decides nothing about when or how many; pool.py does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys

import msgspec

from audiod.media.messages import PACKET_BYTES, Decode, Encode, FromProcess, Listen, Message

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[FromProcess] = msgspec.msgpack.Decoder(FromProcess)

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
"""The daemon's own variables that a media process gets; keys and credentials are never among them."""


class MediaProcess:
    """A process that serves one job. Whoever has it must `end` it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._pidfd = -1

    async def begin(self, job: Decode | Encode | Listen, descriptors: tuple[int, ...]) -> None:
        """Wait until it is there and give it its job. Raises EOFError or OSError where it ended before that."""
        await _readable(self._sock)
        packet, handles, _, _ = socket.recv_fds(self._sock, PACKET_BYTES, 1)
        if not packet:
            raise EOFError
        (self._pidfd,) = handles
        socket.send_fds(self._sock, [_encoder.encode(job)], descriptors)

    async def send(self, message: Message) -> None:
        """Raises OSError where it has ended."""
        await asyncio.get_running_loop().sock_sendall(self._sock, _encoder.encode(message))

    async def receive(self) -> FromProcess:
        """Its next message. Raises EOFError, OSError or msgspec.MsgspecError where it ends or speaks nonsense."""
        # A plain recv: descriptors that a process gone bad might send along are dropped by the kernel.
        packet = await asyncio.get_running_loop().sock_recv(self._sock, PACKET_BYTES)
        if not packet:
            raise EOFError
        return _decoder.decode(packet)

    def end(self) -> None:
        """Kill it if it still runs. One that has no job yet ends by itself, because its socket closes."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
            self._pidfd = -1
        self._sock.close()


class MediaZygote:
    """The running zygote, made by `start`."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process = process
        self._control = control

    @classmethod
    async def start(cls) -> MediaZygote:
        """Spawn it; forks asked for before it is up wait in its socket. Raises OSError where it cannot be spawned."""
        ours, theirs = _socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "audiod.media.process",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                env=_environment(),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours)

    def fork(self) -> MediaProcess:
        """Ask for a process; it says Started when it is there. Raises OSError where the zygote has ended."""
        ours, theirs = _socketpair()
        try:
            socket.send_fds(self._control, [b"f"], [theirs.fileno()])
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return MediaProcess(ours)

    def end(self) -> None:
        """Kill it, and with it whatever it has forked. It has no state worth a slow goodbye."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._control.close()

    async def gone(self) -> None:
        """Wait until it has been reaped."""
        await self._process.wait()


def _environment() -> dict[str, str]:
    """Few variables, and modules from where the daemon has its own."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "OMP_THREAD_LIMIT": "1",  # see media/vad.py
    }


def _socketpair() -> tuple[socket.socket, socket.socket]:
    """Ours, which never blocks, and the other process's, which does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def notice() -> None:
        # It may already be queued when a cancellation takes the future away.
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, notice)
    try:
        await ready
    finally:
        loop.remove_reader(sock)
