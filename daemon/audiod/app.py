"""The composition root: the only place that constructs the daemon's objects, and their order of start and stop.

Start: residency, media, control socket, HTTP, preload. Stop: HTTP takes no more and what runs ends, then control,
then workers and media processes go.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiohttp import web

from audiod import config as configuration
from audiod import logs
from audiod.api import app as http_api
from audiod.api.services import Services
from audiod.config import Config
from audiod.control import server as control_server
from audiod.control.handlers import Control
from audiod.media.pool import MediaPool
from audiod.metrics import Metrics
from audiod.models import catalogue, install
from audiod.models.catalogue import ModelEntry
from audiod.models.library import Library
from audiod.residency.events import Limits, Profile
from audiod.residency.manager import ResidencyManager
from audiod.runtimes import build
from audiod.supervisor import memory
from audiod.supervisor.zygote import Launch
from audioproto.errors import AudiodError, ConfigInvalid, InstallFailed, ModelNotInstalled
from audioproto.types import EngineSpec

logger = logging.getLogger(__name__)

_STOP_GRACE_S = 60.0
"""How long running requests may take to end on SIGTERM. systemd's TimeoutStopSec must be longer."""

_CONTROL_GRACE_S = 0.5
"""Event listeners would stay for ever; they are cut soon."""


def limits(config: Config) -> Limits:
    """The scheduler's bounds; budgets of 0 are shares of the host's memory. Reads /proc."""
    total_bytes, _ = memory.host_memory_bytes()
    residency = config.residency
    return Limits(
        device_bytes=int(residency.budget) or total_bytes // 2,
        host_bytes=int(residency.park_budget) or total_bytes // 4,
        queue_requests=residency.queue_requests,
        max_switch_wait_s=float(residency.max_switch_wait),
    )


def profile(entry: ModelEntry, config: Config) -> Profile:
    residency = config.residency
    return Profile(
        model=entry.id,
        ready_bytes=int(entry.ready_bytes),
        parked_bytes=int(entry.parked_bytes),
        keep_alive_s=float(residency.keep_alive if entry.keep_alive is None else entry.keep_alive),
        park_keep_alive_s=float(residency.park_keep_alive if entry.park_keep_alive is None else entry.park_keep_alive),
        pinned=entry.pinned,
        concurrency=entry.concurrency,
    )


def read_library(config: Config) -> Library:
    """The catalogue and what is installed of it. Reads the disk."""
    where = config.places
    return Library(catalogue.load(config.catalogue_dir), config.aliases, lambda entry: install.missing(entry, where))


class Daemon:
    """The running daemon. `read_config` reads the configuration anew, for a reload."""

    def __init__(self, config: Config, read_config: Callable[[], Config]) -> None:
        self._read_config = read_config
        self._stopped = asyncio.Event()
        self._hung_up = asyncio.Event()
        self._code = Path(tempfile.mkdtemp(prefix="audiod-"))
        library = read_library(config)
        profiles = [profile(entry, config) for entry in library.entries.values()]
        manager = ResidencyManager(profiles, limits(config), self._launch, config.residency.start_timeout)
        media = MediaPool(
            max_audio_s=float(config.media.max_audio),
            decode_timeout_s=float(config.media.decode_timeout),
            max_jobs=config.media.processes,
            idle_s=float(config.media.idle),
        )
        self.services = Services(config, library, manager, media, Metrics())
        manager.on_transition = self.services.metrics.observe_transition

    async def run(self, announce: Callable[[list[str]], None]) -> None:
        """Serve until `stop`. `announce` is called with the HTTP base URLs once requests are taken."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up.set)
        services = self.services
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, shutil.rmtree, self._code, True)
            await asyncio.to_thread(self._prepare_directories)
            await stack.enter_async_context(services.manager)
            stack.push_async_callback(services.media.close)
            http_socket = _listen_tcp(services.config.server.host, services.config.server.port)
            url = f"http://{_host_in_url(services.config.server.host)}:{http_socket.getsockname()[1]}"
            control = Control(services, [url], self.reload, self.pull)
            control_app = control_server.build(control)
            control_socket = await asyncio.to_thread(_listen_unix, services.config.control)
            stack.push_async_callback(asyncio.to_thread, Path(services.config.control.socket).unlink, missing_ok=True)
            await stack.enter_async_context(_serving(control_app, control_socket, _CONTROL_GRACE_S))
            await stack.enter_async_context(_serving(http_api.build(services), http_socket, _STOP_GRACE_S))
            announce([url])
            async with asyncio.TaskGroup() as tasks:
                background = [tasks.create_task(self._preload()), tasks.create_task(self._reload_on_hangup())]
                await self._stopped.wait()
                for task in background:
                    task.cancel()
            services.ready = False
            logger.info("stopping: what runs is finished first")

    def stop(self) -> None:
        self._stopped.set()

    async def _preload(self) -> None:
        """Load what is to be loaded at start; only when all of it is does readiness become true."""
        failed = False
        for entry in self.services.library.entries.values():
            if entry.preload:
                try:
                    await self.services.manager.load(entry.id)
                except AudiodError as error:
                    failed = True
                    logger.error("preload of %s failed: %s", entry.id, error.message)
        self.services.ready = not failed

    # --- what the control socket may ask for ------------------------------------------------------------------------

    async def reload(self) -> str:
        """Read the configuration again. A bad one raises ConfigInvalid and changes nothing."""
        old = self.services.config
        config = await asyncio.to_thread(self._read_config)
        library = await asyncio.to_thread(read_library, config)
        bounds = await asyncio.to_thread(limits, config)
        self.services.config = config
        self.services.library = library
        self.services.manager.reconfigure([profile(entry, config) for entry in library.entries.values()], bounds)
        logs.configure(config.logging.level, config.logging.format)
        fixed = [
            name
            for name, before, after in (
                ("server.host", old.server.host, config.server.host),
                ("server.port", old.server.port, config.server.port),
                ("control.socket", old.control.socket, config.control.socket),
                ("media", old.media, config.media),
            )
            if before != after
        ]
        message = f"configuration read again: {len(library.entries)} models"
        if fixed:
            message += f"; takes effect after a restart: {', '.join(fixed)}"
        logger.info("%s", message)
        self.services.manager.publish("reload", message)
        return message

    async def _reload_on_hangup(self) -> None:
        """SIGHUP has nobody to answer: what is wrong goes to the log, and the old configuration stays."""
        while True:
            await self._hung_up.wait()
            self._hung_up.clear()
            try:
                await self.reload()
            except AudiodError as error:
                logger.error("reload refused, the old configuration stays: %s", error.message)

    async def pull(self, model: str, say: Callable[[str], None]) -> None:
        """Install a model in a process group of its own, which may take minutes and memory. Raises InstallFailed."""
        config = self.services.config
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "audiod",
            "install",
            model,
            *(("--config", config.file) if config.file else ()),
            "--state-dir",
            str(config.state_dir),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None
        failure = ""
        try:
            async for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                if line.startswith("audiod: "):
                    failure = line.removeprefix("audiod: ")
                else:
                    say(line)
            status = await process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            raise
        if status:
            failure = failure or f"the installer exited with status {status}"
            raise InstallFailed(failure, hint=f"audiod install {model}")
        await asyncio.to_thread(self.services.library.look_again)

    # --- start-up -------------------------------------------------------------------------------------------------

    def _prepare_directories(self) -> None:
        """State directories, and one that holds our worker code and nothing else for runtimes to import."""
        config = self.services.config
        for directory in (config.state_dir, config.state_dir / "cache"):
            directory.mkdir(parents=True, exist_ok=True)
        for package in ("audioproto", "audioworker"):
            (self._code / package).symlink_to(Path(__file__).parents[1] / package)

    def _launch(self, model: str) -> Launch:
        config = self.services.config
        entry = self.services.library.entry(model)
        where = config.places
        python = build.find(entry.runtime, where.locks_dir, where.runtimes_dir)
        if missing := install.missing(entry, where):
            raise ModelNotInstalled(
                f"{model} is not installed: {missing} missing", hint=f"audioctl models pull {model}"
            )
        assert python is not None
        spec = EngineSpec(
            engine=entry.engine,
            model=entry.id,
            model_dir=str(install.model_dir(entry, where)),
            device=config.residency.device,
            threads=entry.threads or config.residency.threads or configuration.cores(),
            concurrency=entry.concurrency,
            options=entry.options,
        )
        return Launch(python, self._code, config.state_dir / "cache", spec)


@asynccontextmanager
async def _serving(app: web.Application, sock: socket.socket, grace_s: float) -> AsyncIterator[None]:
    """Serve `app` on `sock` while inside; leaving finishes running requests, for at most `grace_s`."""
    runner = web.AppRunner(
        app, handle_signals=False, access_log=None, handler_cancellation=True, shutdown_timeout=grace_s
    )
    await runner.setup()
    try:
        await web.SockSite(runner, sock).start()
        yield
    finally:
        await runner.cleanup()


def _host_in_url(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"[{host}]" if ":" in host else host


def _listen_tcp(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise ConfigInvalid(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another with --port"
        ) from error


def _listen_unix(control: configuration.Control) -> socket.socket:
    """The control socket: group-writable, and never taken from a daemon that still answers on it."""
    path = Path(control.socket)
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
        else:
            raise ConfigInvalid(f"another audiod answers on {path}", hint=f"audioctl --socket {path} status")
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(str(path))
    except OSError as error:
        raise ConfigInvalid(
            f"cannot make the socket {path}: {error.strerror}", hint="choose another with --socket"
        ) from error
    path.chmod(0o660)
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam(control.group).gr_gid)
    sock.listen(64)
    return sock
