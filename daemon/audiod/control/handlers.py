"""What each control request does. Permission has been checked; errors are rendered by the caller."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec
from aiohttp import web

from audiod import devices, runtime_command
from audiod.api.services import Services
from audiod.config import Config
from audiod.control import doctor
from audiod.control.checks import Patient, Resident
from audiod.control.outlook import Outlook, outlook
from audiod.models import install
from audiod.models.catalogue import ModelEntry
from audiod.residency import budget
from audiod.residency.events import HOST
from audiod.residency.machine import STORY_LENGTH, ModelState
from audiod.runtimes import build
from audiod.runtimes.lockfile import LockFile
from audioproto import PROTOCOL_VERSION, __version__
from audioproto.control import (
    Chapter,
    Diagnosis,
    Drain,
    Event,
    GetDoctor,
    GetModels,
    GetRuntimes,
    GetStatus,
    GetStory,
    GetVersion,
    InstallRuntime,
    Load,
    ModelList,
    ModelStatus,
    Needs,
    Outcome,
    Park,
    Progress,
    Pull,
    Reload,
    Remove,
    RemoveRuntime,
    Request,
    RuntimeList,
    Status,
    Story,
    Undrain,
    Unload,
    Verify,
    VerifyRuntime,
    Version,
    WatchEvents,
)
from audioproto.diagnosis import Finding
from audioproto.errors import AudiodError, InUse
from audioproto.types import Residency

logger = logging.getLogger(__name__)


class Control:
    """The handlers and what they need. `reload` re-reads the configuration.

    `installer` runs `audiod` with arguments, and tells its progress. `read_config` only reads: for a look at what a
    reload would bring.
    """

    def __init__(
        self,
        services: Services,
        http: list[str],
        reload: Callable[[], Awaitable[str]],
        installer: Callable[[Sequence[str], Callable[[str], None]], Awaitable[str]],
        read_config: Callable[[], Config],
    ) -> None:
        self._services = services
        self._http = http
        self._reload = reload
        self._installer = installer
        self._read_config = read_config
        self._examining = asyncio.Lock()
        self._started = time.monotonic()

    @property
    def operator_group(self) -> str:
        return self._services.config.control.group

    async def handle(self, asked: Request, http: web.Request) -> web.StreamResponse:
        """Answer one request. Raises AudiodError before the answer has begun."""
        manager = self._services.manager
        match asked:
            case GetStatus():
                return _json(await self._status())
            case GetModels():
                return _json(await asyncio.to_thread(self._models))
            case GetVersion():
                return _json(Version(__version__, PROTOCOL_VERSION))
            case Load(model):
                self._services.library.require_installed(model)
                return await self._progress(http, manager.load(model), f"{model} is ready", model)
            case Park(model):
                self._services.library.require_installed(model)
                return await self._progress(http, manager.park(model), f"{model} is parked", model)
            case Unload(model, force):
                self._services.library.entry(model)
                unload = manager.unload(model, force=force)
                return await self._progress(http, unload, f"{model} is unloaded", model)
            case Drain():
                return await self._progress(http, manager.drain(), "drained: all admitted work is done", "")
            case Undrain():
                manager.undrain()
                return _json(Outcome("new work is admitted"))
            case Reload():
                return _json(Outcome(await self._reload()))
            case Pull(model):
                for notice in self._services.library.entry(model).licence_notices:
                    logger.info("pull of %s: licence: %s", model, notice.line)
                return await self._installing(http, ["install", model], "pull", model)
            case Verify(model):
                self._services.library.entry(model)
                return await self._installing(http, ["models", "verify", model], "", model)
            case Remove(model):
                self._require_out_of_memory([self._services.library.entry(model)], model)
                return await self._installing(http, ["models", "remove", model], "remove", model)
            case GetRuntimes():
                return _json(await asyncio.to_thread(self._runtimes))
            case InstallRuntime(runtime):
                if licence := (await self._require_runtime(runtime)).licence:
                    logger.info("install of runtime %s: licence: %s", runtime, licence)
                return await self._installing(http, ["runtime", "install", runtime], "runtime", "")
            case VerifyRuntime(runtime):
                await self._require_runtime(runtime)
                return await self._installing(http, ["runtime", "verify", runtime], "", "")
            case RemoveRuntime(runtime):
                await self._require_runtime(runtime)
                users = [entry for entry in self._services.library.entries.values() if entry.runtime == runtime]
                self._require_out_of_memory(users, f"runtime {runtime}")
                return await self._installing(http, ["runtime", "remove", runtime], "runtime", "")
            case GetStory(model):
                return _json(self._story(self._services.library.named(model).id))
            case GetDoctor(network):
                return await self._examination(http, network)
            case WatchEvents():
                return await self._events(http)
        raise AudiodError(f"no handler for {type(asked).__name__}")

    # --- streams ------------------------------------------------------------------------------------------------

    async def _progress(self, http: web.Request, work: Awaitable[None], success: str, model: str) -> web.StreamResponse:
        """Run an operation, telling every transition of `model`. It goes on if the caller leaves."""
        response = await _begin(http)
        await _line(response, Progress("accepted"))
        with self._services.manager.listen() as happenings:
            async with asyncio.TaskGroup() as tasks:
                telling = tasks.create_task(_tell(response, happenings, model))
                last = await _outcome(work, success)
                telling.cancel()
        await _line(response, last)
        return response

    async def _require_runtime(self, name: str) -> LockFile:
        """Its lock. Raises NotFound: a name that is none must not become an option of a program."""
        return await asyncio.to_thread(build.require_lock, name, self._services.config.places.locks_dir)

    def _require_out_of_memory(self, entries: Iterable[ModelEntry], what: str) -> None:
        """Raises InUse with those of the models that hold memory, or are about to."""
        states = self._services.manager.scheduler.models
        busy = [
            entry.id
            for entry in entries
            if entry.id in states and states[entry.id].state not in (Residency.UNLOADED, Residency.FAILED)
        ]
        if busy:
            said = ", ".join(f"{model} is {states[model].state}" for model in busy)
            raise InUse(f"{what} is in use: {said}", hint=f"audioctl unload {' '.join(busy)}")

    async def _installing(
        self, http: web.Request, arguments: Sequence[str], kind: str, model: str
    ) -> web.StreamResponse:
        """Run the installer, telling its lines; its end is an event of that kind, if any."""
        response = await _begin(http)
        await _line(response, Progress("accepted"))
        lines: asyncio.Queue[str] = asyncio.Queue()

        async def tell() -> None:
            while True:
                await _line(response, Progress(await lines.get()))
                lines.task_done()

        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(tell())
            last = await _outcome(self._installer(arguments, lines.put_nowait))
            await lines.join()  # what was said before the end is told before it
            telling.cancel()
        if kind:
            self._services.manager.publish(kind, last.message, model)
        await _line(response, last)
        return response

    async def _examination(self, http: web.Request, network: bool) -> web.StreamResponse:
        """What doctor.py's checks find, as they find it; one caller at a time, for it imports engines' libraries."""
        response = await _begin(http)

        async def tell(findings: list[Finding]) -> None:
            await _line(response, Diagnosis(findings))

        async with self._examining:
            await doctor.examine(doctor.plan(self._patient(), network=network), tell)
        await _line(response, Diagnosis(done=True))
        return response

    def _patient(self) -> Patient:
        services, scheduler = self._services, self._services.manager.scheduler
        return Patient(
            config=services.config,
            entries=services.library.entries,
            limits=scheduler.limits,
            residents={
                m.model: Resident(
                    m.state,
                    m.reason,
                    m.device,
                    m.footprint.ready_bytes,
                    m.footprint.parked_bytes,
                    m.profile.staged_bytes > 0,
                )
                for m in scheduler.models.values()
            },
            reserved_bytes=scheduler.placement.reserved(devices.CPU),
            read_config=self._read_config,
            media=services.media,
            voices=services.voices,
        )

    async def _events(self, http: web.Request) -> web.StreamResponse:
        response = await _begin(http)
        with self._services.manager.listen() as happenings:
            happenings.put_nowait(
                Event(time.time(), "listening", f"audiod {__version__} tells what happens from now on")
            )
            while True:
                await response.write(msgspec.json.encode(await happenings.get()) + b"\n")

    # --- answers ------------------------------------------------------------------------------------------------

    async def _status(self) -> Status:
        services = self._services
        scheduler = services.manager.scheduler
        now = services.manager.now()
        readiness = services.readiness()
        return Status(
            version=__version__,
            protocol=PROTOCOL_VERSION,
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._started,
            http=self._http,
            config=services.config.file,
            draining=scheduler.draining,
            queue=scheduler.queue_length,
            memory=await devices.ledger(scheduler),
            # One that a reload took out of the catalogue is on its way out.
            models=[self._model_status(state, now) for state in scheduler.models.values() if not state.removed],
            readiness=readiness.status,
            unready_reason=readiness.reason,
        )

    def _model_status(self, state: ModelState, now: float) -> ModelStatus:
        entry = self._services.library.entry(state.model)
        processes = self._services.manager.processes.get(state.model)
        keep_s = {
            Residency.READY: state.keep_alive_s,
            Residency.PARKED: state.park_keep_alive_s,
        }.get(state.state, -1.0)
        resting = state.idle and state.state in (Residency.READY, Residency.PARKED)
        expires = resting and keep_s >= 0 and not state.profile.pinned
        work = self._services.metrics.work[state.model]
        running_s = sum(now - lease.granted_at for lease in state.leases.values())
        footprint = state.footprint
        return ModelStatus(
            model=state.model,
            engine=entry.engine,
            task=entry.task,
            state=state.state,
            device=state.device,
            device_bytes=budget.holds(state, state.device),
            host_bytes=budget.holds(state, HOST),
            zygote_pid=processes.zygote.pid if processes and processes.zygote else None,
            worker_pid=processes.worker.pid if processes and processes.worker else None,
            leases=len(state.leases),
            queue=len(state.queue),
            estimate_s=self._services.manager.scheduler.estimate_wait_s(state.model) if state.queue else None,
            idle_s=max(0.0, now - state.idle_since) if resting else None,
            expires_s=max(0.0, state.idle_since + keep_s - now) if expires else None,
            pinned=state.profile.pinned,
            reason=state.reason,
            needs=Needs(
                footprint.ready_bytes,
                footprint.parked_bytes,
                max(footprint.peaks.values(), default=0),
                footprint.start_s,
                footprint.load_s,
                footprint.service_s,
                state.profile.staged_bytes,
            ),
            log=processes.last_log if processes and state.state is Residency.FAILED else [],
            work=msgspec.structs.replace(work, worked_s=work.worked_s + running_s),
        )

    def _story(self, model: str) -> Story:
        manager, library = self._services.manager, self._services.library
        state, now = manager.scheduler.models[model], manager.now()
        wall_clock = time.time() - now
        story = list(state.story)
        began = now - (time.monotonic() - self._started)
        ends = [chapter.at for chapter in story] + [now]
        states = [(began, story[0].previous if story else state.state, "the daemon was started")]
        states += [(chapter.at, chapter.state, chapter.reason) for chapter in story]
        whole = len(story) < STORY_LENGTH
        found = outlook(manager.scheduler, model, now)
        if missing := library.missing(entry := library.entry(model)):
            found = Outlook([f"it is not installed: {missing} missing"], None, install.remedy(entry, missing))
        return Story(
            model=model,
            chapters=[
                Chapter(wall_clock + at, to, until - at, reason)
                for (at, to, reason), until in zip(states, ends, strict=True)
            ][0 if whole else 1 :],
            whole=whole,
            outlook=found.steps,
            estimate_s=found.estimate_s,
            hint=found.hint,
        )

    def _models(self) -> ModelList:
        """What is installed is looked up anew. Reads the disk: not for the event loop."""
        library = self._services.library
        library.look_again()
        return runtime_command.models(library, self._services.config.places)

    def _runtimes(self) -> RuntimeList:
        """Reads the disk and asks the driver: not for the event loop."""
        services = self._services
        return runtime_command.runtimes(services.library.entries.values(), services.config.places)


async def _outcome(work: Awaitable[str | None], success: str = "") -> Progress:
    """The last line about `work`, which may itself say what it has done."""
    try:
        done = await work
    except AudiodError as error:
        return Progress(error.message, error=error.body())
    return Progress(done or success, done=True)


async def _tell(response: web.StreamResponse, happenings: asyncio.Queue[Event], model: str) -> None:
    while True:
        happening = await happenings.get()
        if happening.kind == "state" and happening.model == model:
            await _line(response, Progress(f"{happening.state} ({happening.message})"))


async def _begin(http: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(http)
    return response


async def _line(response: web.StreamResponse, line: Progress | Diagnosis) -> None:
    with contextlib.suppress(ConnectionError):  # the caller has left; the work goes on
        await response.write(msgspec.json.encode(line) + b"\n")


def _json(body: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
