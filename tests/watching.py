"""Waiting without sleeping: what a daemon tells of itself, what descends from it, and that it is dead."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemons import Daemon


@contextlib.contextmanager
def events_of(daemon: Daemon) -> Iterator[Iterator[dict[str, Any]]]:
    """State events of the daemon from now on, through `audioctl events`; other kinds are left out."""
    with subprocess.Popen(
        [sys.executable, "-m", "audioctl", "--socket", str(daemon.socket), "events", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=daemon.environment(),
    ) as process:
        assert process.stdout is not None
        stream = process.stdout
        assert json.loads(stream.readline())["kind"] == "listening"
        try:
            yield (event for event in map(json.loads, stream) if event["kind"] in ("state", "reload"))
        finally:
            process.terminate()


def happened(daemon: Daemon, events: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """What has happened until now and was not read yet: a reload is put behind it as a mark."""
    assert daemon.ctl("reload").returncode == 0
    seen: list[dict[str, Any]] = []
    for event in events:
        if event["kind"] == "reload":
            return seen
        seen.append(event)
    raise AssertionError("the daemon went away")


def children(pid: int) -> set[int]:
    """All descendants of a process."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found |= {int(child)} | (children(int(child)) if Path(f"/proc/{child}").exists() else set())
    return found


def kill(*pids: int) -> None:
    """Kill them, and wait until they are dead: a process may still read its socket after kill(2) has returned."""
    handles = [os.pidfd_open(pid) for pid in pids]
    for handle in handles:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    for pid, handle in zip(pids, handles, strict=True):
        assert select.select([handle], [], [], 30)[0], f"process {pid} is not dead after 30 s"
        os.close(handle)
