"""The daemon's handle on one zygote: starts it, has it fork workers, reaps it, keeps the last lines of its log.

Does not decide when; residency/manager.py does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from audiod.supervisor import memory
from audiod.supervisor.cgroup import Group
from audiod.supervisor.channel import Channel
from audiod.supervisor.worker import Ending, Worker
from audioproto.errors import EngineFailed, from_body
from audioproto.types import Death, EngineSpec
from audioproto.worker import Exited, Failed, Fork, Forked, FromZygote, Init, Prepared, Progress

LOG_LINES = 20
_GROUP_TIMEOUT_S = 10.0
_REAP_TIMEOUT_S = 1.0
"""A zygote that has not reaped a killed worker by then hangs, and is killed over it."""

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
"""The daemon's own variables that a zygote gets; keys and credentials are never among them."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a model's zygote: the runtime's `python`, where audioproto and audioworker are found, its group."""

    python: Path
    code: Path
    cache: Path
    spec: EngineSpec
    group: Group | None = None
    visible: str | None = None
    """What CUDA_VISIBLE_DEVICES says to it, so that it sees its own device and no other; None passes ours on."""

    def environment(self) -> dict[str, str]:
        """What the zygote sees: few variables, our code and no one else's, one thread pool size, and no network."""
        threads = str(self.spec.threads)
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        if self.visible is not None:
            passed_on["CUDA_VISIBLE_DEVICES"] = self.visible
        return passed_on | {
            "PYTHONPATH": str(self.code),
            "PYTHONSAFEPATH": "1",
            "PYTHONNOUSERSITE": "1",
            "PYTHONUNBUFFERED": "1",
            "HOME": str(self.cache),
            "TMPDIR": str(self.cache),
            "XDG_CACHE_HOME": str(self.cache),
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }


class Zygote:
    """A running zygote, made by `start`. `on_death` is called once, when it is gone without having been stopped."""

    def __init__(
        self,
        launch: Launch,
        process: asyncio.subprocess.Process,
        sock: socket.socket,
        log_pipe: asyncio.ReadTransport,
        lines: asyncio.StreamReader,
    ) -> None:
        self.launch = launch
        self.pid = process.pid
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.on_death: Callable[[Ending], None] | None = None
        self._process = process
        self._log_pipe = log_pipe
        self._lines = lines
        self._prepared: asyncio.Future[Prepared] = asyncio.get_running_loop().create_future()
        self._workers: dict[int, Worker] = {}
        self._forked: dict[int, asyncio.Future[int]] = {}
        self._numbers = 0
        self._stopping = False
        self._kills_told = self._oom_kills()
        """The group's kills for want of memory that are accounted for; it may be older than this zygote."""
        self._ended: Ending | None = None
        self._limits: set[_StallLimit] = set()
        self._logger = logging.getLogger(f"audiod.worker.{launch.spec.model}")
        self._channel: Channel[FromZygote] = Channel(sock, FromZygote, self._received, lambda: None)  # type: ignore[arg-type]

    @classmethod
    async def start(cls, launch: Launch, watch: Callable[[Zygote], None], stall_timeout_s: float) -> Zygote:
        """Spawn it and wait until it is prepared. `watch` is to run `zygote.watch()` for as long as it lives.

        It may take as long as it likes, but not stand still for `stall_timeout_s`, negative for no limit: report no
        progress and log nothing.
        Raises AudiodError, with nothing left running, when it cannot be brought up.
        """
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as opened, theirs:
            opened.callback(ours.close)
            log_pipe, lines, log_end = await _pipe()
            opened.callback(log_pipe.close)
            try:
                process = await asyncio.create_subprocess_exec(
                    str(launch.python),
                    "-m",
                    "audioworker",
                    str(theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=log_end,
                    start_new_session=True,
                    env=launch.environment(),
                )
            except OSError as error:
                raise EngineFailed(f"cannot start {launch.python}: {error}") from error
            finally:
                os.close(log_end)
            opened.pop_all()  # from here on the zygote closes them
        if launch.group is not None:
            launch.group.add(process.pid)
        zygote = cls(launch, process, ours, log_pipe, lines)
        watch(zygote)
        try:
            await zygote._channel.send(Init(launch.spec))
            async with zygote._no_stall("starting", stall_timeout_s):
                await zygote._prepared
        except BaseException as error:
            await zygote.stop()
            if isinstance(error, ConnectionError):
                raise zygote._ending().error("its zygote") from error
            raise
        return zygote

    async def watch(self) -> None:
        """Follow its log and reap it. Run as a task by whoever started it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                log = tasks.create_task(self._follow_log())
                await self._process.wait()
                ending = self._ending()
                for worker in self._workers.values():
                    worker.kill()
                # Whoever held the other end of the log is dead now; what they still said is the reason we want to show.
                await asyncio.wait([log], timeout=1.0)
                log.cancel()
        finally:  # the daemon may be at its end, and wait for nobody's last words
            self._channel.close()
            self._log_pipe.close()
        for worker in list(self._workers.values()):
            await worker.group_gone()
            worker.stopping = True  # its death is this one's consequence, not news of its own
            worker.reaped(ending)
        self._workers.clear()
        if not self._prepared.done():
            self._prepared.set_exception(ending.error("its zygote"))
        for forked in self._forked.values():
            if not forked.done():
                forked.set_exception(ending.error("its zygote"))
        if self.on_death is not None and not self._stopping:
            self.on_death(ending)

    async def _follow_log(self) -> None:
        while True:
            try:
                line = await self._lines.readline()
            except ValueError:
                line = b"(a line too long to keep)\n"
            if not line:
                return
            self.log.append(line.decode(errors="replace").rstrip())
            self._moved(self.log[-1])
            self._logger.info("%s", self.log[-1], extra={"model": self.launch.spec.model})

    def _received(self, message: FromZygote) -> None:
        match message:
            case Prepared():
                self._prepared.set_result(message)
            case Progress(message=text):
                self._moved(text)
            case Failed(error=body):
                if not self._prepared.done():
                    self._prepared.set_exception(from_body(body))
            case Forked(worker, pid):
                self._workers[worker].pid = pid
                if not (forked := self._forked.pop(worker)).done():
                    forked.set_result(pid)
            case Exited(number, _, status):
                if gone := self._workers.pop(number, None):
                    kills = self._oom_kills()
                    gone.reaped(Ending.of(status, out_of_memory=kills > self._kills_told))
                    self._kills_told = kills

    async def fork(
        self, on_death: Callable[[Ending], None], stall_timeout_s: float, abort_grace_s: float = 10.0
    ) -> Worker:
        """Fork a worker and wait until it has loaded, for as long as it gets on (as in `start`).

        `abort_grace_s` is told at Worker. Raises AudiodError, with the worker gone, when it cannot be brought up.
        """
        ours, theirs = socket.socketpair()
        self._numbers += 1
        number = self._numbers
        worker = Worker(self.launch.spec.model, ours, on_death, self._moved, abort_grace_s)
        self._workers[number] = worker
        forked = self._forked[number] = asyncio.get_running_loop().create_future()
        try:
            try:
                await self._channel.send(Fork(number), theirs.fileno())
            finally:
                theirs.close()
            async with self._no_stall("loading", stall_timeout_s):
                await forked
                await worker.loaded
        except BaseException as error:
            if worker.pid:
                await worker.stop()
            elif isinstance(error, EngineFailed) and not worker.dead.done():  # the zygote itself does not answer
                self._kill()
                await asyncio.wait([worker.dead])
            if isinstance(error, ConnectionError):
                raise self._ending().error("its zygote") from error
            raise
        return worker

    async def stop(self) -> int:
        """End the zygote and its workers, and return when every process of theirs is gone, or the bytes still held.

        Workers first, while their zygote is there to reap them: orphans would be left to init, which may be slow.
        """
        self._stopping = True
        workers = list(self._workers.values())
        for worker in workers:
            worker.stopping = True
            worker.kill()
        if workers:
            await asyncio.wait([worker.dead for worker in workers], timeout=_REAP_TIMEOUT_S)
        self._kill()
        if self.launch.group is not None:
            self.launch.group.kill()
        await self._process.wait()
        residue_bytes = await memory.group_gone(self.pid, _GROUP_TIMEOUT_S)
        for worker in workers:
            residue_bytes += await worker.group_gone()
        if self.launch.group is not None:
            self.launch.group.remove()
        return residue_bytes

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _moved(self, sign: str) -> None:
        """Something in it has got on."""
        for limit in self._limits:
            limit.moved(sign)

    @asynccontextmanager
    async def _no_stall(self, doing: str, limit_s: float) -> AsyncIterator[None]:
        """Raises EngineFailed as soon as nothing has moved for `limit_s` seconds while inside."""
        limit = _StallLimit(limit_s if limit_s >= 0 else math.inf)
        self._limits.add(limit)
        try:
            async with limit.timer:
                yield
        except TimeoutError as error:
            after = f", after: {limit.last_sign}" if limit.last_sign else ""
            raise EngineFailed(
                f"{self.launch.spec.model} stood still for {limit_s:g} s while {doing}{after}",
                hint="audioctl status has its last log lines; the limit is residency.start_timeout",
            ) from error
        finally:
            self._limits.discard(limit)

    def _ending(self) -> Ending:
        status = self._process.returncode
        if self._ended is None and status is not None:
            # Kept, because the group that counts is removed in the end.
            self._ended = Ending.of(status, out_of_memory=self._oom_kills() > self._kills_told)
        return self._ended or Ending("ended", Death.CRASHED)

    def _oom_kills(self) -> int:
        return self.launch.group.oom_kills() if self.launch.group is not None else 0


class _StallLimit:
    """A time limit that begins anew with every sign of life."""

    def __init__(self, limit_s: float) -> None:
        self.timer = asyncio.timeout(limit_s)
        self.last_sign = ""
        self._limit_s = limit_s

    def moved(self, sign: str) -> None:
        if self.timer.expired():
            return
        self.last_sign = sign
        self.timer.reschedule(asyncio.get_running_loop().time() + self._limit_s)


async def _pipe() -> tuple[asyncio.ReadTransport, asyncio.StreamReader, int]:
    """A pipe: its reading end on the event loop, to be closed, what is read there, and its writing end as a descriptor.

    Not asyncio's own PIPE, because there Process.wait() may wait for the pipe too, and a grandchild can hold that.
    """
    reading, writing = os.pipe()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    source = os.fdopen(reading, "rb", 0)
    try:
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
    except BaseException:
        os.close(writing)
        raise
    return transport, reader, writing
