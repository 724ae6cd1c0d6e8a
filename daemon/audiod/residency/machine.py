"""One model's state: which transitions there are, and the story of those that happened.

Decides nothing; scheduler.py calls `transition` and owns all the rest.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from audiod.residency.events import Cause, Demand, Profile
from audiod.residency.footprint import Footprint
from audiod.residency.growth import Growth
from audiod.residency.queue import Queue, Waiter
from audioproto.errors import AudiodError
from audioproto.types import Residency

S = Residency

TRANSITIONS: dict[Residency, frozenset[Residency]] = {
    S.UNLOADED: frozenset({S.STARTING}),
    S.STARTING: frozenset({S.PARKED, S.STOPPING, S.FAILED}),
    S.PARKED: frozenset({S.LOADING, S.STOPPING, S.UNLOADED, S.FAILED}),
    S.LOADING: frozenset({S.READY, S.PARKED, S.STOPPING, S.FAILED}),
    S.READY: frozenset({S.DRAINING, S.PARKING, S.STOPPING, S.PARKED, S.UNLOADED, S.FAILED}),
    S.DRAINING: frozenset({S.READY, S.PARKING, S.STOPPING, S.PARKED, S.UNLOADED, S.FAILED}),
    S.PARKING: frozenset({S.PARKED, S.STOPPING, S.UNLOADED, S.FAILED}),
    S.STOPPING: frozenset({S.UNLOADED, S.FAILED}),
    S.FAILED: frozenset({S.STARTING, S.UNLOADED}),
}
"""From each state, the states that may follow. READY and DRAINING lead straight to PARKED, UNLOADED or FAILED when
a process dies unasked: there is nothing left to stop. LOADING leads back to PARKED when memory ran out."""

HAS_ZYGOTE = frozenset({S.STARTING, S.PARKED, S.LOADING, S.READY, S.DRAINING, S.PARKING, S.STOPPING})
"""States that count against the host budget."""

HAS_WORKER = frozenset({S.LOADING, S.READY, S.DRAINING, S.PARKING})
"""States that count against the device budget; so does STOPPING when it was entered from one of them."""

STORY_LENGTH = 64


class InvalidTransition(Exception):
    """A bug in the scheduler. The message carries the model's story."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """One transition of a model's story; `at` is the caller's monotonic clock in seconds."""

    at: float
    previous: Residency
    state: Residency
    reason: str


@dataclass(slots=True)
class Lease:
    """A request being served, or paused in the middle of it."""

    waiter: Waiter
    granted_at: float
    work_bytes: int
    """Device memory beyond the model's rest that is set aside for it."""
    resumed_at: float
    """When it last began to run."""
    pausing: bool = False
    """It was told to pause and has not stopped yet."""
    paused_at: float | None = None
    paused_s: float = 0.0
    """How long it has stood still in all."""
    last_pause_s: float = 0.0

    @property
    def request(self) -> int:
        return self.waiter.request

    @property
    def size(self) -> float:
        return self.waiter.demand.size


@dataclass(slots=True)
class ModelState:
    """Everything the scheduler holds about one model."""

    profile: Profile
    footprint: Footprint
    device: str
    """Where its worker is, or will be: the profile's at the time its zygote was started."""
    state: Residency = S.UNLOADED
    since: float = 0.0
    reason: str = ""
    cause: Cause = Cause.WANTED
    """Why it made its last move, or is making one."""
    on_device: bool = False
    """Whether the state counts against the device budget."""
    queue: Queue = field(default_factory=Queue)
    leases: dict[int, Lease] = field(default_factory=dict)
    """By request, in the order of their grants."""
    idle_since: float = 0.0
    """When the last lease ended, or when it became ready or parked."""
    last_demand: Demand = field(default_factory=Demand)
    """Of the latest lease to end: it may say how long the model is kept."""
    target: Residency | None = None
    """Where an operation takes it: PARKED or UNLOADED."""
    evicted_for: str = ""
    """The model that it drains for; when that no longer needs the room, this one serves on."""
    evicted_at: float = -math.inf
    """When it last had to make room, which ended its turn."""
    evicted_to: Residency | None = None
    """Where it goes when it has drained for another model: PARKED or UNLOADED."""
    load_operations: list[int] = field(default_factory=list)
    park_operations: list[int] = field(default_factory=list)
    unload_operations: list[int] = field(default_factory=list)
    load_asked_at: float = 0.0
    ordered: bool = False
    """It came up by order, and nobody has used it since."""
    failure: AudiodError | None = None
    failures: int = 0
    """Failures in a row; the next success clears them."""
    crashes: int = 0
    """Unasked deaths in a row; the next finished lease clears them."""
    retry_at: float = 0.0
    ran_out: bool = False
    """Memory ran out while it was loading or at work: idle models make room before it goes on."""
    loads: int = 0
    """Times that it became ready."""
    rest_bytes: int = 0
    """What its worker was last seen to hold at rest, 0 where not known: allocators keep some of what requests took."""
    growth: Growth = field(default_factory=Growth)
    wakes_at: float = math.inf
    """When time alone gives it something to do."""
    removed: bool = False
    """No longer in the configuration; goes when it is unloaded."""
    outdated: bool = False
    """Its processes were started for more of the device than it may have now, or for less: they end when idle."""
    story: deque[Chapter] = field(default_factory=lambda: deque(maxlen=STORY_LENGTH))

    @classmethod
    def of(cls, profile: Profile) -> ModelState:
        return cls(profile, profile.footprint.copy(), profile.device)

    @property
    def model(self) -> str:
        return self.profile.model

    @property
    def wanted(self) -> bool:
        """Somebody waits for it to be ready."""
        return len(self.queue) > 0 or len(self.load_operations) > 0

    @property
    def wanted_since(self) -> float:
        """When the longest-waiting of those came."""
        times = [self.load_asked_at] if self.load_operations else []
        if (oldest := self.queue.oldest_came_at) is not None:
            times.append(oldest)
        return min(times)

    @property
    def rank(self) -> float:
        """Its place among models that need room: that of the first who waits for it, but behind whom it made room for.

        One that nobody waits for has been ordered to come up.
        """
        ranks = [self.load_asked_at] if self.load_operations else []
        if (head := self.queue.head) is not None:
            ranks.append(head.rank)
        return max(min(ranks, default=self.since), self.evicted_at)

    @property
    def idle(self) -> bool:
        return not self.leases and not self.queue

    @property
    def at_work(self) -> int:
        """Leases that are not paused."""
        return sum([lease.paused_at is None for lease in self.leases.values()])

    @property
    def keep_alive_s(self) -> float:
        asked = self.last_demand.keep_alive_s
        return self.profile.keep_alive_s if asked is None else asked

    @property
    def park_keep_alive_s(self) -> float:
        asked = self.last_demand.park_keep_alive_s
        return self.profile.park_keep_alive_s if asked is None else asked

    def transition(self, state: Residency, reason: str, now: float) -> Chapter:
        """Move to `state`. Raises InvalidTransition, with the story, where the table forbids it."""
        chapter = Chapter(now, self.state, state, reason)
        self.story.append(chapter)
        if state not in TRANSITIONS[self.state]:
            story = "\n".join(f"  {c.at:.3f} {c.previous} -> {c.state}: {c.reason}" for c in self.story)
            raise InvalidTransition(f"{self.model}: {self.state} -> {state} ({reason})\n{story}")
        self.on_device = state in HAS_WORKER or (state is S.STOPPING and self.on_device)
        if not self.on_device:
            self.rest_bytes = 0
        self.state = state
        self.since = now
        self.reason = reason
        return chapter
