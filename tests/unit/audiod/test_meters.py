"""Readings of memory, and the proof that it came back: the arithmetic by properties, the host's meter on processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiod.meters import HostMeter, Meter, Reading, others_bytes, reclaimed, residue, taken_bytes
from audiod.supervisor.memory import Use
from audioproto.errors import DeviceUnreadable

GIB = 2**30
MIB = 2**20
OURS = frozenset({1, 2})

amounts = st.integers(0, 4 * GIB)
tenants = st.dictionaries(st.integers(3, 9), amounts, max_size=4)
"""What other processes hold, by process id."""


def card(ours: dict[int, int], others: dict[int, int], *, told: bool) -> Reading:
    """A GPU of 80 GiB: its free memory is what nobody holds."""
    held = ours | others
    return Reading(80 * GIB, 80 * GIB - sum(held.values()), held if told else None)


# --- residue ----------------------------------------------------------------------------------------------------------


@given(held=st.dictionaries(st.sampled_from([1, 2]), amounts), before=tenants, after=tenants, data=st.data())
def test_the_residue_is_what_our_processes_still_hold_whatever_others_do(
    held: dict[int, int], before: dict[int, int], after: dict[int, int], data: st.DataObject
) -> None:
    left = {pid: data.draw(st.integers(0, size)) for pid, size in held.items()}
    first, second = card(held, before, told=True), card(left, after, told=True)
    assert residue(first, second, OURS, sum(held.values())) == sum(left.values())
    assert residue(None, second, OURS, 0) == sum(left.values()), "it needs nothing to compare with"


@given(held=amounts, kept=amounts, others=tenants)
def test_without_figures_the_free_memory_tells_where_others_keep_still(
    held: int, kept: int, others: dict[int, int]
) -> None:
    kept = min(held, kept)
    first, second = card({1: held}, others, told=False), card({1: kept}, others, told=False)
    assert residue(first, second, OURS, held) == kept


@given(before=amounts, after=amounts, held=st.integers(-GIB, 4 * GIB), told=st.none() | st.just({}))
def test_a_residue_is_never_negative_and_never_more_than_was_held(
    before: int, after: int, held: int, told: dict[int, int] | None
) -> None:
    first, second = (Reading(8 * GIB, free, told) for free in (before, after))
    assert 0 <= residue(first, second, OURS, held) <= max(0, held)
    assert taken_bytes(first, second, OURS) >= 0


def test_less_free_memory_than_before_is_no_proof_that_it_came_back() -> None:
    """Ollama subtracts without a sign: where another program took memory meanwhile, 2^64 bytes have come back."""
    before, after = Reading(16 * GIB, 8 * GIB, None), Reading(16 * GIB, 5 * GIB, None)
    unsigned = (after.free_bytes - before.free_bytes) % 2**64
    assert unsigned > 0.75 * 4 * GIB, "which is ollama's rule for having got it back"
    assert residue(before, after, OURS, 4 * GIB) == 4 * GIB


def test_a_tenant_that_takes_the_memory_at_once_is_not_our_residue() -> None:
    before = card({1: 4 * GIB}, {7: GIB}, told=True)
    after = card({}, {7: 5 * GIB}, told=True)
    assert after.free_bytes == before.free_bytes
    assert residue(before, after, OURS, 4 * GIB) == 0


def test_without_a_reading_from_before_nothing_is_proved() -> None:
    assert residue(None, Reading(16 * GIB, 15 * GIB, None), OURS, GIB) == GIB


# --- what is taken, and by whom ---------------------------------------------------------------------------------------


@given(takes=amounts, before=tenants, after=tenants)
def test_what_a_load_took_is_its_process_s_own_figure(
    takes: int, before: dict[int, int], after: dict[int, int]
) -> None:
    first, second = card({}, before, told=True), card({1: takes}, after, told=True)
    assert taken_bytes(first, second, OURS) == takes


@given(takes=amounts, others=tenants)
def test_without_figures_it_is_by_how_much_less_is_free(takes: int, others: dict[int, int]) -> None:
    first, second = card({}, others, told=False), card({1: takes}, others, told=False)
    assert taken_bytes(first, second, OURS) == takes


@given(ours=st.dictionaries(st.sampled_from([1, 2]), amounts), others=tenants, told=st.booleans())
def test_what_is_neither_free_nor_ours_is_held_by_others(
    ours: dict[int, int], others: dict[int, int], told: bool
) -> None:
    assert others_bytes(card(ours, others, told=told), sum(ours.values())) == sum(others.values())


@given(total=amounts, free=amounts, ours=amounts)
def test_others_never_hold_less_than_nothing(total: int, free: int, ours: int) -> None:
    assert others_bytes(Reading(total, free, None), ours) >= 0


# --- waiting for memory -----------------------------------------------------------------------------------------------


class Scripted(Meter):
    """Tells one reading after the other, and the last one for ever; None is a device that does not answer."""

    def __init__(self, *readings: Reading | None) -> None:
        super().__init__("cuda:0", 16 * MIB)
        self.readings = list(readings)
        self.asked = 0

    def read_now(self, pids: Collection[int]) -> Reading:
        self.asked += 1
        reading = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        if reading is None:
            raise DeviceUnreadable("cuda:0 is lost")
        return reading

    def use_now(self, pid: int) -> Use | None:
        return None

    def reset_now(self, pid: int) -> None:
        pass


HELD = card({1: 2 * GIB}, {}, told=False)


def free(free_bytes: int) -> Reading:
    return Reading(HELD.total_bytes, HELD.free_bytes + free_bytes, None)


async def test_memory_that_comes_back_late_is_waited_for() -> None:
    meter = Scripted(free(0), free(GIB), None, free(2 * GIB - 15 * MIB))
    assert await reclaimed(meter, HELD, OURS, 2 * GIB, 60.0) == 0
    assert meter.asked == 4


async def test_the_wait_ends_in_time_with_what_is_still_missing() -> None:
    meter = Scripted(free(0), free(GIB))
    began = time.monotonic()
    assert await reclaimed(meter, HELD, OURS, 2 * GIB, 0.05) == GIB
    assert 0.05 <= time.monotonic() - began < 5


async def test_memory_that_came_back_and_was_taken_by_another_counts_as_back() -> None:
    """The best reading counts: a part of the worker's memory hangs on, and a tenant takes all that came back."""
    meter = Scripted(free(2 * GIB - 700 * MIB), free(-GIB))
    assert await reclaimed(meter, HELD, OURS, 2 * GIB, 0.05) == 700 * MIB


@pytest.mark.parametrize(
    ("readings", "left"), [([None], 2 * GIB), ([None, free(GIB), None], GIB), ([None, None, free(2 * GIB)], 0)]
)
async def test_what_a_device_does_not_answer_for_counts_as_held(readings: Sequence[Reading | None], left: int) -> None:
    assert await reclaimed(Scripted(*readings), HELD, OURS, 2 * GIB, 0.1) == left


async def test_nothing_is_waited_for_where_no_time_is_given() -> None:
    meter = Scripted(free(0))
    assert await reclaimed(meter, HELD, OURS, 2 * GIB, 0.0) == 2 * GIB
    assert meter.asked == 1


# --- devices that hang ------------------------------------------------------------------------------------------------


class Hanging(Scripted):
    """Does not answer until it is freed."""

    def __init__(self) -> None:
        super().__init__(free(0))
        self._limit_s = 0.05
        self.freed = threading.Event()
        self._started = threading.Semaphore(0)

    def read_now(self, pids: Collection[int]) -> Reading:
        self._started.release()
        self.freed.wait()
        return super().read_now(pids)

    async def started(self) -> None:
        """A question has come to the device."""
        await asyncio.to_thread(self._started.acquire)


async def refused(question: Callable[[], object]) -> float:
    """Seconds until the meter gave up."""
    began = time.monotonic()
    with pytest.raises(DeviceUnreadable, match=r"not said for 0\.05 s"):
        await question()  # type: ignore[misc]
    return time.monotonic() - began


async def test_a_device_that_hangs_is_given_up_and_not_asked_again_until_it_answers() -> None:
    meter = Hanging()
    assert await refused(meter.read) >= 0.05
    assert await refused(meter.read) < 0.05
    assert await refused(lambda: meter.measure_worker(1)) < 0.05
    assert await refused(lambda: meter.survey(0)) < 0.05
    (asking,) = (thread for thread in threading.enumerate() if thread.name == "meter cuda:0")
    meter.freed.set()
    await asyncio.to_thread(asking.join)
    assert await meter.read() == free(0)


async def test_who_is_cancelled_while_a_device_is_slow_does_not_spoil_it_for_the_next() -> None:
    meter = Hanging()
    meter._limit_s = 30.0
    async with asyncio.TaskGroup() as tasks:
        impatient = tasks.create_task(meter.read())
        await meter.started()
        patient = tasks.create_task(meter.read())
        impatient.cancel()
        await meter.started()
        meter.freed.set()
    assert patient.result() == free(0)


async def test_those_who_ask_for_status_at_the_same_time_share_one_look() -> None:
    meter = Scripted(free(0))
    surveys = await asyncio.gather(*(meter.survey(MIB) for _ in range(5)))
    assert meter.asked == 1
    assert {survey.ours_bytes for survey in surveys} == {MIB}
    assert {survey.others_bytes for survey in surveys} == {2 * GIB - MIB}


# --- the host ---------------------------------------------------------------------------------------------------------

BLOCK = 80 * MIB

TENANT = f"""
import mmap, sys
size = {BLOCK}
blocks = []
for line in sys.stdin:
    if line == "take\\n":
        blocks.append(mmap.mmap(-1, size))
        blocks[-1][:: mmap.PAGESIZE] = bytes(size // mmap.PAGESIZE)
    elif line == "give\\n":
        blocks.pop().close()
    print("done", flush=True)
"""


class Tenant:
    """A process that takes and gives blocks of memory."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def does(self, *words: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for word in words:
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()
            assert self._process.stdout.readline() == "done\n"

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def running(code: str = TENANT) -> Iterator[Tenant]:
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Tenant(process)
        process.kill()


async def test_the_host_has_memory_and_processes_hold_their_share_of_it() -> None:
    meter = HostMeter()
    with running() as tenant:
        tenant.does("rest")
        before = await meter.read([tenant.pid])
        tenant.does("take")
        after = await meter.read([tenant.pid, 2**22 + 1])  # the second is larger than any process id
    assert before.processes is not None
    assert after.processes is not None
    # What is shared counts by the number of those who share it, which is not for this test to say.
    assert abs(after.processes[tenant.pid] - before.processes[tenant.pid] - BLOCK) < 2 * MIB
    assert list(after.processes) == [tenant.pid]
    assert 0 < after.free_bytes < after.total_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert taken_bytes(before, after, [tenant.pid]) == after.processes[tenant.pid]


async def test_the_memory_of_an_ended_process_is_back_and_that_of_one_that_lives_on_is_not() -> None:
    meter = HostMeter()
    with running() as tenant, running() as other:
        tenant.does("take")
        before = await meter.read([tenant.pid])
        left_bytes = await reclaimed(meter, before, [tenant.pid], BLOCK, 0.02)
        assert BLOCK < left_bytes < 2 * BLOCK
        tenant.end()
        other.does("take")
        assert await reclaimed(meter, before, [tenant.pid], BLOCK, 10.0) == 0


async def test_memory_is_back_when_a_process_is_dead_before_anyone_has_reaped_it() -> None:
    meter = HostMeter()
    with running() as tenant:
        tenant.does("take")
        before = await meter.read([tenant.pid])
        os.kill(tenant.pid, signal.SIGKILL)
        assert await reclaimed(meter, before, [tenant.pid], BLOCK, 10.0) == 0


async def test_a_peak_is_remembered_until_it_is_reset() -> None:
    meter = HostMeter()
    with running() as tenant:
        tenant.does("take", "take", "give", "give", "take")
        use = await meter.measure_worker(tenant.pid)
        assert use is not None
        assert BLOCK < use.resting_bytes < 2 * BLOCK
        assert abs(use.peak_bytes - use.resting_bytes - BLOCK) < 2 * MIB
        await meter.reset_peak(tenant.pid)
        calm = await meter.measure_worker(tenant.pid)
        assert calm is not None
        assert calm.peak_bytes - calm.resting_bytes < 2 * MIB


async def test_a_process_that_is_gone_has_no_use_to_measure_and_no_peak_to_reset() -> None:
    meter = HostMeter()
    with running() as tenant:
        os.kill(tenant.pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitid, os.P_PID, tenant.pid, os.WEXITED | os.WNOWAIT)
        assert await meter.measure_worker(tenant.pid) is None, "a zombie holds nothing"
        await meter.reset_peak(tenant.pid)
        tenant.end()
        assert await meter.measure_worker(tenant.pid) is None
        await meter.reset_peak(tenant.pid)


PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {TENANT!r}], stdin=subprocess.PIPE, stdout=sys.stdout)
for line in sys.stdin.buffer:
    child.stdin.write(line)
    child.stdin.flush()
"""


async def test_what_our_children_and_theirs_hold_is_ours_and_not_others() -> None:
    with running(PARENT) as parent:
        parent.does("rest")
        before = await HostMeter().survey(0)
        parent.does("take")
        after = await HostMeter().survey(0)
    assert abs(after.ours_bytes - before.ours_bytes - BLOCK) < 4 * MIB
    assert after.others_bytes + after.ours_bytes + after.free_bytes == after.total_bytes
