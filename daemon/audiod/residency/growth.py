"""Whether a model holds ever more memory at rest: a leak, told from the first requests' settling.

Arithmetic on what it is told; what is done about it is the scheduler's matter.
"""

from __future__ import annotations

from dataclasses import dataclass

_SETTLING_REQUESTS = 3
"""After a load the first requests fill caches and pools; that is no growth."""

_WATCHED_REQUESTS = 20
"""Fewer requests since then show nothing: a longer one than before takes more, once."""

_RATIO = 1.25
_SLACK_BYTES = 64 * 2**20
"""Growth is more than a quarter and more than what allocators keep back at will."""

_MIB = 2**20


@dataclass(slots=True)
class Growth:
    """One worker's, from its load on."""

    rest_bytes: int = 0
    """What it held at rest when it had settled; 0 while it has not."""
    requests: int = 0
    """Since the load, or since growth was last told."""
    outgrown: bool = False
    story: str = ""

    def count(self) -> None:
        """A request has ended."""
        self.requests += 1

    def measure(self, resting_bytes: int) -> str:
        """Take in what is held at rest now. Growth in words that follow the model's name, the first time it is seen;
        then again when as much has come on top."""
        if not self.rest_bytes or self.requests <= _SETTLING_REQUESTS:
            self.rest_bytes = max(self.rest_bytes, resting_bytes)
            return ""
        if self.requests < _WATCHED_REQUESTS or resting_bytes <= self.rest_bytes * _RATIO + _SLACK_BYTES:
            return ""
        sizes = f"from {self.rest_bytes / _MIB:.0f} to {resting_bytes / _MIB:.0f} MiB"
        self.story = f"grew {sizes} at rest in {self.requests} requests"
        self.outgrown = True
        self.rest_bytes = resting_bytes
        self.requests = _SETTLING_REQUESTS + 1
        return self.story
