"""What a device has of memory and who holds it: the interface to measure it by, the host's meter, and the arithmetic.

Says what is so, and whether memory has come back; who may have it is residency's to decide. The GPU's meter is gpu.py.
"""

from __future__ import annotations

import asyncio
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from audiod import threads
from audiod.supervisor import memory
from audiod.supervisor.memory import Use
from audioproto.errors import DeviceUnreadable

T = TypeVar("T")

MIB = 2**20

READ_LIMIT_S = 10.0
"""A driver that nobody else uses is started by the first question, a second or so for each GPU; more is a hang."""

_SURVEY_KEPT_S = 1.0
"""Whoever may ask for /health may not make us walk page tables more often than that."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.1


@dataclass(frozen=True, slots=True)
class Reading:
    """A device's memory at one moment.

    `processes`: bytes by process id, of all processes or at least of those asked for; one that is not there holds none.
    None where the device does not tell: its memory is shared with a container's host, say.
    """

    total_bytes: int
    free_bytes: int
    processes: Mapping[int, int] | None

    def held_bytes(self, pids: Collection[int]) -> int | None:
        """What these processes hold together; None where that is not known."""
        if self.processes is None:
            return None
        return sum(self.processes.get(pid, 0) for pid in set(pids))


@dataclass(frozen=True, slots=True)
class Survey:
    """How a device's memory is divided. The four numbers need not add up: what is ours may be a promise."""

    total_bytes: int
    free_bytes: int
    ours_bytes: int
    others_bytes: int


def taken_bytes(before: Reading, after: Reading, pids: Collection[int]) -> int:
    """What processes that came in between hold: their own figure, else by how much less is free. Never negative."""
    own_bytes = after.held_bytes(pids)
    return max(0, before.free_bytes - after.free_bytes) if own_bytes is None else own_bytes


def residue(before: Reading | None, after: Reading, pids: Collection[int], held_bytes: int) -> int:
    """How much of the `held_bytes` that processes held at `before` is not back; never negative.

    Where the device tells who holds what, their own figure is the answer, whatever others took or gave meanwhile. Else
    the free memory is compared, signed: there may be less than before, because another program was quicker. What that
    one took or gave cannot be told from ours; but it is never more than we held.
    """
    own_bytes = after.held_bytes(pids)
    if own_bytes is not None:
        return own_bytes
    returned_bytes = after.free_bytes - before.free_bytes if before is not None else 0
    return min(max(0, held_bytes - returned_bytes), max(0, held_bytes))


def others_bytes(reading: Reading, ours_bytes: int) -> int:
    """What programs that are not ours hold, the kernel and the driver among them; never negative."""
    return max(0, reading.total_bytes - reading.free_bytes - ours_bytes)


class Meter(ABC):
    """Measures one device. Raises DeviceUnreadable where it does not answer, or not in time.

    One for each device: it remembers a question that has had no answer, and asks no other until it has.
    """

    def __init__(self, device: str, tolerance_bytes: int, limit_s: float = READ_LIMIT_S) -> None:
        self.device = device
        self._limit_s = limit_s
        self.name = ""
        """What people call the device; empty before it was read for the first time."""
        self.tolerance_bytes = tolerance_bytes
        """A residue up to this proves nothing."""
        self._asked: dict[object, float] = {}
        self._surveying = asyncio.Lock()
        self._survey: tuple[float, Reading, int | None] | None = None

    @abstractmethod
    def read_now(self, pids: Collection[int]) -> Reading:
        """Blocks."""

    @abstractmethod
    def use_now(self, pid: int) -> Use | None:
        """Blocks."""

    @abstractmethod
    def reset_now(self, pid: int) -> None:
        """Blocks."""

    async def read(self, pids: Collection[int] = ()) -> Reading:
        """The device's memory now, and what these processes hold of it."""
        return await self._ask(partial(self.read_now, frozenset(pids)))

    async def measure_worker(self, pid: int) -> Use | None:
        """What a worker holds now, and the most since `reset_peak`; None where it is gone, or that is not told."""
        return await self._ask(partial(self.use_now, pid))

    async def reset_peak(self, pid: int) -> None:
        """Let the worker's peak begin anew."""
        await self._ask(partial(self.reset_now, pid))

    async def survey(self, promised_bytes: int) -> Survey:
        """How the device is divided between us, others and nobody; kept for a second.

        `promised_bytes` stands for what is ours where the device does not tell.
        """
        async with self._surveying:
            now = time.monotonic()
            if self._survey is None or now - self._survey[0] >= _SURVEY_KEPT_S:
                self._survey = (now, *await self._ask(self._look_over))
            _, reading, known_bytes = self._survey
        ours_bytes = promised_bytes if known_bytes is None else known_bytes
        return Survey(reading.total_bytes, reading.free_bytes, ours_bytes, others_bytes(reading, ours_bytes))

    def _look_over(self) -> tuple[Reading, int | None]:
        ours = memory.family(os.getpid())
        reading = self.read_now(ours)
        return reading, reading.held_bytes(ours)

    async def _ask(self, question: Callable[[], T]) -> T:
        now = time.monotonic()
        if any(now - asked > self._limit_s for asked in list(self._asked.values())):
            raise self._silent()
        token = object()
        self._asked[token] = now

        def ask() -> T:
            try:
                return question()
            finally:
                del self._asked[token]

        try:
            async with asyncio.timeout(self._limit_s):
                return await threads.apart(ask, f"meter {self.device}")
        except TimeoutError as error:
            raise self._silent() from error
        except OSError as error:
            raise DeviceUnreadable(f"{self.device} cannot be measured: {error}", hint="audioctl doctor") from error

    def _silent(self) -> DeviceUnreadable:
        return DeviceUnreadable(
            f"{self.device} has not said for {self._limit_s:g} s how its memory stands", hint="audioctl doctor"
        )


class HostMeter(Meter):
    """`cpu`: the host's memory, or what our control group may have of it. A process holds its proportional share."""

    def __init__(self) -> None:
        # A process shows its last pages while the kernel takes it down.
        super().__init__("cpu", MIB)
        self.name = "host memory"

    def read_now(self, pids: Collection[int]) -> Reading:
        total_bytes, free_bytes = memory.host_memory_bytes()
        return Reading(total_bytes, free_bytes, {pid: held for pid in pids if (held := memory.pss_bytes(pid))})

    def use_now(self, pid: int) -> Use | None:
        return memory.use(pid)

    def reset_now(self, pid: int) -> None:
        memory.reset_peak(pid)


async def reclaimed(
    meter: Meter, before: Reading | None, pids: Collection[int], held_bytes: int, timeout_s: float
) -> int:
    """Wait until what processes held is back, and return 0; after `timeout_s`, the bytes that are not.

    To be called once they are gone. `before` is the reading from when they held `held_bytes`, None where there was
    none. Takes at most `timeout_s` and the time limit of one reading. What cannot be proved counts as held.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    # Of several readings the best counts: memory that has once come back is not ours when another program takes it.
    least_bytes: int | None = None
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            left_bytes = residue(before, await meter.read(pids), pids, held_bytes)
        except DeviceUnreadable:
            pass
        else:
            least_bytes = left_bytes if least_bytes is None else min(least_bytes, left_bytes)
            if least_bytes <= meter.tolerance_bytes:
                return 0
        if loop.time() >= deadline:
            return max(0, held_bytes) if least_bytes is None else least_bytes
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
