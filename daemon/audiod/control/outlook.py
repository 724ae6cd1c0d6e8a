"""What would happen for a request that came now, step by step and in words: for `audioctl why`.

Asks residency's own rules, on a copy of the one state that a request would change; it decides and changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from audiod.residency import budget
from audiod.residency.events import HOST
from audiod.residency.machine import ModelState
from audiod.residency.placement import Placement
from audiod.residency.scheduler import Scheduler
from audiod.units import ByteSize, Duration
from audioproto.types import Residency as S

_LEAVING = (S.DRAINING, S.PARKING, S.STOPPING)


@dataclass(slots=True)
class Outlook:
    """`estimate_s` is until the request would be served, None for never; `hint` the next command to type, if any."""

    steps: list[str] = field(default_factory=list)
    estimate_s: float | None = 0.0
    hint: str = ""


def outlook(scheduler: Scheduler, model: str, now: float) -> Outlook:
    """What it would take for `model` to serve a request that came at `now`, a time of the scheduler's clock."""
    state = scheduler.models[model]
    found = Outlook()
    if scheduler.draining:
        found.steps.append("the daemon drains, and takes no new requests")
        found.estimate_s, found.hint = None, "audioctl undrain"
        return found
    if state.removed:
        found.steps.append("it is no longer in the catalogue, and goes when its work is done")
        found.estimate_s = None
        return found
    if state.state is S.READY and state.target is None:
        found.steps.append(_ready(state))
        if state.queue or state.at_work >= state.profile.concurrency:
            found.estimate_s = scheduler.estimate_wait_s(model)
        return found
    found.estimate_s = scheduler.estimate_wait_s(model)
    if state.state is S.FAILED and now < state.retry_at:
        found.steps.append(f"requests are refused for another {_time(state.retry_at - now)}, because of the failure")
        found.estimate_s += state.retry_at - now
        found.hint = f"audioctl load {model}"
    found.steps += _on_its_way(state, now)
    if state.state in (S.UNLOADED, S.FAILED, S.STOPPING) or state.target is S.UNLOADED:
        found.steps.append("its zygote must be started" + _took(state.footprint.start_s))
        _room(found, scheduler, state, HOST, state.footprint.parked_bytes, now)
    if state.state is not S.LOADING:
        staged = ", staged, for as a whole it has no room there" if state.profile.staged_bytes else ""
        found.steps.append(f"it must be loaded to {state.profile.device}{staged}" + _took(state.footprint.load_s))
        _room(found, scheduler, state, state.profile.device, state.footprint.ready_bytes, now)
    if not found.hint and found.estimate_s is not None and state.state in (S.UNLOADED, S.PARKED):
        found.hint = f"audioctl load {model}"
    return found


def _ready(state: ModelState) -> str:
    ready = "ready, staged" if state.profile.staged_bytes else "ready"
    if not state.leases and not state.queue:
        return f"it is {ready}, and has nothing to do"
    waiting = f", and {_requests(len(state.queue))} waiting before a new one" if state.queue else ""
    return f"it is {ready}, with {_requests(len(state.leases))} at work{waiting}"


def _on_its_way(state: ModelState, now: float) -> Iterator[str]:
    """What is already under way."""
    since = _time(now - state.since)
    if state.state is S.STARTING:
        yield f"its zygote is being started, for {since} so far{_took(state.footprint.start_s)}"
    elif state.state is S.LOADING:
        yield f"it is being loaded, for {since} so far{_took(state.footprint.load_s)}"
    elif state.state in (S.PARKING, S.STOPPING):
        yield f"it is on its way down, for {since} so far: {state.reason}"
    elif state.leases:
        yield f"{_requests(len(state.leases))} at work must end first: {state.reason}"
    elif state.target is not None:
        yield f"it is to be {state.target}, by order"


def _room(found: Outlook, scheduler: Scheduler, state: ModelState, resource: str, need: int, now: float) -> None:
    """Whether there is room, and who would have to go."""
    wanting = replace(state, load_operations=[0], load_asked_at=now, ran_out=False)
    models = {**scheduler.models, state.model: wanting}
    placement = Placement(models, scheduler.limits, scheduler.placement.measured)
    room = placement.room(wanting, resource, need, now)
    where = "host memory" if resource == HOST else resource
    free = max(0, placement.capacity(resource) - placement.reserved(resource))
    if room.never is not None:
        found.steps.append(room.never.message)
        found.estimate_s, found.hint = None, room.never.hint
    elif room.taken:
        found.steps.append(f"there is room: {_size(need)} of {_size(free)} that are free in {where}")
    else:
        found.steps.append(f"{_size(need)} are needed, and {_size(free)} are free in {where}")
        leaving = [other for other in models.values() if other.state in _LEAVING and budget.holds(other, resource)]
        found.steps += [f"{other.model} is on its way out" for other in leaving]
        for victim in room.victims:
            found.steps.append(_would_go(victim, resource, now))
        if not math.isinf(room.wake_at):
            others = (other for other in models.values() if other.state is S.READY and other.device == resource)
            busy = [other.model for other in others if not other.idle]
            found.steps.append(f"{', '.join(busy)} may keep at work for another {_time(room.wake_at - now)}")


def _would_go(victim: ModelState, resource: str, now: float) -> str:
    to = "unloaded" if resource == HOST else "parked"
    frees = _size(budget.holds(victim, resource))
    if victim.idle:
        return f"{victim.model}, idle for {_time(now - victim.idle_since)}, would be {to} for it, which frees {frees}"
    return f"{victim.model} would end what it works on, and be {to} for it, which frees {frees}"


def _took(seconds: float) -> str:
    return f" (the last time that took {_time(seconds)})" if seconds else ""


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count} requests"


def _size(size_bytes: int) -> str:
    return str(ByteSize(size_bytes))


def _time(seconds: float) -> str:
    if seconds < 0.995:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.1f}s" if seconds < 9.95 else str(Duration(round(seconds)))
