"""What can happen (events, past tense) and what is to be done about it (instructions, imperative).

Data only. Seconds are of the caller's monotonic clock; bytes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Union

from audioproto.errors import AudiodError
from audioproto.types import Death, Priority, Residency


class Resource(Enum):
    """The two kinds of memory that are budgeted."""

    DEVICE = auto()
    """What a worker holds: VRAM, or host memory where the device is `cpu`."""
    HOST = auto()
    """What a zygote holds."""


class Cause(StrEnum):
    """Why a model moves, to be counted; `Announce.reason` has it in words."""

    WANTED = "wanted"
    """Somebody needs it, so it comes up, or stays."""
    IDLE = "idle"
    """Nobody has needed it for its keep-alive."""
    PRESSURE = "pressure"
    """Another model needs the room."""
    OPERATOR = "operator"
    """By order, or because it was taken out of the configuration."""
    FAILURE = "failure"
    """A process of it died, or could not come up."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What the scheduler knows of a model.

    The byte counts are priors from its entry, replaced by what is measured. `keep_alive_s` and `park_keep_alive_s`
    are the idle seconds before it is parked and unloaded; negative means never. `concurrency` is how many leases
    its worker serves at a time.
    """

    model: str
    ready_bytes: int
    parked_bytes: int
    keep_alive_s: float = 300.0
    park_keep_alive_s: float = 3600.0
    pinned: bool = False
    concurrency: int = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds that the scheduler keeps.

    `max_switch_wait_s`: how long others may wait while a busy model keeps the device. `crash_limit`: unasked deaths
    without a success between them before a model counts as failed. `backoff_s` doubles with every failure in a row,
    up to `backoff_cap_s`.
    """

    device_bytes: int
    host_bytes: int
    queue_requests: int = 512
    max_switch_wait_s: float = 20.0
    crash_limit: int = 3
    backoff_s: float = 5.0
    backoff_cap_s: float = 300.0


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


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The one who asked has left the queue."""

    request: int


@dataclass(frozen=True, slots=True)
class Released:
    """A lease ended; it carries the number of the request that it was granted to.

    `abandoned`: the client had left before the work was done.
    """

    request: int
    abandoned: bool = False


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
    """The worker could not load, and is gone; the zygote lives."""

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
    LoadAsked,
    ParkAsked,
    UnloadAsked,
    DrainAsked,
    DrainEnded,
    ZygoteStarted,
    WorkerLoaded,
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
class Grant:
    request: int
    model: str


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


Instruction = Union[StartZygote, ForkWorker, StopWorker, StopZygote, Grant, Reject, Finish, Announce]
