"""What processes and the host hold, and whether processes are gone: read from /proc and the control groups' files.

Measures only; budgets and reservations are residency's. What is not async blocks, for milliseconds: not for the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_POLL_S = 0.002

_KILOBYTES = re.compile(r"^(\w+):\s+(\d+) kB$", re.MULTILINE)

_CGROUPS = Path("/sys/fs/cgroup")


class Use(NamedTuple):
    """What one process holds: at rest, and the most that it held since its peak was last reset."""

    resting_bytes: int
    peak_bytes: int


class Bound(NamedTuple):
    """A control group's memory limit, and how much of it is left."""

    limit_bytes: int
    free_bytes: int


# --- processes ------------------------------------------------------------------------------------------------------


def pss_bytes(pid: int) -> int:
    """The process's proportional share of host memory (PSS), which counts pages shared after a fork once in all.

    0 where the process is gone or may not be looked at. Source: Documentation/filesystems/proc.rst, smaps_rollup.
    """
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


async def proportional_bytes(pid: int) -> int:
    """`pss_bytes`, in a thread."""
    return await asyncio.to_thread(pss_bytes, pid)


def use(pid: int) -> Use | None:
    """What the process holds now, and its peak since `reset_peak`; None where it is gone or may not be looked at.

    The kernel keeps no peak of PSS. It keeps that of the resident set (VmHWM, VmRSS): how far it has gone down since is
    put on top. That counts pages in full which are shared with the zygote, so it is too much rather than too little.
    """
    try:
        status = _kilobytes(Path(f"/proc/{pid}/status"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    resting_bytes = pss_bytes(pid)
    if not resting_bytes or "VmHWM" not in status:  # ended in between, or a zombie
        return None
    return Use(resting_bytes, resting_bytes + max(0, status["VmHWM"] - status["VmRSS"]))


def reset_peak(pid: int) -> None:
    """Let the process's peak begin anew, with what is resident now. Source: proc.rst, clear_refs, since Linux 4.0."""
    with contextlib.suppress(OSError):  # it is gone
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def family(pid: int) -> list[int]:
    """The process and all that descend from it and still have their parents; workers do, by way of their zygotes."""
    found = [pid]
    for member in found:  # which grows meanwhile
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, children.read_text().split())
    return found


def _kilobytes(file: Path) -> dict[str, int]:
    """The lines `Name:  123 kB` of a file in /proc, in bytes."""
    found = _KILOBYTES.findall(file.read_text())
    return {name: int(number) * 1024 for name, number in found}


# --- the host, or the part of it that we may have ---------------------------------------------------------------------


def host_memory_bytes() -> tuple[int, int]:
    """Total and available memory: of the host, or of the narrowest control group that we are in."""
    meminfo = _kilobytes(Path("/proc/meminfo"))
    bounds = list(control_group_bounds())
    total_bytes = min([meminfo["MemTotal"], *(bound.limit_bytes for bound in bounds)])
    free_bytes = min([meminfo["MemAvailable"], *(bound.free_bytes for bound in bounds)])
    return total_bytes, free_bytes


def control_group_limit_bytes() -> int | None:
    """The smallest memory limit of the control groups that we are in; None where the host itself is smaller."""
    total_bytes = _kilobytes(Path("/proc/meminfo"))["MemTotal"]
    return min((bound.limit_bytes for bound in control_group_bounds() if bound.limit_bytes < total_bytes), default=None)


def control_group_bounds(membership: Path = Path("/proc/self/cgroup"), root: Path = _CGROUPS) -> Iterator[Bound]:
    """The limit of every control group on the way up from ours that has one.

    What the kernel can take back at any time counts as free, as in MemAvailable: the cache of files.
    Sources: Documentation/admin-guide/cgroup-v2.rst; admin-guide/cgroup-v1/memory.rst, where the root has no `memory.`
    files of use either, and no limit is shown as the largest number of pages there could be.
    """
    for line in membership.read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        if not controllers:
            top, limit, usage, prefix = root, "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            top, limit, usage, prefix = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        else:
            continue
        group = top / name.lstrip("/")
        for place in (group, *group.parents):
            if not place.is_relative_to(top):
                break
            try:
                text = (place / limit).read_text().strip()
                if not text.isdecimal():  # "max"
                    continue
                used_bytes = int((place / usage).read_text())
                pairs = (row.split() for row in (place / "memory.stat").read_text().splitlines())
                counts = {key: int(value) for key, value in pairs}
            except OSError:  # the root of v2 has no such files, and a container may not see its own group
                continue
            cache_bytes = counts.get(f"{prefix}inactive_file", 0) + counts.get(f"{prefix}active_file", 0)
            yield Bound(int(text), max(0, int(text) - max(0, used_bytes - cache_bytes)))


# --- the end of processes -------------------------------------------------------------------------------------------


def _group_bytes(group: int) -> int:
    total = 0
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            pid = int(directory.name)
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(pid) == group:
                    total += pss_bytes(pid)
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
