"""How much memory is spoken for, and by whom: sums over the models' states, kept nowhere else.

Pure arithmetic; what to do when it does not fit is placement.py's matter. A resource is HOST or a device's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from audiod.residency.events import HOST, Limits
from audiod.residency.machine import HAS_ZYGOTE, ModelState
from audioproto.types import Residency


@dataclass(frozen=True, slots=True)
class Measured:
    """What a device was last seen to have in all, and to hold for programs that are not ours."""

    total_bytes: int
    others_bytes: int


def allowed(limits: Limits, measured: Mapping[str, Measured], resource: str) -> int:
    """Bytes that our models could hold if no other program were there."""
    if resource == HOST:
        return limits.host_bytes
    budget = limits.devices.get(resource, 0)
    if (seen := measured.get(resource)) is not None:
        budget = min(budget, seen.total_bytes - limits.reserve_bytes.get(resource, 0))
    return max(0, budget)


def capacity(limits: Limits, measured: Mapping[str, Measured], resource: str) -> int:
    """Bytes that our models may hold beside the other programs."""
    if (seen := measured.get(resource)) is None:
        return allowed(limits, measured, resource)
    beside = seen.total_bytes - limits.reserve_bytes.get(resource, 0) - seen.others_bytes
    return max(0, min(allowed(limits, measured, resource), beside))


def holds(state: ModelState, resource: str) -> int:
    """Bytes of `resource` that the model has, or has been promised, in its present state."""
    if resource == HOST:
        return state.footprint.parked_bytes if state.state in HAS_ZYGOTE else 0
    if resource != state.device or not state.on_device:
        return 0
    work_bytes = sum([lease.work_bytes for lease in state.leases.values()])
    return max(state.rest_bytes, state.footprint.ready_bytes + work_bytes)


def reserved(models: Iterable[ModelState], resource: str) -> int:
    """Bytes of `resource` promised to all models."""
    return sum(holds(model, resource) for model in models)


def coming(models: Iterable[ModelState], resource: str) -> int:
    """Bytes of `resource` that will be free once what is already under way has ended."""
    total = 0
    for model in models:
        leaves_device = model.state in (Residency.PARKING, Residency.STOPPING, Residency.DRAINING)
        leaves_host = model.state is Residency.STOPPING or Residency.UNLOADED in (model.target, model.evicted_to)
        if leaves_host if resource == HOST else leaves_device:
            total += holds(model, resource)
    return total
