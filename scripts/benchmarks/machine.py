"""What is read of the machine and its processes, and how figures are put together."""

from __future__ import annotations

import contextlib
import os
import statistics
from pathlib import Path
from typing import Any

Figures = dict[str, Any]


def field_bytes(file: str, name: str) -> int:
    """A `Name:   123 kB` line of a file in /proc; 0 where the process has gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(file).read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return 0


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def pss_bytes(pids: list[int]) -> int:
    return sum(field_bytes(f"/proc/{pid}/smaps_rollup", "Pss") for pid in pids)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def switches(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def spread(values: list[float], digits: int = 4) -> Figures:
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {
        "n": len(values),
        "min": round(ordered[0], digits),
        "p50": round(statistics.median(ordered), digits),
        "p95": round(p95, digits),
    }
