"""What `audioctl` and the daemon say over the control socket: HTTP/1.1 with JSON bodies, paths under /v1/.

Each request type declares its method, path and permission here; one place in control/server.py checks it. Unknown
fields are ignored on decoding, so an older CLI and a newer daemon still talk.

| request | method, path | answer |
| --- | --- | --- |
| GetStatus, GetModels, GetVersion | GET | Status, ModelList, Version |
| Load, Park, Unload, Drain | POST | JSON lines of Progress: "accepted" at once, the last with `done` or `error` |
| Pull, Verify, Remove | POST | the same, with the installer's lines between |
| GetRuntimes | GET | RuntimeList |
| InstallRuntime, VerifyRuntime, RemoveRuntime | POST | as Pull |
| Undrain, Reload | POST | Outcome |
| GetStory | POST | Story |
| GetDoctor | POST | JSON lines of Diagnosis, one for each check as it is done, the last with `done` |
| WatchEvents | GET | JSON lines of Event, `listening` at once, for as long as the caller stays |

An error before the answer begins has its HTTP status and an ErrorBody.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import msgspec

from audioproto.diagnosis import Finding
from audioproto.errors import ErrorBody
from audioproto.types import LicenceNotice, Residency, Task, Voice

DEFAULT_SOCKET = "/run/audiod/control.sock"


class Permission(StrEnum):
    """READ: anyone who may open the socket. OPERATE: root, the daemon's own user, and the operator group."""

    READ = "read"
    OPERATE = "operate"


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of all control requests."""

    method: ClassVar[str]
    path: ClassVar[str]
    permission: ClassVar[Permission]


class GetStatus(Request, frozen=True):
    method, path, permission = "GET", "/v1/status", Permission.READ


class GetModels(Request, frozen=True):
    method, path, permission = "GET", "/v1/models", Permission.READ


class GetVersion(Request, frozen=True):
    method, path, permission = "GET", "/v1/version", Permission.READ


class WatchEvents(Request, frozen=True):
    method, path, permission = "GET", "/v1/events", Permission.READ


class Load(Request, frozen=True):
    """Bring a model to ready. A failed model is tried again at once."""

    method, path, permission = "POST", "/v1/load", Permission.OPERATE
    model: str


class Park(Request, frozen=True):
    """Take a model off the device and keep its weights in host memory. Waits for its leases to end."""

    method, path, permission = "POST", "/v1/park", Permission.OPERATE
    model: str


class Unload(Request, frozen=True):
    """End a model's processes. Waits for its leases to end, unless `force`."""

    method, path, permission = "POST", "/v1/unload", Permission.OPERATE
    model: str
    force: bool = False


class Pull(Request, frozen=True):
    """Install a model: build its engine's runtime and fetch its weights."""

    method, path, permission = "POST", "/v1/pull", Permission.OPERATE
    model: str


class Verify(Request, frozen=True):
    """Read every file of an installed model: whether it is what it was."""

    method, path, permission = "POST", "/v1/verify", Permission.OPERATE
    model: str


class Remove(Request, frozen=True):
    """Remove a model's files, unless it is in memory. Its runtime stays."""

    method, path, permission = "POST", "/v1/remove", Permission.OPERATE
    model: str


class GetRuntimes(Request, frozen=True):
    method, path, permission = "GET", "/v1/runtimes", Permission.READ


class InstallRuntime(Request, frozen=True):
    """Build an engine's runtime, with the build of torch that fits this host now."""

    method, path, permission = "POST", "/v1/runtimes/install", Permission.OPERATE
    runtime: str


class VerifyRuntime(Request, frozen=True):
    """Import a runtime's libraries, and let its torch compute on each device."""

    method, path, permission = "POST", "/v1/runtimes/verify", Permission.OPERATE
    runtime: str


class RemoveRuntime(Request, frozen=True):
    """Remove a runtime, unless a model that needs it is in memory."""

    method, path, permission = "POST", "/v1/runtimes/remove", Permission.OPERATE
    runtime: str


class Drain(Request, frozen=True):
    """Admit no new work and finish what runs."""

    method, path, permission = "POST", "/v1/drain", Permission.OPERATE


class Undrain(Request, frozen=True):
    method, path, permission = "POST", "/v1/undrain", Permission.OPERATE


class Reload(Request, frozen=True):
    """Read the configuration again; a bad one is refused and the old one stays."""

    method, path, permission = "POST", "/v1/reload", Permission.OPERATE


class GetStory(Request, frozen=True):
    """Tell how a model came to be where it is, and what it would take to be ready. An alias will do."""

    method, path, permission = "POST", "/v1/story", Permission.READ
    model: str


class GetDoctor(Request, frozen=True):
    """Have the daemon look at its host and itself. With `network` also at the mirrors."""

    method, path, permission = "POST", "/v1/doctor", Permission.READ
    network: bool = False


REQUESTS: tuple[type[Request], ...] = (
    GetStatus,
    GetModels,
    GetVersion,
    WatchEvents,
    Load,
    Park,
    Unload,
    Pull,
    Verify,
    Remove,
    GetRuntimes,
    InstallRuntime,
    VerifyRuntime,
    RemoveRuntime,
    Drain,
    Undrain,
    Reload,
    GetStory,
    GetDoctor,
)

# --- answers ------------------------------------------------------------------------------------------------------


class Work(msgspec.Struct):
    """What a model has done since the daemon was started. Rates are differences of these between two looks."""

    served: int = 0
    """Requests that were served to their end."""
    refused: int = 0
    granted: int = 0
    """Requests that got the model."""
    waited_s: float = 0.0
    """How long those had waited for it, all together."""
    worked_s: float = 0.0
    """How long requests have been served, those that still are among them: that of n at once counts n times."""
    audio_s: float = 0.0
    """Length of the audio that was transcribed or spoken."""
    loads: int = 0
    """Times that it became ready."""


class Needs(msgspec.Struct, frozen=True):
    """What the daemon has learnt of a model's appetite, here or in an earlier run; until then, what its entry says."""

    ready_bytes: int = 0
    """On the device, when it has loaded."""
    parked_bytes: int = 0
    """Of host memory."""
    work_bytes: int = 0
    """On the device beyond `ready_bytes`, for the most demanding request so far."""
    start_s: float = 0.0
    """From unloaded to parked, the last time; 0 while not known."""
    load_s: float = 0.0
    """From parked to ready, the last time; 0 while not known."""
    service_s: float = 0.0
    """A request's time at the engine, on the average."""
    staged_bytes: int = 0
    """Set aside on the device for a model that has only what it needs at a time there; 0 where all of it is."""


class ModelStatus(msgspec.Struct, frozen=True):
    """One row of `audioctl status`. Times are seconds from now; None where it does not apply."""

    model: str
    engine: str
    task: Task
    state: Residency
    device: str
    device_bytes: int = 0
    """Memory on the device that the model holds now, as measured (on `cpu`: its worker's share of host memory)."""
    host_bytes: int = 0
    """Host memory that its zygote holds now, as measured."""
    zygote_pid: int | None = None
    worker_pid: int | None = None
    leases: int = 0
    queue: int = 0
    estimate_s: float | None = None
    """Until a request that came now would be served, as far as can be told; None where nobody waits."""
    idle_s: float | None = None
    expires_s: float | None = None
    """Until it is parked (when ready) or unloaded (when parked), if nobody asks for it."""
    pinned: bool = False
    reason: str = ""
    """Why it is in this state; for `failed`, what went wrong."""
    log: list[str] = []
    """The last lines that its processes wrote, where it failed."""
    work: Work = msgspec.field(default_factory=Work)
    needs: Needs = msgspec.field(default_factory=Needs)


class Memory(msgspec.Struct, frozen=True):
    """The device's ledger line."""

    device: str
    name: str
    total_bytes: int
    available_bytes: int
    budget_bytes: int
    reserved_bytes: int
    others_bytes: int = 0
    """What programs that are not ours hold there, the kernel and the driver among them."""


class Status(msgspec.Struct, frozen=True):
    version: str
    protocol: int
    pid: int
    uptime_s: float
    http: list[str]
    """Base URLs that the HTTP API answers on."""
    config: str
    draining: bool
    queue: int
    memory: list[Memory]
    models: list[ModelStatus]
    readiness: str = "ready"
    """`ready`, `starting`, `draining`, `stopping` or `failed`, as /health/ready says."""
    unready_reason: str = ""


class Chapter(msgspec.Struct, frozen=True):
    """One state that a model was in. `at` is when it came to it, by Unix time in seconds."""

    at: float
    state: Residency
    lasted_s: float
    """Until the next one; of the last one, so far."""
    reason: str = ""


class Story(msgspec.Struct, frozen=True):
    """A model's latest states, oldest first; the last is the one that it is in."""

    model: str
    chapters: list[Chapter]
    whole: bool
    """Nothing of it since the daemon was started is left out. What is, is in the journal."""
    outlook: list[str]
    """What would happen for a request that came now, step by step, in words for a person."""
    estimate_s: float | None
    """Until such a request would be served, as far as can be told; None: never, as things are."""
    hint: str = ""
    """The next command to type, where there is one."""


class ModelInfo(msgspec.Struct, frozen=True):
    """One model of the catalogue, installed or not."""

    model: str
    engine: str
    task: Task
    description: str
    languages: list[str]
    voices: list[Voice]
    aliases: list[str]
    licence: str
    installed: bool
    missing: str = ""
    """What an uninstalled model lacks, in a few words."""
    hint: str = ""
    """What to type to get that."""
    download_bytes: int = 0
    path: str = ""
    """The directory of its files; empty where there are none, or they are in its runtime."""
    licence_notices: list[LicenceNotice] = []
    """Of terms that are not those of open source."""


class ModelList(msgspec.Struct, frozen=True):
    models: list[ModelInfo]


class RuntimeInfo(msgspec.Struct, frozen=True):
    """The environment of an engine's libraries, installed or not."""

    runtime: str
    models: list[str]
    """Those of the catalogue that need it."""
    installed: bool
    outdated: bool = False
    """There is one, but for another lock file or another Python."""
    torch: str = ""
    """Tag of its build of torch, or of the one that it would get; empty where it needs none."""
    fits: str = ""
    """Tag of the build that fits this host now."""
    reason: str = ""
    """Why that one."""
    path: str = ""
    disk_bytes: int = 0
    download_bytes: int = 0
    licence: str = ""
    """Terms of a library in it that are not those of open source."""


class RuntimeList(msgspec.Struct, frozen=True):
    runtimes: list[RuntimeInfo]


class Version(msgspec.Struct, frozen=True):
    version: str
    protocol: int


class Outcome(msgspec.Struct, frozen=True):
    """What was done, in words for a person."""

    message: str


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line about work that takes time. The last line has `done` or `error` set."""

    message: str
    done: bool = False
    error: ErrorBody | None = None


class Diagnosis(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one check found. The last line has `done` set: without it the daemon ended before it was through."""

    findings: list[Finding] = []
    done: bool = False


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened, as shown by `audioctl events`. `at` is Unix time in seconds."""

    at: float
    kind: str
    """`listening` (the first one), `state`, `worker_died`, `memory`, `growth`, `drain`, `reload`, `pull`,
    `remove`, `runtime`."""
    message: str
    model: str = ""
    state: str = ""
    previous: str = ""
