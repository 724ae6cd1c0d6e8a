"""One line of `audioctl doctor`, and what the daemon and the CLI must judge alike because either may have to.

Data and arithmetic only: who looks, and at what, is control/checks.py's and commands/doctor.py's matter.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

SCARCE_BYTES = 1 << 30
"""Less free space than this is worth a warning: a model's download alone is hundreds of megabytes."""

EXHAUSTED_BYTES = 16 << 20
"""With less than this, engines can no longer write their caches, nor the daemon what it has measured."""

CONTROL_SOCKET_MODE = 0o660
"""Owner and operator group may speak to the daemon, and nobody else."""


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    """Works, but not as well as it could, or not for much longer."""
    FAIL = "fail"
    """Something that was asked for does not work."""


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one check saw. `fix` is the next command to type, empty where there is nothing to mend."""

    check: str
    verdict: Verdict
    found: str
    fix: str = ""


def judge_space(free_bytes: int, free_inodes: int | None) -> Verdict:
    """How a file system is off on which these are free for the user in question; None where it counts no inodes."""
    if free_bytes < EXHAUSTED_BYTES or free_inodes == 0:
        return Verdict.FAIL
    return Verdict.WARN if free_bytes < SCARCE_BYTES else Verdict.OK
