"""What memory there is to load models into, and how much of it is spoken for: the same for status and health.

Only reads: budgets are the scheduler's, measurements the kernel's.
"""

from __future__ import annotations

import asyncio

from audiod.config import Config
from audiod.residency.scheduler import Scheduler
from audiod.supervisor import memory
from audioproto.control import Memory


async def ledger(config: Config, scheduler: Scheduler) -> list[Memory]:
    """A line for each device that models are loaded to."""
    total_bytes, available_bytes = await asyncio.to_thread(memory.host_memory_bytes)
    return [
        Memory(
            device=config.residency.device,
            name="host memory",
            total_bytes=total_bytes,
            available_bytes=available_bytes,
            budget_bytes=scheduler.limits.devices.get(config.residency.device, 0),
            reserved_bytes=scheduler.placement.reserved(config.residency.device),
        )
    ]
