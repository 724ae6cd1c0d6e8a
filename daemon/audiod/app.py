"""The composition root: the only place that constructs the daemon's objects, and their order of start and stop.

Start: residency, media, control socket, HTTP, preload. Stop: HTTP takes no more and what runs ends, then control,
then workers and media processes go; systemd is told all the while.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec

from audiod import devices, listening, logs, plan, systemd
from audiod.api import app as http_api
from audiod.api.auth import Keys
from audiod.api.services import Services
from audiod.config import Config
from audiod.control import server as control_server
from audiod.control.handlers import Control
from audiod.footprints import FootprintBook
from audiod.media.audio_memory import AudioMemory
from audiod.media.pool import MediaPool
from audiod.metrics import Metrics
from audiod.plan import Plan
from audiod.residency.machine import ModelState
from audiod.residency.manager import ResidencyManager
from audiod.supervisor.cgroup import Groups
from audiod.supervisor.zygote import Launch
from audiod.systemd import Notifier
from audiod.tasks import Tasks
from audiod.voices import VoiceStore
from audioproto.control import Progress
from audioproto.errors import AudiodError, ConfigInvalid, InstallFailed, from_body
from audioproto.types import Residency

logger = logging.getLogger(__name__)

_EXTENSION_S = 15.0
"""What systemd is asked for, every second, while requests end; more than a busy event loop is ever late."""

_CONTROL_GRACE_S = 0.5
"""Event listeners would stay for ever; they are cut soon."""


class Daemon:
    """The running daemon. `read_config` reads the configuration anew, for a reload; `keys` are the environment's."""

    def __init__(
        self,
        config: Config,
        read_config: Callable[[], Config],
        keys: Keys,
        sockets: Mapping[str, list[socket.socket]],
        notifier: Notifier,
    ) -> None:
        self._read_config = read_config
        self._keys = keys
        self._inherited = sockets
        self._http: list[socket.socket] = []
        self._notifier = notifier
        self._groups = Groups.adopt()
        self._background = Tasks()
        self._stopped = asyncio.Event()
        self._hung_up = asyncio.Event()
        self._code = Path(tempfile.mkdtemp(prefix="audiod-"))
        self._book = FootprintBook.read(config.state_dir)
        voices = VoiceStore(config.state_dir / "voices", config.voices.limit, config.voices.disk)
        self._plan = plan.make(config, keys, voices.kind_of, self._book)
        manager = ResidencyManager(
            self._plan.profiles,
            self._plan.limits,
            self._launch,
            devices.meter,
            config.residency.start_timeout,
            config.residency.abort_grace,
        )
        media = MediaPool(
            max_audio_s=float(config.media.max_audio),
            decode_timeout_s=float(config.media.decode_timeout),
            max_jobs=config.media.processes,
            idle_s=float(config.media.idle),
        )
        audio_memory = AudioMemory(self._plan.audio_memory_bytes)
        self.services = Services(
            config,
            self._plan.library,
            self._plan.keys,
            self._plan.translator,
            manager,
            media,
            audio_memory,
            voices,
            Metrics(),
        )
        self.services.metrics.watch(audio_memory)
        manager.on_step = self.services.metrics.observe_step
        manager.measuring.on_learnt = self._learnt
        media.on_failure = self.services.metrics.observe_media_failure

    async def run(self, announce: Callable[[list[str]], None]) -> None:
        """Serve until `stop`. `announce` is called with the HTTP base URLs once requests are taken."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up.set)
        self._main = asyncio.current_task()
        services = self.services
        async with AsyncExitStack() as stack:
            background = self._background
            await background.__aenter__()
            stack.push_async_callback(background.__aexit__, None, None, None)
            if self._notifier.listens:
                background.start(self._attend(), "watchdog")
                background.start(self._report(), "status")
            stack.push_async_callback(asyncio.to_thread, shutil.rmtree, self._code, True)
            await asyncio.to_thread(self._prepare_directories)
            stack.push_async_callback(self._book.save)
            await stack.enter_async_context(services.manager)
            stack.push_async_callback(services.media.close)
            http = self._inherited.get(systemd.HTTP)
            http = self._http = http or [stack.enter_context(listening.listen_tcp(services.config.server))]
            self._check_reach(services.config, self._plan)
            urls = [listening.url_of(sock) for sock in http]
            control_app = control_server.build(Control(services, urls, self.reload, self.installer, self._read_config))
            control = self._inherited.get(systemd.CONTROL)
            if not control:
                control = [await asyncio.to_thread(listening.listen_unix, services.config.control)]
                path = Path(services.config.control.socket)
                stack.push_async_callback(asyncio.to_thread, path.unlink, missing_ok=True)
            await stack.enter_async_context(
                listening.serving(control_app, control, _CONTROL_GRACE_S, control_server.refuse)
            )
            grace_s = float(services.config.server.stop_timeout)
            refuse = partial(http_api.refuse, services)
            await stack.enter_async_context(listening.serving(http_api.build(services), http, grace_s, refuse))
            announce(urls)
            self._notifier.ready()
            background.start(self._preload(), "preload")
            background.start(self._book.keep(), "footprints")
            background.start(self._reload_on_hangup(), "reload")
            await self._stopped.wait()
            services.stopping = True
            self._notifier.stopping()
            logger.info("stopping: what runs is finished first, %d requests", services.running)
            for websocket in list(services.sockets):
                websocket.end()

    def stop(self) -> None:
        """Finish what runs and end. Asked a second time: end without finishing it."""
        if self._stopped.is_set() and self._main is not None:
            self._main.cancel()
        self._stopped.set()

    # --- what systemd is told ---------------------------------------------------------------------------------------

    async def _attend(self) -> None:
        """Feed the watchdog while the event loop turns and requests are decided; while stopping, ask for more time."""
        while True:
            if self.services.manager.alive:
                self._notifier.watchdog()
            else:
                logger.error("requests for models are no longer being decided; the watchdog is not fed")
            if self.services.stopping:
                self._notifier.extend_timeout(_EXTENSION_S)
                self._notifier.status(f"stopping: {self.services.running} requests are being finished")
                await asyncio.sleep(1.0)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._notifier.watchdog_s / 3 or None):
                        await self._stopped.wait()
                    await asyncio.sleep(0)  # so that `run` has noted the stop

    async def _report(self) -> None:
        """Keep the status line of `systemctl status` true: it changes with what the manager tells."""
        with self.services.manager.listen() as happenings:
            while not self.services.stopping:
                self._notifier.status(self._status_line())
                await happenings.get()

    def _status_line(self) -> str:
        scheduler = self.services.manager.scheduler
        if scheduler.draining:
            return "draining: no new work is admitted"
        states: dict[str, list[str]] = {}
        for state in scheduler.models.values():
            if state.state is not Residency.UNLOADED:
                states.setdefault(state.state, []).append(state.model)
        models = "; ".join(f"{state}: {', '.join(names)}" for state, names in states.items())
        return models or f"{sum(1 for _ in self.services.library.usable())} models installed, none loaded"

    async def _preload(self) -> None:
        """Load and warm what is to be loaded at start; only when all of it is does readiness become true."""
        services = self.services
        for entry in services.library.entries.values():
            if entry.preload:
                await self._load_and_warm(entry.id)
        services.started = True

    async def _load_and_warm(self, model: str) -> None:
        services = self.services
        try:
            await services.manager.load(model)
            await services.manager.warm(model, services.config.residency.queue_timeout)
        except AudiodError as error:
            services.preload_failures[model] = error.message
            logger.error("preload of %s failed: %s", model, error.message)

    # --- what the control socket may ask for ------------------------------------------------------------------------

    async def reload(self) -> str:
        """Read the configuration again. A bad one raises ConfigInvalid and changes nothing."""
        old = self.services.config
        config = await asyncio.to_thread(self._read_config)
        voices = self.services.voices
        new = await asyncio.to_thread(plan.make, config, self._keys, voices.kind_of, self._book)
        self._check_reach(config, new)
        self._plan = new
        self.services.audio_memory.limit_bytes = new.audio_memory_bytes
        voices.limit, voices.disk_bytes = config.voices.limit, config.voices.disk
        self.services.config = config
        self.services.library = new.library
        self.services.keys = new.keys
        self.services.translator = new.translator
        self.services.manager.reconfigure(new.profiles, new.limits)
        for model in self.services.manager.beginning_anew():
            if (entry := new.library.entries.get(model)) and (entry.preload or entry.pinned):
                self._background.start(self._load_and_warm(model), f"reload of {model}")
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
        message = f"configuration read again: {len(new.library.entries)} models"
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

    async def installer(self, arguments: Sequence[str], say: Callable[[str], None]) -> str:
        """Run `audiod *arguments` in a process group of its own, which may take minutes and memory; what it has done.

        Raises what it raised.
        """
        config = self.services.config
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "audiod", *arguments, "--json"),
            *(("--config", config.file) if config.file else ()),
            *("--state-dir", str(config.state_dir)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=1 << 20,  # of a line: pip's own words are in it
        )
        assert process.stdout is not None
        last = Progress("")
        try:
            async for raw in process.stdout:
                try:
                    last = msgspec.json.decode(raw, type=Progress)
                except msgspec.DecodeError:  # an interpreter's last words
                    last = Progress(raw.decode(errors="replace").rstrip())
                if not last.done and last.error is None:
                    say(last.message)
            status = await process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            raise
        finally:
            await asyncio.to_thread(self.services.library.look_again)
        if last.error is not None:
            raise from_body(last.error)
        if status:
            raise InstallFailed(
                f"the installer exited with status {status}: {last.message}", hint=f"audiod {' '.join(arguments)}"
            )
        return last.message

    def _check_reach(self, config: Config, new: Plan) -> None:
        """Raises ConfigInvalid where other hosts would be served without a key, and nobody has said so."""
        if not new.keys and not config.server.open:
            listening.require_keys(self._http)

    # --- start-up -------------------------------------------------------------------------------------------------

    def _prepare_directories(self) -> None:
        """State directories, and one that holds our worker code and nothing else for runtimes to import."""
        config = self.services.config
        for directory in (config.state_dir, config.cache_dir):
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigInvalid(
                    f"cannot make {directory} as user {os.geteuid()}: {error.strerror}",
                    hint=f"sudo chown {os.geteuid()} {directory.parent}",
                ) from error
        for package in ("audioproto", "audioworker"):
            (self._code / package).symlink_to(Path(__file__).parents[1] / package)

    def _launch(self, model: str) -> Launch:
        return self._plan.launch(model, self._code, self._groups)

    def _learnt(self, state: ModelState) -> None:
        """Keep what the manager has measured of a model."""
        if (under := self._plan.fingerprints.get(state.model)) is not None:
            self._book.put(state.model, state.device, under, state.footprint)
