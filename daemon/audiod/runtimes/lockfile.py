"""Reads a hashed lock file: its digest, and the remarks that scripts/lock carries over from the .in file.

Does not understand requirements; pip does.

    # imports: faster_whisper opencc     modules whose import proves that the runtime works
    # download: 125MB                    about what pip fetches for it
    # disk: 450MiB                        about what it takes installed
    # torch: cpu cu126                   the builds of torch that it works with; `torch-TAG.txt` has them, this has none
    # only: cpython-311-x86_64           the Pythons that its hashes are for, where they are not for all
    # licence: For private use only.     terms of a library that are not those of open source; one line or several
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

import msgspec

from audiod.units import ByteSize

_REMARK = re.compile(r"^# ([a-z]+): (.+)$", re.MULTILINE)
_LOCAL = re.compile(r"^[A-Za-z0-9][\w.-]*==[^ +;]+\+", re.MULTILINE)
_PINNED = re.compile(r"^[A-Za-z0-9]", re.MULTILINE)


class LockFile(msgspec.Struct, frozen=True):
    path: Path
    digest: str
    """Hex SHA-256 of the file."""
    pinned: int
    """Number of pinned packages, those for other platforms and Pythons included."""
    imports: list[str] = []
    download_bytes: int = 0
    disk_bytes: int = 0
    torch: list[str] = []
    """Tags of the builds of torch that it may be installed with; none where it needs no torch."""
    only: list[str] = []
    """Pythons that it is for, like `cpython-311-x86_64`; none where it is for all."""
    licence: str = ""
    """Terms of a library that are not those of open source, for whoever installs it."""
    local: bool = False
    """Whether it pins a version like `2.13.0+cpu`, which no public index may have."""


def read(locks_dir: Path, name: str) -> LockFile | None:
    """The lock file `<locks_dir>/<name>.txt`, or None where there is none. Costs one stat when read before."""
    path = locks_dir / f"{name}.txt"
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return _parse(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _parse(path: Path, _mtime_ns: int, _size: int) -> LockFile:
    content = path.read_bytes()
    text = content.decode()
    found: list[tuple[str, str]] = _REMARK.findall(text)
    remarks = dict(found)
    return LockFile(
        path=path,
        digest=hashlib.sha256(content).hexdigest(),
        pinned=len(_PINNED.findall(text)),
        imports=remarks.get("imports", "").split(),
        download_bytes=int(ByteSize.parse(remarks.get("download", "0"))),
        disk_bytes=int(ByteSize.parse(remarks.get("disk", "0"))),
        torch=remarks.get("torch", "").split(),
        only=remarks.get("only", "").split(),
        licence=" ".join(remark.strip() for kind, remark in found if kind == "licence"),
        local=bool(_LOCAL.search(text)),
    )
