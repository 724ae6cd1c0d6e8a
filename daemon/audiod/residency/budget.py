"""How much memory is spoken for, and by whom: sums over the models' states, kept nowhere else.

Pure arithmetic; what to do when it does not fit is the scheduler's matter.
"""

from __future__ import annotations

from collections.abc import Iterable

from audiod.residency.events import Limits, Resource
from audiod.residency.machine import HAS_ZYGOTE, ModelState
from audioproto.types import Residency


def capacity(limits: Limits, resource: Resource) -> int:
    return limits.device_bytes if resource is Resource.DEVICE else limits.host_bytes


def holds(state: ModelState, resource: Resource) -> int:
    """Bytes of `resource` that the model has, or has been promised, in its present state."""
    if resource is Resource.DEVICE:
        return state.ready_bytes if state.on_device else 0
    return state.parked_bytes if state.state in HAS_ZYGOTE else 0


def reserved(models: Iterable[ModelState], resource: Resource) -> int:
    """Bytes of `resource` promised to all models."""
    return sum(holds(model, resource) for model in models)


def coming(models: Iterable[ModelState], resource: Resource) -> int:
    """Bytes of `resource` that will be free once what is already under way has ended."""
    total = 0
    for model in models:
        leaves_device = model.state in (Residency.PARKING, Residency.STOPPING, Residency.DRAINING)
        leaves_host = model.state is Residency.STOPPING or Residency.UNLOADED in (model.target, model.evicted_to)
        if leaves_device if resource is Resource.DEVICE else leaves_host:
            total += holds(model, resource)
    return total
