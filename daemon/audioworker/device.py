"""A worker's device: opening it, and bringing weights there fast and off it again. Knows no model.

torch is imported where it is used: this module is there without it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_COPY_BYTES = 32 * 2**20
"""Of each of two pinned buffers: pinned memory is the host's dearest."""


def prepare_torch() -> None:
    """Import the libraries in a way that leaves no thread behind, as a zygote must."""
    import torch

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()  # its bars come with a thread


def open_device(name: str, threads: int, memory_bytes: int = 0) -> torch.device:
    """Called in the worker: the first to touch a GPU. `memory_bytes`, if not 0, is the most that torch may allocate."""
    import torch

    torch.set_num_threads(threads)
    device = torch.device(name)
    if device.type == "cpu":
        return device
    # Parts come and go, of different sizes: without this what is free is soon in pieces that fit none of them.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.cuda.set_device(device)
    if memory_bytes:
        total_bytes = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, memory_bytes / total_bytes), device)
    return device


class Copier:
    """Brings tensors to a device through two pinned buffers that take turns.

    The bus is never waited for by a copy out of pageable memory, and pinned memory does not grow with the model. On the
    CPU a copy is a copy.
    """

    def __init__(self, device: torch.device) -> None:
        import torch

        self.device = device
        self._turn = 0
        if device.type != "cpu":
            self._stream = torch.cuda.Stream(device)
            self._buffers = [torch.empty(_COPY_BYTES, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
            self._free = [torch.cuda.Event() for _ in range(2)]

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same values on the device; work that is queued there later finds them whole."""
        import torch

        if self.device.type == "cpu":
            return tensor.clone()
        if not tensor.dim():
            return tensor.to(self.device)
        source = tensor.contiguous().reshape(-1).view(torch.uint8)
        copied = torch.empty(source.numel(), dtype=torch.uint8, device=self.device)
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        for begin in range(0, source.numel(), _COPY_BYTES):
            part = source[begin : begin + _COPY_BYTES]
            buffer, free = self._buffers[self._turn][: part.numel()], self._free[self._turn]
            self._turn = 1 - self._turn
            free.synchronize()
            buffer.copy_(part)
            with torch.cuda.stream(self._stream):
                copied[begin : begin + part.numel()].copy_(buffer, non_blocking=True)
                free.record(self._stream)
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        return copied.view(tensor.dtype).reshape(tensor.shape)


@dataclass
class Slot:
    """Where a module keeps one tensor: its dictionary of parameters or of buffers, and the name there."""

    tensors: dict[str, Any]
    name: str
    host: torch.Tensor
    is_buffer: bool


def slots(*modules: Any) -> Iterator[Slot]:
    """All tensors of the modules, tied ones as often as they are named."""
    for top in modules:
        for module in top.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        yield Slot(tensors, name, tensor, tensors is module._buffers)


def fill(
    places: list[Slot], copier: Copier, convert: Callable[[Slot, torch.Tensor], torch.Tensor] = lambda _, new: new
) -> None:
    """Put a copy on the device in place of each tensor. Tied ones are one tensor, and stay one."""
    import torch

    moved: dict[int, torch.Tensor] = {}
    for slot in places:
        if id(slot.host) not in moved:
            copied = convert(slot, copier.copy(slot.host.detach()))
            parameter = isinstance(slot.host, torch.nn.Parameter)
            moved[id(slot.host)] = torch.nn.Parameter(copied, requires_grad=False) if parameter else copied
        slot.tensors[slot.name] = moved[id(slot.host)]


@dataclass
class Part:
    """Modules that come to the device and leave it together."""

    name: str
    slots: list[Slot]
    size_bytes: int = field(init=False)
    resident: bool = False

    def __post_init__(self) -> None:
        distinct = {id(slot.host): slot.host for slot in self.slots}
        self.size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in distinct.values())


class Staging:
    """Which parts of a model are on the device. A part that is not there comes when it is needed.

    Before that others leave, those first that have not been needed for longest, as long as all that stay have more than
    `room_bytes`. Leaving costs nothing, because what the host has never changes. With `room_bytes` None on the CPU
    nothing is ever copied. Not for several threads at once.
    """

    def __init__(self, copier: Copier, room_bytes: int | None) -> None:
        self._copier = copier
        self._room_bytes = room_bytes
        self._in_place = copier.device.type == "cpu" and room_bytes is None
        self._parts: dict[str, Part] = {}

    def add(self, name: str, *modules: Any) -> None:
        """A part, of modules that are on the CPU."""
        self._parts[name] = Part(name, list(slots(*modules)))

    @property
    def resident(self) -> list[str]:
        """Names of the parts on the device, that which was needed last at the end."""
        return [name for name, part in self._parts.items() if part.resident]

    @property
    def resident_bytes(self) -> int:
        return sum(part.size_bytes for part in self._parts.values() if part.resident)

    def fill(self) -> None:
        """Have as many parts on the device as have room together; those that were added last come first."""
        for name in reversed(list(self._parts)):
            if self._room_bytes is None or self.resident_bytes + self._parts[name].size_bytes <= self._room_bytes:
                self.need(name)

    def need(self, *names: str) -> int:
        """Have these parts on the device. Returns the bytes that had to come."""
        for name in names:
            self._parts[name] = self._parts.pop(name)  # to the end: needed last
        coming_bytes = sum(self._parts[name].size_bytes for name in names if not self._parts[name].resident)
        for part in self._parts.values():
            if self._room_bytes is None or self.resident_bytes + coming_bytes <= self._room_bytes:
                break
            if part.resident and part.name not in names:
                self._drop(part)
        for name in names:
            part = self._parts[name]
            if not part.resident:
                if not self._in_place:
                    try:
                        fill(part.slots, self._copier)
                    except BaseException:  # there was no room for the whole of it
                        self._drop(part)
                        raise
                part.resident = True
        return 0 if self._in_place else coming_bytes

    def _drop(self, part: Part) -> None:
        for slot in part.slots:
            slot.tensors[slot.name] = slot.host
        part.resident = False


@dataclass
class Took:
    """What a phase took. `peak_bytes` is 0 where nobody counts."""

    seconds: float = 0.0
    peak_bytes: int = 0


@contextmanager
def measured(device: torch.device) -> Iterator[Took]:
    """What is computed inside, the device's queue included."""
    import torch

    took = Took()
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    began = time.monotonic()
    yield took
    if on_gpu:
        torch.cuda.synchronize(device)
        took.peak_bytes = torch.cuda.max_memory_allocated(device)
    took.seconds = time.monotonic() - began
