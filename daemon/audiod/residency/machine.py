"""One model's state: which transitions there are, and the story of those that happened.

Decides nothing; scheduler.py calls `transition` and owns all the rest.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from audiod.residency.events import Cause, Profile
from audioproto.errors import AudiodError
from audioproto.types import Residency

S = Residency

TRANSITIONS: dict[Residency, frozenset[Residency]] = {
    S.UNLOADED: frozenset({S.STARTING}),
    S.STARTING: frozenset({S.PARKED, S.STOPPING, S.FAILED}),
    S.PARKED: frozenset({S.LOADING, S.STOPPING, S.UNLOADED, S.FAILED}),
    S.LOADING: frozenset({S.READY, S.STOPPING, S.FAILED}),
    S.READY: frozenset({S.DRAINING, S.PARKING, S.STOPPING, S.PARKED, S.UNLOADED, S.FAILED}),
    S.DRAINING: frozenset({S.READY, S.PARKING, S.STOPPING, S.PARKED, S.UNLOADED, S.FAILED}),
    S.PARKING: frozenset({S.PARKED, S.STOPPING, S.UNLOADED, S.FAILED}),
    S.STOPPING: frozenset({S.UNLOADED, S.FAILED}),
    S.FAILED: frozenset({S.STARTING, S.UNLOADED}),
}
"""From each state, the states that may follow. READY and DRAINING lead straight to PARKED, UNLOADED or FAILED when
a process dies unasked: there is nothing left to stop."""

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
class ModelState:
    """Everything the scheduler holds about one model."""

    profile: Profile
    ready_bytes: int
    parked_bytes: int
    state: Residency = S.UNLOADED
    since: float = 0.0
    reason: str = ""
    cause: Cause = Cause.WANTED
    """Why it made its last move, or is making one."""
    on_device: bool = False
    """Whether the state counts against the device budget."""
    waiters: OrderedDict[int, float] = field(default_factory=OrderedDict)
    """Requests in the queue, oldest first, with the time they came."""
    leases: dict[int, float] = field(default_factory=dict)
    """Requests being served, with the time of their grant."""
    idle_since: float = 0.0
    """When the last lease ended, or when it became ready or parked."""
    target: Residency | None = None
    """Where an operation takes it: PARKED or UNLOADED."""
    evicted_for: str = ""
    """The model that it drains for; when that no longer needs the room, this one serves on."""
    evicted_to: Residency | None = None
    """Where it goes when it has drained for another model: PARKED or UNLOADED."""
    load_operations: list[int] = field(default_factory=list)
    park_operations: list[int] = field(default_factory=list)
    unload_operations: list[int] = field(default_factory=list)
    load_asked_at: float = 0.0
    failure: AudiodError | None = None
    failures: int = 0
    """Failures in a row; the next success clears them."""
    crashes: int = 0
    """Unasked deaths in a row; the next finished lease clears them."""
    retry_at: float = 0.0
    load_s: float = 0.0
    """How long the last load took; 0 while not known."""
    service_s: float = 0.0
    """Moving average of how long a lease lasts."""
    removed: bool = False
    """No longer in the configuration; goes when it is unloaded."""
    story: deque[Chapter] = field(default_factory=lambda: deque(maxlen=STORY_LENGTH))

    @property
    def model(self) -> str:
        return self.profile.model

    @property
    def wanted(self) -> bool:
        """Somebody waits for it to be ready."""
        return bool(self.waiters or self.load_operations)

    @property
    def wanted_since(self) -> float:
        """When the longest-waiting of those came."""
        waits = [next(iter(self.waiters.values()))] if self.waiters else []
        return min([*waits, self.load_asked_at] if self.load_operations else waits)

    @property
    def idle(self) -> bool:
        return not self.leases and not self.waiters

    def transition(self, state: Residency, reason: str, now: float) -> Chapter:
        """Move to `state`. Raises InvalidTransition, with the story, where the table forbids it."""
        chapter = Chapter(now, self.state, state, reason)
        self.story.append(chapter)
        if state not in TRANSITIONS[self.state]:
            story = "\n".join(f"  {c.at:.3f} {c.previous} -> {c.state}: {c.reason}" for c in self.story)
            raise InvalidTransition(f"{self.model}: {self.state} -> {state} ({reason})\n{story}")
        self.on_device = state in HAS_WORKER or (state is S.STOPPING and self.on_device)
        self.state = state
        self.since = now
        self.reason = reason
        return chapter
