"""What can happen (events, past tense) and what is to be done about it (instructions, imperative).

Data only. Seconds are of the caller's monotonic clock; bytes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Union

from audiod.residency.footprint import Footprint
from audioproto.errors import AudiodError
from audioproto.types import Death, Priority, Residency

HOST = "host"
"""The memory that zygotes hold. Any other name of memory is a device's, `cpu` or `cuda:0`: what workers hold there."""


class Cause(StrEnum):
    """Why a model moves, to be counted; `Announce.reason` has it in words."""

    WANTED = "wanted"
    """Somebody needs it, so it comes up, or stays."""
    IDLE = "idle"
    """Nobody has needed it for its keep-alive."""
    PRESSURE = "pressure"
    """Another model, or another program, needs the room."""
    OPERATOR = "operator"
    """By order, or because it was taken out of the configuration."""
    FAILURE = "failure"
    """A process of it died, or could not come up."""
    GROWTH = "growth"
    """It held ever more memory, and begins anew."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What the scheduler is told of a model.

    `footprint` is what its entry says or an earlier run has learnt; what is measured replaces it. `keep_alive_s` and
    `park_keep_alive_s` are the idle seconds before it is parked and unloaded; negative means never. `concurrency` is
    how many leases its worker serves at a time. `staged_bytes` is of a model that is staged: what is set aside on the
    device for whatever it brings there, however little it holds just now; 0 where it is not.
    """

    model: str
    footprint: Footprint
    device: str = "cpu"
    keep_alive_s: float = 300.0
    park_keep_alive_s: float = 3600.0
    pinned: bool = False
    concurrency: int = 1
    staged_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds that the scheduler keeps.

    `devices`: bytes that workers may hold on each. `reserve_bytes`: what always stays free of a device's memory, as far
    as other programs leave it. `host_bytes`: what zygotes may hold. `max_switch_wait_s`: how long others may wait while
    a busy model keeps the device; twice as long where requests that came before theirs wait for that one.
    `batch_patience_s`: how much later than it came a batch request counts as come. `crash_limit`: unasked deaths
    without a success between them before a model counts as failed. `backoff_s` doubles with every failure in a row, up
    to `backoff_cap_s`. `recycle`: whether a model that grows is begun anew when idle.
    """

    devices: Mapping[str, int]
    host_bytes: int
    reserve_bytes: Mapping[str, int] = field(default_factory=dict)
    queue_requests: int = 512
    max_switch_wait_s: float = 25.0
    batch_patience_s: float = 30.0
    crash_limit: int = 3
    backoff_s: float = 5.0
    backoff_cap_s: float = 300.0
    recycle: bool = False


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request asks of its model.

    `size` is seconds of audio to transcribe or characters to speak, 0 where unknown: one model's sizes compare.
    `keep_alive_s` and `park_keep_alive_s` take the place of the model's own after this request; None leaves them.
    """

    size: float = 0.0
    priority: Priority = Priority.INTERACTIVE
    keep_alive_s: float | None = None
    park_keep_alive_s: float | None = None


# --- events -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Requested:
    """Someone wants a lease, and gives up at `deadline`."""

    request: int
    model: str
    deadline: float
    demand: Demand = Demand()


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The one who asked has left the queue."""

    request: int


@dataclass(frozen=True, slots=True)
class Released:
    """A lease ended; it carries the number of the request that it was granted to.

    `abandoned`: the client had left before the work was done. `out_of_memory`: the work failed for want of memory.
    """

    request: int
    abandoned: bool = False
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class Yielded:
    """The lease that was told to pause stands between two segments, and computes nothing until it is resumed."""

    request: int


@dataclass(frozen=True, slots=True)
class LoadAsked:
    operation: int
    model: str


@dataclass(frozen=True, slots=True)
class ParkAsked:
    operation: int
    model: str


@dataclass(frozen=True, slots=True)
class UnloadAsked:
    operation: int
    model: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class DrainAsked:
    operation: int


@dataclass(frozen=True, slots=True)
class DrainEnded:
    pass


@dataclass(frozen=True, slots=True)
class ZygoteStarted:
    model: str
    host_bytes: int


@dataclass(frozen=True, slots=True)
class WorkerLoaded:
    model: str
    device_bytes: int


@dataclass(frozen=True, slots=True)
class WorkerMeasured:
    """What a worker holds at rest now, and what it held at its peak during a request of `size`; 0 where not known.

    Measured when it serves nothing else, or the one would be taken for the other.
    """

    model: str
    resting_bytes: int
    peak_bytes: int
    size: float


@dataclass(frozen=True, slots=True)
class DeviceMeasured:
    """What a device has in all, and what is held there by programs that are not ours; a total of 0: not known."""

    device: str
    total_bytes: int
    others_bytes: int


@dataclass(frozen=True, slots=True)
class WorkerStopped:
    """The worker that was to stop is gone and its memory is back, but for `residue_bytes`."""

    model: str
    residue_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ZygoteStopped:
    """Every process of the model that was to stop is gone and its memory is back, but for `residue_bytes`."""

    model: str
    residue_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The zygote could not be started, and is gone."""

    model: str
    error: AudiodError


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The worker could not load, and is gone; the zygote lives. OutOfMemory is tried once more with more room."""

    model: str
    error: AudiodError


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """A worker that was serving is gone, unasked; the zygote lives."""

    model: str
    reason: str
    death: Death


@dataclass(frozen=True, slots=True)
class ZygoteDied:
    """A zygote is gone, unasked, and its worker with it."""

    model: str
    reason: str
    death: Death


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """The configuration was read again: these are all models and limits from now on."""

    profiles: tuple[Profile, ...]
    limits: Limits


@dataclass(frozen=True, slots=True)
class TimePassed:
    """`Scheduler.next_wakeup` has come."""


Event = Union[
    Requested,
    Cancelled,
    Released,
    Yielded,
    LoadAsked,
    ParkAsked,
    UnloadAsked,
    DrainAsked,
    DrainEnded,
    ZygoteStarted,
    WorkerLoaded,
    WorkerMeasured,
    DeviceMeasured,
    WorkerStopped,
    ZygoteStopped,
    StartFailed,
    LoadFailed,
    WorkerDied,
    ZygoteDied,
    Reconfigured,
    TimePassed,
]

# --- instructions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartZygote:
    """Answered by ZygoteStarted, StartFailed or ZygoteDied."""

    model: str


@dataclass(frozen=True, slots=True)
class ForkWorker:
    """Answered by WorkerLoaded, LoadFailed or ZygoteDied."""

    model: str


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Answered by WorkerStopped, always."""

    model: str


@dataclass(frozen=True, slots=True)
class StopZygote:
    """Stop the worker, if any, and the zygote. Answered by ZygoteStopped, always."""

    model: str


@dataclass(frozen=True, slots=True)
class MeasureDevice:
    """Answered by DeviceMeasured, always."""

    device: str


@dataclass(frozen=True, slots=True)
class Grant:
    request: int
    model: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Let the lease's work stop at its next segment. Answered by Yielded, or by Released where it ends first."""

    request: int


@dataclass(frozen=True, slots=True)
class Resume:
    """Let the paused lease's work go on."""

    request: int


@dataclass(frozen=True, slots=True)
class Reject:
    request: int
    error: AudiodError


@dataclass(frozen=True, slots=True)
class Finish:
    """An operator's operation is over; `error` is None where it succeeded."""

    operation: int
    error: AudiodError | None = None


@dataclass(frozen=True, slots=True)
class Announce:
    """A model changed its state.

    `wanted_since` is when the longest-waiting request or order for it came, None where nobody waits.
    """

    model: str
    previous: Residency
    state: Residency
    reason: str
    cause: Cause
    wanted_since: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Something that an operator should know of, and that is no change of state."""

    kind: str
    """`memory` or `growth`."""
    message: str
    model: str = ""


Instruction = Union[
    StartZygote,
    ForkWorker,
    StopWorker,
    StopZygote,
    MeasureDevice,
    Grant,
    Pause,
    Resume,
    Reject,
    Finish,
    Announce,
    Report,
]
