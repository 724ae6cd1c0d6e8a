"""Runs pip as a child process, so that every mirror, proxy and certificate setting of the host's pip is honoured.

Has no opinion on what is installed where; turns pip's output into progress lines and its failures into InstallFailed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from audiod.pace import Pace
from audioproto.errors import InstallFailed

Progress = Callable[[str], None]
"""Takes one line for a person to read; called from whichever thread does the work."""

PAUSE_S = 5.0
"""Least time between two progress lines about the same download."""

_TAIL_LINES = 12
_NOISE = re.compile(r"^(Progress \d|Collecting |Looking in |Processing |WARNING: Location |\s+Using cached |\s*$)")
_DOWNLOADING = re.compile(
    r"^\s*Downloading (?:.*/)?([^/ ]+?)-[^-/ ]+(?:-[^/ ]*\.whl|\.tar\.gz|\.zip)\b.*?\(([\d.]+ [kMG]B)\)"
)
_PERCENT = re.compile(r"^Progress (\d+) of (\d+)$")
_INSTALLING = re.compile(r"^Installing collected packages: (.*)$")

_HINTS = (
    (re.compile(r"No space left|Disk quota exceeded|File too large"), "df -h; make room, then run the same again"),
    (
        re.compile(r"DO NOT MATCH THE HASHES"),
        "the package index served something else than the lock file names; "
        "use another with PIP_INDEX_URL=https://... or `pip config set global.index-url https://...`",
    ),
    (
        re.compile(r"No matching distribution|Could not find a version|not a supported wheel"),
        "the package index has no such file for this Python and machine, or cannot be reached; see `pip config list`, "
        "and name another index with PIP_INDEX_URL=https://...",
    ),
)
_FINAL = re.compile(r"No space left|Disk quota exceeded|File too large")
"""Another index would not help."""
_IMPATIENT = ["--retries=1", "--timeout=15"]
"""For an index that another one comes after."""

_HINT = "see `pip config list`; name a nearer package index with PIP_INDEX_URL=https://..., then run the same again"


def environment() -> dict[str, str]:
    """This process's environment, less what would let pip or Python look outside of the place it works on."""
    # With PYTHONPATH set, pip takes a package that lies there for one that is installed, and leaves it out.
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    # What is cached is not fetched again after an interruption. A service's account has no home, but may have this.
    cache = {"PIP_CACHE_DIR": f"{kept['CACHE_DIRECTORY']}/pip"} if "CACHE_DIRECTORY" in kept else {}
    return (
        cache
        | kept
        | {
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INPUT": "1",
            "PIP_PROGRESS_BAR": "raw",
            "PIP_USER": "0",
            "PYTHONUNBUFFERED": "1",
        }
    )


def run(arguments: Sequence[str], *, doing: str, keep_open: int, scratch: Path, progress: Progress) -> None:
    """Run `python -m pip *arguments` to its end.

    `doing` says in a few words what for, and stands in the error. `keep_open` is the descriptor of the claim under
    which this happens; pip inherits it. What pip downloads is on its way in `scratch`, because /tmp may be memory, and
    torch with CUDA is gigabytes. Raises InstallFailed with pip's last lines and a hint.
    """
    with (
        tempfile.TemporaryDirectory(prefix="pip-", dir=scratch) as temporary,
        subprocess.Popen(
            [sys.executable, "-m", "pip", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment() | {"TMPDIR": temporary},
            pass_fds=(keep_open,),
            encoding="utf-8",
            errors="replace",
        ) as child,
    ):
        assert child.stdout is not None
        reader = _Reader(progress)
        for line in child.stdout:
            reader.read(line.rstrip())
    if child.returncode:
        raise failure(f"pip failed {doing}", child.returncode, reader.tail)


def run_from(
    indexes: Sequence[str],
    arguments: Sequence[str],
    doing: str,
    *,
    keep_open: int,
    scratch: Path,
    progress: Progress,
) -> None:
    """`run`, from the first of the package `indexes` that has everything; an empty one is pip's own setting.

    Says which was taken, where there is a choice. Raises InstallFailed, which names each index and why not it.
    """
    failures: list[str] = []
    for index in indexes:
        shown = without_password(index) if index else "the index that pip is set to"
        more = ["--index-url", index] if index else []
        if index != indexes[-1]:
            more += _IMPATIENT
        try:
            run([*arguments, *more], doing=doing, keep_open=keep_open, scratch=scratch, progress=progress)
        except InstallFailed as error:
            if _FINAL.search(error.message):
                raise
            if len(indexes) == 1:
                raise
            failures.append(f"  {shown}: {error.message}")
            progress(f"not from {shown}: {_reason(error.message)}")
            hint = error.hint
        else:
            if len(indexes) > 1:
                progress(f"packages came from {shown}")
            return
    raise InstallFailed(f"pip failed {doing}, from every index:\n" + "\n".join(failures), hint=hint)


def _reason(message: str) -> str:
    """The line of pip's that says why."""
    lines = [line.strip() for line in message.splitlines()]
    return next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])


def without_password(url: str) -> str:
    """The URL, as it may be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def failure(what: str, status: int, tail: Sequence[str], hint: str = "") -> InstallFailed:
    """The error for a child that ended with `status` after printing `tail`. Finds the hint for what pip prints."""
    end = f"signal {-status}" if status < 0 else f"exit status {status}"
    text = "\n".join(f"  {line}" for line in tail)
    hint = hint or next((known for pattern, known in _HINTS if pattern.search(text)), _HINT)
    return InstallFailed(f"{what} ({end})" + (f":\n{text}" if text else ""), hint=hint)


class _Reader:
    """Picks from pip's output what a person wants to see now, and keeps what explains a failure."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._file = ""
        self._told_at = 0.0
        self._pace = Pace(0)
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def read(self, line: str) -> None:
        if match := _PERCENT.match(line):
            self._percent(int(match[1]), int(match[2]))
        elif match := _DOWNLOADING.match(line):
            self._file = match[1].replace("_", "-")
            self._pace = Pace(0)
            self._told_at = time.monotonic()
            if match[2].endswith(("MB", "GB")):
                self._progress(f"downloading {self._file} ({match[2]})")
        elif match := _INSTALLING.match(line):
            self._progress(f"installing {len(match[1].split(', '))} packages")
        elif not _NOISE.match(line):
            self.tail.append(line)

    def _percent(self, done_bytes: int, total_bytes: int) -> None:
        now = time.monotonic()
        self._pace.total_bytes = total_bytes
        self._pace.reached(done_bytes)
        if total_bytes and self._file and now - self._told_at >= PAUSE_S:
            self._told_at = now
            self._progress(f"downloading {self._file}: {self._pace}")
