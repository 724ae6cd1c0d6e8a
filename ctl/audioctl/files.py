"""Writes result files whole or not at all.

Knows nothing of what is in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from audioproto.errors import AudiodError


def write(path: Path, blocks: Iterable[bytes]) -> int:
    """Write `blocks` to `path` and return the number of bytes; on any error what stood there before still does.

    Made beside the target under another name, then renamed. A target that is no regular file (`/dev/stdout`, a FIFO)
    is written straight: renaming would put a file in the place of the device. Raises AudiodError, and what `blocks`
    raises.
    """
    straight = path.exists() and not path.is_file()
    target = path if straight else path.resolve()  # a symbolic link stays one
    part = path if straight else target.with_name(f".{target.name}.{os.getpid()}.part")
    written = 0
    try:
        with part.open("wb" if straight else "xb") as file:
            for block in blocks:
                written += file.write(block)
        if not straight:
            part.replace(target)
    except BrokenPipeError:
        raise  # __main__ ends quietly on it
    except OSError as error:
        raise AudiodError(f"cannot write {path}: {error.strerror}") from error
    finally:
        if not straight:
            part.unlink(missing_ok=True)
    return written


def make_directory(path: Path) -> None:
    """Make `path` and its parents where they are missing. Raises AudiodError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudiodError(f"cannot make the directory {path}: {error.strerror}") from error
