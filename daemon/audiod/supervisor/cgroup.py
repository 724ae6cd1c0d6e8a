"""Control groups for models: one for each, below the service's own, where systemd has delegated that to us.

With it a model's memory can be limited, and the end of all its processes is the kernel's word. Without delegation
(no systemd, another init, cgroup v1) there are no groups, and process groups do what they can.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

_ROOT = Path("/sys/fs/cgroup")
_CONTROLLERS = ("memory", "pids", "cpu")

_EVENTS = ("memory.events", "memory.oom_control")
"""Where the kernel counts its kills: in v2, and in v1. Source: Documentation/admin-guide/cgroup-v2.rst, oom_kill."""


class Group:
    """One model's control group. All of it touches a file system that lives in memory and never waits."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, pid: int) -> None:
        """Put a process in, and so all that it will fork."""
        with contextlib.suppress(OSError):  # it has ended: whoever waits for it will say so
            (self._path / "cgroup.procs").write_text(str(pid))

    def kill(self) -> None:
        """SIGKILL for everything in it, whatever process groups it has made for itself. Since Linux 5.14."""
        with contextlib.suppress(OSError):
            (self._path / "cgroup.kill").write_text("1")

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed because memory had run out, here or on the whole host.

        Counted before the signal is sent. 0 where the memory controller was not given to us.
        """
        for name in _EVENTS:
            with contextlib.suppress(OSError):
                lines = (self._path / name).read_text().splitlines()
                return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
        return 0

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._path.rmdir()


class Groups:
    """The control group that was delegated to the service. Made by `adopt`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def adopt(cls) -> Groups | None:
        """Take charge of our own group where it was given to us, moving ourselves into a leaf of it; else None.

        A group that a service user owns was delegated. Root owns all groups, delegated or not, so it gets none.
        Source: systemd, docs/CGROUP_DELEGATION.md.
        """
        try:
            line = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
            path = _ROOT / line.removeprefix("0::").strip().lstrip("/")
            if os.getuid() == 0 or path == _ROOT or path.stat().st_uid != os.getuid():
                return None
            leaf = path / "daemon"
            leaf.mkdir(exist_ok=True)
            (leaf / "cgroup.procs").write_text(str(os.getpid()))
        except (OSError, StopIteration) as error:
            logger.debug("no delegated control group: %s", error)
            return None
        for controller in _CONTROLLERS:
            with contextlib.suppress(OSError):  # not among those the host has, or has given
                (path / "cgroup.subtree_control").write_text(f"+{controller}")
        return cls(path)

    def model(self, name: str, memory_bytes: int) -> Group:
        """The group of a model, with at most `memory_bytes` of host memory; 0 is no limit."""
        path = self._path / f"model-{name}"
        try:
            path.mkdir(exist_ok=True)
        except OSError as error:
            logger.warning("%s gets no control group of its own: %s", name, error)
        limit = path / "memory.max"
        if limit.exists():
            limit.write_text(str(memory_bytes or "max"))
        elif memory_bytes:
            logger.warning("%s cannot be limited to its memory_limit: the memory controller is not delegated", name)
        return Group(path)
