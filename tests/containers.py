"""Containers for tests on machines without a Docker engine: podman and buildah with storage of their own.

Knows nothing of audiod. Everything happens in a private mount namespace, and all of it is gone after `close`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROGRAMS = ("buildah", "crun", "mmdebstrap", "podman", "nsenter", "unshare")

_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{directory}/storage"
runroot = "{directory}/run"
"""

# Control groups, and limits above one's own, are not to be had in every sandbox that tests run in.
_CONTAINERS = """\
[containers]
cgroups = "disabled"
netns = "none"
default_ulimits = ["nofile=1024:20000", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
tmp_dir = "{directory}/libpod"
"""

# podman refuses a machine that has both versions of control groups mounted.
_NAMESPACE = "umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup && echo ready && exec cat"


_PATIENCE_S = 280
"""For one command, of which building the image is the longest; less than pytest waits for a test."""


class EngineFailed(Exception):
    """A program of the engine ended with an error; the text is what it said."""


class Engine:
    """podman and buildah, for one test session. Use as a context manager."""

    def __enter__(self) -> Engine:
        # Not below /tmp, which may be a tmpfs: overlays on that need privileges that tests may not have.
        self.directory = Path(tempfile.mkdtemp(prefix="audiod-containers-", dir="/var/tmp"))
        for name, text in (("storage.conf", _STORAGE), ("containers.conf", _CONTAINERS)):
            (self.directory / name).write_text(text.format(directory=self.directory))
        (self.directory / "tmp").mkdir()
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _NAMESPACE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._holder.stdout is not None
        if (said := self._holder.stdout.readline().strip()) != "ready":
            self._holder.wait(10)
            raise EngineFailed(f"no mount namespace of our own: {said}")
        return self

    def __exit__(self, *_: object) -> None:
        self.podman("rm", "--all", "--force", "--time", "1")
        self._holder.communicate()  # with the last process of the namespace, its mounts go
        shutil.rmtree(self.directory)

    def run(
        self, *command: str, check: bool = True, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of this machine where the engine's mounts are. Raises EngineFailed."""
        own = {
            "CONTAINERS_STORAGE_CONF": str(self.directory / "storage.conf"),
            "CONTAINERS_CONF": str(self.directory / "containers.conf"),
            "BUILDAH_ISOLATION": "chroot",
            "TMPDIR": str(self.directory / "tmp"),
        }
        ended = subprocess.run(
            ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", f"--wdns={Path.cwd()}", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            env={**os.environ, **own, **(environment or {})},
        )
        if check and ended.returncode:
            raise EngineFailed(f"{' '.join(command)}: status {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
        return ended

    def podman(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("podman", "--log-level=fatal", *arguments, check=check)

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        """What `podman KIND inspect` tells about one image or container."""
        found: list[dict[str, Any]] = json.loads(self.podman(kind, "inspect", name).stdout)
        return found[0]


class Container:
    """A container that was started in the background; `options` are podman's, `arguments` the image's."""

    def __init__(self, engine: Engine, image: str, options: Sequence[str], arguments: Sequence[str] = ()) -> None:
        self._engine = engine
        self.id = engine.podman("run", "--detach", *options, image, *arguments).stdout.strip()

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the container."""
        return self._engine.podman("exec", self.id, *command, check=check)

    def python(self, program: str) -> str:
        """Run a program by the image's own Python; returns what it printed."""
        return self.run("python", "-I", "-c", program).stdout

    def is_healthy(self) -> bool:
        """Run the image's health check once. Whoever runs containers for real does so at intervals."""
        return self._engine.podman("healthcheck", "run", self.id, check=False).returncode == 0

    def log(self) -> str:
        """Its last lines."""
        ended = self._engine.podman("logs", "--tail=40", self.id)
        return ended.stdout + ended.stderr

    def stop(self, grace_s: int = 60) -> int:
        """The image's stop signal, and the exit status that it led to; 137 where the container had to be killed."""
        self._engine.podman("stop", "--time", str(grace_s), self.id)
        return self.status()

    def wait(self) -> int:
        """Wait until it ends by itself; its exit status."""
        return int(self._engine.podman("wait", self.id).stdout)

    def status(self) -> int:
        status: int = self._engine.inspect("container", self.id)["State"]["ExitCode"]
        return status

    def restarts(self) -> int:
        """How often it was started again because it had ended by itself."""
        restarts: int = self._engine.inspect("container", self.id)["RestartCount"]
        return restarts

    def remove(self) -> None:
        self._engine.podman("rm", "--force", "--time", "1", self.id)
