"""The zygote: imports the engine's library once, holds what may be held, and forks a worker for each Fork.

Serves no request and never touches a device. It stays single-threaded, or forking would not be safe.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import sys
import time
import traceback

from audioproto import process
from audioproto.types import Hold
from audioproto.worker import Exited, Failed, Fork, Forked, Init, Prepared, Progress, ToZygote
from audioworker import engine as engines
from audioworker import worker
from audioworker.channel import Channel


class Zygote:
    """One zygote's state: its engine and the workers it has forked."""

    def __init__(self, sock: socket.socket) -> None:
        self._channel: Channel[ToZygote] = Channel(sock, ToZygote)  # type: ignore[arg-type]
        self._engine: engines.Engine | None = None
        self._workers: dict[int, tuple[int, int]] = {}  # pidfd -> (worker, pid)

    def run(self) -> None:
        """Serve until the daemon closes the channel."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._channel:
                        try:
                            messages = self._channel.read()
                        except EOFError:
                            return
                        for message in messages:
                            self._handle(message, selector)
                    else:
                        self._reap(key.fd, selector)

    def _handle(self, message: ToZygote, selector: selectors.BaseSelector) -> None:
        match message:
            case Init():
                self._prepare(message)
            case Fork():
                self._fork(message, selector)

    def _prepare(self, message: Init) -> None:
        started = time.monotonic()
        try:
            engine = engines.find(message.spec.engine)(message.spec)
            engine.on_progress = lambda text: self._channel.send(Progress(text))
            if engine.hold is not Hold.NOTHING:
                engine.prepare()
        except Exception as error:
            self._channel.send(Failed(engines.typed(error).body()))
            return
        self._engine = engine
        process.set_name(f"zygote:{message.spec.model}")
        # What is held now is shared with every worker: keep the collector from writing into its pages.
        gc.collect()
        gc.freeze()
        self._channel.send(Prepared(engine.hold, time.monotonic() - started))

    def _fork(self, message: Fork, selector: selectors.BaseSelector) -> None:
        sock = socket.socket(fileno=self._channel.take_descriptor())
        assert self._engine is not None, "Fork before Prepared"
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._channel.close()
            for pidfd in self._workers:
                os.close(pidfd)
            become_worker(parent, self._engine, sock)
        sock.close()
        pidfd = os.pidfd_open(pid)
        self._workers[pidfd] = (message.worker, pid)
        selector.register(pidfd, selectors.EVENT_READ)
        self._channel.send(Forked(message.worker, pid))

    def _reap(self, pidfd: int, selector: selectors.BaseSelector) -> None:
        number, pid = self._workers.pop(pidfd)
        selector.unregister(pidfd)
        os.close(pidfd)
        _, wait_status = os.waitpid(pid, 0)
        self._channel.send(Exited(number, pid, os.waitstatus_to_exitcode(wait_status)))


def become_worker(parent: int, engine: engines.Engine, sock: socket.socket) -> None:
    """In the forked child: leave the zygote's group, serve, and end without running the zygote's exit handlers."""
    status = 1
    try:
        os.setpgid(0, 0)
        process.die_with_parent(parent)
        process.set_name(f"worker:{engine.spec.model}")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        status = worker.serve(sock, engine)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)
