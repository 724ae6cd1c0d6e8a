"""Which devices models can be loaded to: `cpu` and `cuda:0` upwards, the meter of each, and their lines in status.

Only names and reads: budgets are the scheduler's, measurements the meters'.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from audiod import gpu, threads
from audiod.meters import READ_LIMIT_S, HostMeter, Meter
from audiod.residency.scheduler import Scheduler
from audioproto.control import Memory
from audioproto.errors import DeviceNotFound, DeviceUnreadable

logger = logging.getLogger(__name__)

CPU = "cpu"

_LINE_LIMIT_S = 2.0
"""Status is not kept waiting for as long as a load may be."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that there is.

    `visible` is what a worker's CUDA_VISIBLE_DEVICES says, so that it sees this device and no other; nothing for `cpu`.
    CUDA counts what it sees, and by speed: `seen_as` is what the worker must call it.
    """

    name: str
    visible: str = ""

    @property
    def seen_as(self) -> str:
        return "cuda:0" if self.visible else self.name


def resolve(wanted: str) -> Device:
    """The device that a configuration means by `auto`, `cpu`, `cuda` or `cuda:N`. Blocks while the driver is asked.

    `auto` is the first GPU, or `cpu` where there is none or its driver does not work. Raises DeviceNotFound with the
    devices that there are, and DeviceUnreadable where a GPU was asked for by name and the driver does not work.
    """
    if wanted == CPU:
        return Device(CPU)
    try:
        there_are = threads.limited(gpu.gpus, READ_LIMIT_S, "devices")
    except (DeviceUnreadable, TimeoutError) as error:
        if not isinstance(error, DeviceUnreadable):
            error = DeviceUnreadable(f"NVIDIA's driver has not answered for {READ_LIMIT_S:g} s", hint="nvidia-smi")
        if wanted != "auto":
            raise error from None
        logger.warning("models are loaded to the CPU: %s", error.message)
        return Device(CPU)
    if wanted == "auto" and not there_are:
        return Device(CPU)
    number = int(wanted.partition(":")[2] or 0)
    if number >= len(there_are):
        names = [CPU, *(f"cuda:{index} ({one.name})" for index, one in enumerate(there_are))]
        raise DeviceNotFound(
            f"there is no device {wanted!r} here, only: {', '.join(names)}",
            hint="set residency.device in audiod.toml, or device in the model's file",
        )
    return Device(f"cuda:{number}", there_are[number].uuid)


def total_bytes(name: str) -> int:
    """What the device has in all. Blocks while the driver is asked. Raises DeviceUnreadable."""
    try:
        return threads.limited(lambda: meter(name).read_now(()), READ_LIMIT_S, "devices").total_bytes
    except TimeoutError:
        raise DeviceUnreadable(
            f"{name} has not said for {READ_LIMIT_S:g} s how its memory stands", hint="audioctl doctor"
        ) from None


@functools.cache
def meter(name: str) -> Meter:
    """The one meter of a device, by its name as `resolve` gives it."""
    return HostMeter() if name == CPU else gpu.GpuMeter(name)


async def ledger(scheduler: Scheduler) -> list[Memory]:
    """A line for each device that models are loaded to."""
    budgets = scheduler.limits.devices
    return await lines(budgets, {name: scheduler.placement.reserved(name) for name in budgets})


async def lines(budgets: Mapping[str, int], reserved: Mapping[str, int]) -> list[Memory]:
    """The same for the devices of `budgets`: bytes that models may hold there, and that they hold or were promised."""
    return await asyncio.gather(*(_line(name, budgets[name], reserved.get(name, 0)) for name in budgets))


async def _line(name: str, budget_bytes: int, reserved_bytes: int) -> Memory:
    try:
        async with asyncio.timeout(_LINE_LIMIT_S):
            survey = await meter(name).survey(reserved_bytes)
    except (DeviceUnreadable, TimeoutError):
        # Status and health answer all the same: they are what one looks at when a driver hangs.
        return Memory(name, "does not answer", 0, 0, budget_bytes, reserved_bytes)
    return Memory(
        device=name,
        name=meter(name).name,
        total_bytes=survey.total_bytes,
        available_bytes=survey.free_bytes,
        budget_bytes=budget_bytes,
        reserved_bytes=reserved_bytes,
        others_bytes=survey.others_bytes,
    )
