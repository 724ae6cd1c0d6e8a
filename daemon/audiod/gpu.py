"""NVML: which NVIDIA GPUs there are, what memory they have, and who holds it. The only file that speaks to the driver.

Never uses CUDA: a context of ours would cost hundreds of megabytes. Everything here but the meter's async side blocks,
and hangs where the driver does.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from audiod.meters import MIB, Meter, Reading
from audiod.supervisor.memory import Use
from audioproto.errors import DeviceUnreadable

_INITIAL_NAMESPACE = "pid:[4026531836]"
"""The pid namespace of the host itself. Source: linux/include/linux/proc_ns.h, PROC_PID_INIT_INO."""

_TRANSLATES_PIDS = 550
"""From this driver on process ids are those of whoever asks, and others are left out; before, the host's.

Source: NVIDIA's open kernel modules, gpuGetProcWithObject in 515.43.04 and in 550.40.07.
"""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, or a slice of one (MIG). `card` counts GPUs by PCI bus; slices of one GPU share it."""

    card: int
    uuid: str
    """What CUDA_VISIBLE_DEVICES may say to mean this one alone."""
    name: str
    capability: str
    driver: str


def gpus() -> list[Gpu]:
    """The GPUs that CUDA would find, as `cuda:0`, `cuda:1`, ...; none where there is no driver.

    Raises DeviceUnreadable where there is one and it does not work.
    """
    import pynvml

    with _typed("NVIDIA's driver does not answer"):
        try:
            nvml = _nvml()
        except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
            return []
        everything = [
            Gpu(
                card,
                nvml.nvmlDeviceGetUUID(device),
                nvml.nvmlDeviceGetName(device),
                ".".join(map(str, nvml.nvmlDeviceGetCudaComputeCapability(whole))),
                nvml.nvmlSystemGetDriverVersion(),
            )
            for card in range(nvml.nvmlDeviceGetCount())
            for whole in [nvml.nvmlDeviceGetHandleByIndex(card)]
            for device in _slices(nvml, whole) or [whole]
        ]
    return visible(everything, os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible(everything: Sequence[Gpu], wanted: str | None) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES lets through, in its order; None is all.

    It has numbers, or beginnings of UUIDs, up to the first that means nothing. A number is a whole GPU, of which CUDA
    takes the first slice. Source: CUDA C++ Programming Guide, Environment Variables.
    """
    if wanted is None:
        return list(everything)
    chosen: list[Gpu] = []
    for word in (word.strip() for word in wanted.split(",")):
        if word.isdecimal():
            matching = [gpu for gpu in everything if gpu.card == int(word)]
        else:
            matching = [gpu for gpu in everything if word and gpu.uuid.startswith(word)]
        if not matching:
            break
        chosen.append(matching[0])
    return chosen


def tells_our_pids(driver: str, namespace: str) -> bool:
    """Whether process ids from the driver mean the same as here; in a container those of an old one do not."""
    major = driver.split(".")[0]
    return namespace == _INITIAL_NAMESPACE or (major.isdecimal() and int(major) >= _TRANSLATES_PIDS)


def figures(*lists: Sequence[tuple[int, int | None]]) -> dict[int, int] | None:
    """Bytes by process from the lists (process id, bytes) of what computes and what draws; None where one lacks bytes.

    A process that does both is in both, each time with all that it holds.
    """
    together: dict[int, int] = {}
    for pid, held_bytes in (pair for pairs in lists for pair in pairs):
        if held_bytes is None:
            return None
        together[pid] = max(held_bytes, together.get(pid, 0))
    return together


class GpuMeter(Meter):
    """`cuda:N`, by NVML. Process figures are None in a container with an old driver, and where we may not see them."""

    def __init__(self, device: str) -> None:
        # NVML counts pages of 2 MiB, and the driver keeps and returns some of its own as contexts come and go; a
        # context that was left behind is ten times as large.
        super().__init__(device, 16 * MIB)
        self._gpu: Gpu | None = None

    def read_now(self, pids: Collection[int]) -> Reading:
        gpu = self._found()
        with _typed(f"{self.device} ({gpu.name}) cannot be measured"):
            nvml = _nvml()
            handle = nvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        return Reading(memory.total, memory.free, _processes(nvml, handle, gpu.driver))

    def use_now(self, pid: int) -> Use | None:
        # A caching allocator keeps what it once had, so that what is held at rest is the peak.
        held: Mapping[int, int] = self.read_now(()).processes or {}
        return Use(held[pid], held[pid]) if pid in held else None

    def reset_now(self, pid: int) -> None:
        """There is no peak to reset."""

    def _found(self) -> Gpu:
        if self._gpu is None:
            there_are = gpus()
            number = int(self.device.partition(":")[2])
            if number >= len(there_are):
                raise DeviceUnreadable(f"{self.device} is not there any more", hint="audioctl doctor")
            self._gpu = there_are[number]
            self.name = self._gpu.name
        return self._gpu


def _slices(nvml: ModuleType, whole: Any) -> list[Any]:
    """The slices that a GPU was cut into, where it was and we may use them."""
    try:
        if nvml.nvmlDeviceGetMigMode(whole)[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return []
        most = nvml.nvmlDeviceGetMaxMigDeviceCount(whole)
    except nvml.NVMLError:  # a GPU, or a driver, that knows no slices
        return []
    handles = []
    for index in range(most):
        try:
            handles.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(whole, index))
        except nvml.NVMLError:  # none of that number
            continue
    return handles


def _processes(nvml: ModuleType, handle: Any, driver: str) -> dict[int, int] | None:
    if not tells_our_pids(driver, str(Path("/proc/self/ns/pid").readlink())):
        return None

    def listed(ask: Callable[[Any], list[Any]]) -> list[tuple[int, int | None]]:
        return [(process.pid, process.usedGpuMemory) for process in ask(handle)]

    # The second is pynvml's own, where the driver is too old for the question.
    refusals = (nvml.NVMLError, nvml.NVMLLibraryMismatchError)
    try:
        lists = [listed(nvml.nvmlDeviceGetComputeRunningProcesses), listed(nvml.nvmlDeviceGetGraphicsRunningProcesses)]
    except refusals:  # not permitted, or not known for this kind of device
        return None
    with suppress(*refusals):
        lists.append(listed(nvml.nvmlDeviceGetMPSComputeRunningProcesses))
    return figures(*lists)


@functools.cache
def _nvml() -> ModuleType:
    """NVML, ready. It stays open: without a client the driver shuts the GPU down, and a load would wait for it.

    Raises pynvml.NVMLError.
    """
    import pynvml  # ctypes and 8000 lines, for hosts that have a use for them

    pynvml.nvmlInit()
    module: ModuleType = pynvml
    return module


@contextmanager
def _typed(what: str) -> Iterator[None]:
    """NVML's errors as ours."""
    import pynvml

    try:
        yield
    except pynvml.NVMLError as error:
        raise DeviceUnreadable(f"{what}: {error}", hint="nvidia-smi") from error
