"""What processes hold, and whether they are gone: read from /proc, in a thread, because it can take milliseconds.

Measures only; budgets and reservations are residency's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

_POLL_S = 0.002


def _pss_bytes(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


async def proportional_bytes(pid: int) -> int:
    """The process's proportional share of host memory (PSS), which counts pages shared after a fork once in all.

    0 where the process is gone or may not be looked at. Source: Documentation/filesystems/proc.rst, smaps_rollup.
    """
    return await asyncio.to_thread(_pss_bytes, pid)


def _meminfo() -> dict[str, int]:
    pairs = (line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return {name: int(value.split()[0]) * 1024 for name, value in pairs if value.strip().endswith("kB")}


def host_memory_bytes() -> tuple[int, int]:
    """Total and available host memory. Blocks for a moment; not for the event loop."""
    meminfo = _meminfo()
    return meminfo["MemTotal"], meminfo["MemAvailable"]


def _group_bytes(group: int) -> int:
    total = 0
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            pid = int(directory.name)
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(pid) == group:
                    total += _pss_bytes(pid)
    return total


def group_exists(group: int) -> bool:
    """Whether any process of the group is left, zombies included."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


async def group_gone(group: int, timeout_s: float) -> int:
    """Wait until no process of the group is left, and return 0; after `timeout_s`, the bytes that those left hold.

    The kernel has no event for an empty group outside a cgroup, so this polls, briefly.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    while group_exists(group):
        if asyncio.get_running_loop().time() >= deadline:
            return await asyncio.to_thread(_group_bytes, group)
        await asyncio.sleep(_POLL_S)
    return 0
