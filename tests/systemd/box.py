"""A throw-away Debian with a real systemd as its PID 1: systemd-nspawn over a copy-on-write view of a cached tree.

Knows nothing of audiod. Outside of its directory and its own mount namespace it touches one control group, which goes
when the box does. It has no network but its own loopback.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TOOLS = ("systemd-nspawn", "mmdebstrap", "unshare", "nsenter", "setpriv", "tar")
"""What must be on PATH. `scripts/setup-system boot` installs what Debian does not always have."""

_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "libnss-systemd"),
    *("python3", "libstdc++6", "ca-certificates", "curl", "procps", "iproute2"),
)
"""Those of a small server, and what the package under test depends on: it is installed without a network."""

_CLONE_NEWNET = 0x40000000
_SIGRTMIN_POWEROFF = signal.SIGRTMIN + 4
"""Asks a systemd that is PID 1 to power off: systemd(1), Signals."""

_BOOT_LIMIT_S = 120.0
_STOP_LIMIT_S = 90.0

_HOLDER = """\
set -eu
tree=$1 directory=$2 name=$3
shift 3
# nspawn gives the box what it finds here: unified control groups only, whatever the host has.
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
own=/sys/fs/cgroup/$name
mkdir -p "$own" /run/systemd/nspawn
mount -t tmpfs -o mode=755 tmpfs /run/systemd/nspawn
mount -t overlay -o "lowerdir=$tree,upperdir=$directory/upper,workdir=$directory/work" overlay \
    "$directory/root"
sh -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' "$own" systemd-nspawn --directory="$directory/root" "$@" &
nspawn=$!
# Killing nspawn would leave the box running.
trap 'echo 1 >"$own/cgroup.kill"' TERM
status=0
wait $nspawn || status=$?
trap '' TERM
wait $nspawn || :
tries=50
while ! find "$own" -depth -type d -exec rmdir {} + 2>/dev/null && [ $((tries -= 1)) -gt 0 ]; do sleep 0.1; done
exit $status
"""
"""Runs in a mount namespace of its own, which holds the box's mounts and vanishes with it."""


class BoxError(Exception):
    """The box did not do what was asked; the message has its last words."""


def why_not() -> str:
    """Why there can be no box here, in a few words; empty when there can."""
    if os.geteuid() != 0:
        return "booting a systemd needs root"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"{', '.join(missing)} missing: run scripts/setup-system boot"
    return "" if _release()["ID"] == "debian" else "the package is built for the Debian it is built on; this is none"


def cached_tree(cache: Path) -> Path:
    """A tar of this Debian's release with systemd, from this machine's own package sources; made once, in a minute."""
    codename = _release()["VERSION_CODENAME"]
    tar = cache / f"tree-{codename}-{hashlib.sha256(' '.join(_PACKAGES).encode()).hexdigest()[:8]}.tar"
    if not tar.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = tar.with_name(f".{os.getpid()}-{tar.name}")
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(_PACKAGES)}"]
        try:
            subprocess.run([*command, codename, str(partial), *_package_sources()], check=True)
            partial.rename(tar)
        finally:
            partial.unlink(missing_ok=True)
    return tar


def unpack_tree(tar: Path, directory: Path) -> None:
    """Make the root file system that boxes begin with; they share it and leave it as it is."""
    directory.mkdir()
    subprocess.run(["tar", "--extract", f"--directory={directory}", f"--file={tar}"], check=True)
    (directory / "etc/machine-id").write_text("")
    (directory / "etc/hostname").write_text("box\n")
    # Power does not fail here, and waiting for the disk takes longer than installing.
    (directory / "etc/dpkg/dpkg.cfg.d/tests").write_text("force-unsafe-io\n")


def _package_sources() -> Sequence[str]:
    """This machine's own lines of Debian, so that its mirror is used. None: mmdebstrap's default."""
    asked = ["apt-get", "indextargets", "--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"]
    answer = subprocess.run([*asked, "Created-By: Packages", "Origin: Debian"], capture_output=True, text=True)
    return sorted(set(answer.stdout.splitlines()))


def _release() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text().splitlines()
    return {"ID": ""} | {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}


class Box:
    """One machine over an unpacked tree, which stays as it is: what is written goes to `directory`.

    That is on a real disk, and its path is short: a Unix socket's has 108 bytes at most.
    """

    def __init__(self, name: str, tree: Path, directory: Path, binds: Mapping[Path, str] | None = None) -> None:
        """`binds` are directories of the host, read-only in the box, by where they are there."""
        self.name = f"box-{name}-{os.getpid()}"
        self.directory = directory
        self._tree = tree
        self._binds = dict(binds or {})
        self._holder: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self.upper = directory / "upper"
        """What the box has beside the tree: what it wrote, and what is put there while it is switched off."""
        for part in ("upper", "work", "root"):
            (directory / part).mkdir(parents=True)

    # --- power --------------------------------------------------------------------------------------------------

    def boot(self) -> float:
        """Switch it on; returns the seconds until its systemd said that it is up. Raises BoxError."""
        started = time.monotonic()
        path = self.directory / "notify"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, (self.directory / "console").open("wb") as log:
            notify.bind(str(path))
            notify.settimeout(0.5)
            self._holder = subprocess.Popen(
                # Whatever happens to the tests, no box outlives them.
                [
                    *("setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "--propagation", "private"),
                    *("sh", "-c", _HOLDER, "holder", str(self._tree), str(self.directory), self.name, *self._options()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"NOTIFY_SOCKET": str(path)},
            )
            while time.monotonic() - started < _BOOT_LIMIT_S and self._holder.poll() is None:
                try:
                    told = notify.recv(65536).decode().splitlines()
                except TimeoutError:
                    continue
                for line in told:
                    if line.startswith("X_NSPAWN_LEADER_PID="):
                        self._leader = int(line.partition("=")[2])
                if "READY=1" in told:
                    return time.monotonic() - started
        console = (self.directory / "console").read_text(errors="replace")
        self.kill()
        raise BoxError(f"the box did not come up:\n{console[-4000:]}")

    def _options(self) -> list[str]:
        binds = [f"--bind-ro={host}:{inside}" for host, inside in self._binds.items()]
        return [
            *("--boot", "--quiet", f"--machine={self.name}", "--console=read-only", "--notify-ready=yes"),
            # There is no machined to ask, and perhaps no systemd that could start a scope.
            *("--keep-unit", "--register=no"),
            # Without these, systemd accepts DevicePolicy= and IPAddressDeny= and enforces neither.
            *("--capability=all", "--system-call-filter=bpf"),
            *("--private-network", "--resolv-conf=off", "--timezone=off", "--link-journal=no"),
            *binds,
        ]

    def shut_down(self) -> float:
        """Switch it off as an operator would; returns the seconds that took. What it wrote is kept."""
        assert self._holder is not None
        started = time.monotonic()
        os.kill(self._leader, _SIGRTMIN_POWEROFF)
        self._holder.wait(_STOP_LIMIT_S)
        self._holder = None
        return time.monotonic() - started

    def kill(self) -> None:
        """Pull the plug."""
        if self._holder is not None:
            self._holder.terminate()
            self._holder.wait(_STOP_LIMIT_S)
            self._holder = None

    # --- inside -------------------------------------------------------------------------------------------------

    def path(self, inside: str) -> Path:
        """A path in the running box, as the host reaches it."""
        return Path(f"/proc/{self._leader}/root") / inside.lstrip("/")

    def argv(self, *command: str) -> list[str]:
        """The host's command line that runs `command` as root in the box, in a clean environment."""
        paths = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        inside = ["nsenter", "--target", str(self._leader), "--all", "--wdns=/"]
        settings = ["LANG=C.UTF-8", "HOME=/root", "TERM=dumb", "DEBIAN_FRONTEND=noninteractive"]
        return [*inside, "env", "-i", paths, *settings, *command]

    def run(
        self, *command: str, check: bool = True, given: str = "", timeout_s: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the box with `given` on its standard input. Raises BoxError where `check` and it fails."""
        done = subprocess.run(self.argv(*command), input=given, capture_output=True, text=True, timeout=timeout_s)
        if check and done.returncode:
            raise BoxError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def shell(self, script: str, *, check: bool = True, timeout_s: float = 120.0) -> str:
        """What a shell script prints in the box."""
        return self.run("sh", "-ec", script, check=check, timeout_s=timeout_s).stdout

    def show(self, unit: str, field: str) -> str:
        """A property of a unit, such as ActiveState."""
        return self.run("systemctl", "show", "--value", f"--property={field}", unit).stdout.strip()

    def journal(self, *options: str) -> list[dict[str, Any]]:
        """Entries of the journal, oldest first, every boot's; `options` choose, such as --unit=NAME."""
        lines = self.run("journalctl", "--output=json", "--all", "--merge", *options).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def enter_network(self) -> None:
        """Move the calling thread into the box's network: the sockets that it opens from now on are the box's."""
        with Path(f"/proc/{self._leader}/ns/net").open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot enter the box's network")
