"""What is known of one model's appetite: its memory at rest and at work, and its times. Learnt, and kept over restarts.

Arithmetic on what it is told; where it is kept is footprints.py's matter, what follows from it the scheduler's.
"""

from __future__ import annotations

import math

import msgspec

_NEW = 0.3
"""Weight of the latest measurement in a moving average."""


def _bucket(size: float) -> int:
    """Sizes within a factor of two are alike."""
    return math.ceil(math.log2(size)) if size > 1 else 0


class Footprint(msgspec.Struct):
    """Bytes and seconds of one model on one device. `ready_bytes` and `parked_bytes` begin as its entry's word.

    Sizes are of requests: seconds of audio to transcribe, characters to speak.
    """

    ready_bytes: int
    """What its worker holds on the device when it has loaded."""
    parked_bytes: int
    """What its zygote holds of the host's memory."""
    start_s: float = 0.0
    """From unloaded to parked, the last time; 0 while not known."""
    load_s: float = 0.0
    """From parked to ready, the last time; 0 while not known."""
    service_s: float = 0.0
    """Moving average of how long a lease lasts."""
    unit_s: float = 0.0
    """Moving average of that for one unit of size."""
    peaks: dict[int, int] = msgspec.field(default_factory=dict)
    """Most bytes beyond that which a request took, by size: the key is the power of two that is just not below it."""

    def copy(self) -> Footprint:
        return msgspec.structs.replace(self, peaks=dict(self.peaks))

    def work_bytes(self, size: float) -> int:
        """Bytes beyond `ready_bytes` that a request of `size` will take, as far as is known: what smaller ones took, at
        least."""
        if not self.peaks:
            return 0
        bucket = _bucket(size)
        return max((taken for key, taken in self.peaks.items() if key <= bucket), default=0)

    def work_s(self, size: float) -> float:
        """Seconds that a request of `size` will take; 0 while nothing is known."""
        return size * self.unit_s if size else self.service_s

    def is_new(self, size: float) -> bool:
        """Whether nothing is known of requests of this size."""
        return _bucket(size) not in self.peaks

    def learn_work(self, size: float, taken_bytes: int) -> None:
        bucket = _bucket(size)
        self.peaks[bucket] = max(taken_bytes, self.peaks.get(bucket, 0))

    def learn_service(self, size: float, lasted_s: float) -> None:
        self.service_s = _average(self.service_s, lasted_s)
        if size > 0:
            self.unit_s = _average(self.unit_s, lasted_s / size)


def _average(old: float, new: float) -> float:
    return new if not old else (1 - _NEW) * old + _NEW * new
