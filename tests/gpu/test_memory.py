"""The GPU's meter on a real GPU, and processes that hold its memory by CUDA's driver API, as engines do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from audiod import devices, gpu
from audiod.meters import reclaimed, residue, taken_bytes

pytestmark = pytest.mark.gpu

MIB = 2**20
BLOCK = 512 * MIB

TENANT = f"""
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
def call(name, *arguments):
    status = getattr(cuda, name)(*arguments)
    assert status == 0, (name, status)
device, context = ctypes.c_int(), ctypes.c_void_p()
call("cuInit", 0)
call("cuDeviceGet", ctypes.byref(device), 0)
call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
call("cuCtxSetCurrent", context)
print("context", flush=True)
for line in sys.stdin:
    block = ctypes.c_uint64()
    call("cuMemAlloc_v2", ctypes.byref(block), ctypes.c_size_t({BLOCK}))
    call("cuMemsetD8_v2", block, ctypes.c_ubyte(1), ctypes.c_size_t({BLOCK}))
    call("cuCtxSynchronize")
    print("block", flush=True)
"""


class Tenant:
    """A process with a context on the GPU."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        self._wait_for("context")

    def takes(self) -> None:
        """A block more."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._wait_for("block")

    def _wait_for(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{word}\n"

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def tenant(card: gpu.Gpu) -> Iterator[Tenant]:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": card.uuid}
    with subprocess.Popen(
        [sys.executable, "-c", TENANT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Tenant(process)
        process.kill()


def test_auto_is_the_first_gpu(card: gpu.Gpu) -> None:
    assert devices.resolve("auto") == devices.Device("cuda:0", card.uuid)


async def test_what_a_process_takes_is_seen(card: gpu.Gpu) -> None:
    meter = gpu.GpuMeter("cuda:0")
    with tenant(card) as worker:
        before = await meter.read([worker.pid])
        worker.takes()
        after = await meter.read([worker.pid])
        use = await meter.measure_worker(worker.pid)
    assert after.total_bytes == before.total_bytes > after.free_bytes
    if after.processes is None:
        assert abs(taken_bytes(before, after, [worker.pid]) - BLOCK) <= meter.tolerance_bytes
    else:
        assert before.processes is not None
        assert abs(after.processes[worker.pid] - before.processes[worker.pid] - BLOCK) <= meter.tolerance_bytes
        assert use is not None
        assert use.resting_bytes == use.peak_bytes == after.processes[worker.pid]


async def test_all_of_it_is_back_when_the_process_has_ended_though_another_takes_as_much(card: gpu.Gpu) -> None:
    meter = gpu.GpuMeter("cuda:0")
    with tenant(card) as worker, tenant(card) as other:
        worker.takes()
        held = await meter.read([worker.pid])
        if held.processes is None:
            pytest.skip("the driver does not tell who holds what")
        assert residue(held, held, [worker.pid], BLOCK) >= BLOCK
        worker.end()
        other.takes()
        began = time.monotonic()
        assert await reclaimed(meter, held, [worker.pid], held.processes[worker.pid], 10.0) == 0
        print(f"back after {time.monotonic() - began:.3f} s")


async def test_a_reading_takes_milliseconds(card: gpu.Gpu) -> None:
    """It is asked between two models that switch."""
    meter = gpu.GpuMeter("cuda:0")
    await meter.read()
    took_s = []
    for _ in range(20):
        began = time.monotonic()
        await meter.read()
        took_s.append(time.monotonic() - began)
    median_s = sorted(took_s)[10]
    print(f"a reading takes {1000 * median_s:.1f} ms")
    assert median_s < 0.1
