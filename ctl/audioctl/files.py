"""Writes result files whole or not at all.

Knows nothing of what is in them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from audioproto.errors import AudiodError, BadRequest


def write(path: Path, blocks: Iterable[bytes], *, replace: bool = True) -> int:
    """Write `blocks` to `path` and return the number of bytes; on any error what stood there before still does.

    Made beside the target under another name, then renamed. A target that is no regular file (`/dev/stdout`, a FIFO)
    is written straight: renaming would put a file in the place of the device. Raises BadRequest where there is a file
    that it may not `replace`, AudiodError, and what `blocks` raises.
    """
    straight = path.exists() and not path.is_file()
    target = path if straight else path.resolve()  # a symbolic link stays one
    part = path if straight else target.with_name(f".{target.name}.{os.getpid()}.part")
    written = 0
    try:
        with part.open("wb" if straight else "xb") as file:
            for block in blocks:
                written += file.write(block)
        if not straight and replace:
            part.replace(target)
        elif not straight:
            _put(part, target)
    except BrokenPipeError:
        raise  # __main__ ends quietly on it
    except OSError as error:
        raise AudiodError(f"cannot write {path}: {error.strerror}") from error
    finally:
        if not straight:
            part.unlink(missing_ok=True)
    return written


def _put(part: Path, target: Path) -> None:
    """Rename, but never over a file. Where there are no hard links (FAT, some network shares) by a look beforehand."""
    try:
        target.hardlink_to(part)
    except FileExistsError as error:
        raise _there(target) from error
    except OSError:
        if target.exists():
            raise _there(target) from None
        part.replace(target)


def check_target(target: Path, source: Path, *, replace: bool) -> None:
    """Raises AudiodError where `target` may not be written, so that nobody works in vain."""
    try:
        if target.exists():
            if source.exists() and target.samefile(source):
                raise BadRequest(f"{source} would be replaced by what is made from it", hint="rename it")
            if not replace:
                raise _there(target)
        if target.parent.is_dir() and not os.access(target.parent, os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise AudiodError(f"cannot write {target}: {error.strerror}") from error


def _there(target: Path) -> BadRequest:
    return BadRequest(f"{target} is there already", hint="--overwrite")


def targets(sources: Sequence[Path], directory: str | None, suffix: str) -> list[Path]:
    """A file for each source, named like it but for the suffix, in `directory` or beside it.

    Makes the directory. Raises BadRequest where two would get the same file, AudiodError.
    """
    if directory is not None:
        make_directory(Path(directory))
    owners: dict[Path, Path] = {}
    for source in sources:
        target = (source.parent if directory is None else Path(directory)) / f"{source.stem}.{suffix}"
        if target in owners:
            raise BadRequest(f"{owners[target]} and {source} would both become {target}", hint="rename one of them")
        owners[target] = source
    return list(owners)


def make_directory(path: Path) -> None:
    """Make `path` and its parents where they are missing. Raises AudiodError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudiodError(f"cannot make the directory {path}: {error.strerror}") from error
