"""Fetches files of a repository from a model hub or one of its mirrors, and goes on where an attempt ended.

Speaks to Hugging Face's hub (and whatever copies its paths) and to ModelScope. Does not decide where files go in the
end; models/sources.py does. Blocks on the network, for as long as a few gigabytes take.

    <scratch>/whole/<path>       files that are all there, and the right ones
    <scratch>/<hash of path>     one that is on its way; an attempt from another mirror goes on with it
"""

from __future__ import annotations

import email.utils
import errno
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from audiod import durable
from audiod.models import safetensors
from audiod.models.catalogue import HubSource, ModelScopeSource
from audiod.pace import WINDOW_S, Pace
from audiod.runtimes.pip import PAUSE_S, Progress, without_password
from audiod.units import ByteSize
from audioproto.errors import InstallFailed

BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 30.0
"""Silence on the connection after which it counts as broken."""
_PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Waits before the next attempts, begun anew whenever one brought bytes; also where we ask too often (429)."""
_UNREACHED_PAUSES_S = (1.0,)
"""The same while no byte came at all: the hub is probably blocked, and the next one need not wait for that."""
_LONGEST_PAUSE_S = 90.0
"""A hub that asks for more patience (Retry-After) has refused."""
SLOW_BYTES_S = 64 * 1024
"""One that gives less over a whole window is left for later: a gigabyte would take five hours."""

_TOKEN = "HF_TOKEN"  # noqa: S105 - the variable's name
"""For repositories that are private or whose terms must be accepted; `mirrors.hub` get it, as the operator named them.
Source: huggingface_hub, environment variables."""


class Remote(msgspec.Struct, frozen=True):
    """What a hub says of a file. Hashes are hex, empty where it says none; `blob` is git's."""

    size_bytes: int
    sha256: str = ""
    blob: str = ""


class _Refused(InstallFailed):
    """This mirror will not give it, however often it is asked."""


class _Slow(InstallFailed):
    """It gives it too slowly, and there are others to ask before."""


def fetch(
    source: HubSource | ModelScopeSource, mirrors: Sequence[str], scratch: Path, progress: Progress
) -> dict[str, Path]:
    """Where each file of `source` lies, below `scratch`: all are whole and the right ones.

    Tries the base URLs `mirrors` in order, and then once more those that were only slow; what one has brought the next
    goes on with. Raises InstallFailed, which names each of them and why not it.
    """
    scope = isinstance(source, ModelScopeSource)
    if not mirrors:
        key = "mirrors.modelscope" if scope else "mirrors.hub"
        raise InstallFailed("no model hub is configured", hint=f"set {key} in audiod.toml")
    failures: dict[str, InstallFailed] = {}
    left = list(dict.fromkeys(mirrors))
    while left:
        base = left.pop(0)
        shown = without_password(base)
        try:
            # Whoever was too slow once is taken as it is: all others have failed.
            hub = _Hub(base.rstrip("/"), source, patient=not left or base in failures, progress=progress)
            whole = hub.fetch(scratch)
        except InstallFailed as error:
            if isinstance(error, _Slow):
                left.append(base)
            failures[base] = error
            progress(f"not from {shown}: {error.message.splitlines()[0]}")
        else:
            if len(mirrors) > 1:
                progress(f"files came from {shown}")
            return whole
    if len(failures) == 1:
        raise failures[base]
    reasons = "\n".join(f"  {without_password(base)}: {error.message}" for base, error in failures.items())
    hint = next((error.hint for error in failures.values() if error.hint), "")
    raise InstallFailed(f"no mirror of the hub gave {source.repo}:\n{reasons}", hint=hint)


def url(base: str, source: HubSource | ModelScopeSource, path: str) -> str:
    """Where a hub has the file that goes to `path`."""
    kind = "/models" if isinstance(source, ModelScopeSource) else ""
    return f"{base.rstrip('/')}{kind}/{source.repo}/resolve/{quote(source.revision)}/{quote(source.origin(path))}"


class _Hub:
    """One base URL, and what is wanted of it."""

    def __init__(self, base: str, source: HubSource | ModelScopeSource, *, patient: bool, progress: Progress) -> None:
        if not base.startswith(("https://", "http://")):
            raise InstallFailed(f"{without_password(base)} is no web address", hint="set mirrors.hub in audiod.toml")
        self._base = base
        self._source = source
        self._patient = patient
        self._progress = progress
        self._scope = isinstance(source, ModelScopeSource)

    def fetch(self, scratch: Path) -> dict[str, Path]:
        listed = self._listing()
        whole = {path: scratch / "whole" / path for path in self._source.files}
        partial = {path: scratch / hashlib.sha256(path.encode()).hexdigest() for path in self._source.files}
        wanted = {path: self._wanted(path, listed) for path in self._source.files}
        total_bytes = sum(remote.size_bytes for remote in wanted.values())
        here_bytes = sum(_size(whole[path]) or _size(partial[path]) for path in wanted)
        durable.require_space(scratch, max(0, total_bytes - here_bytes), self._source.label)
        pace = Pace(total_bytes, here_bytes)
        for number, (path, remote) in enumerate(wanted.items(), 1):
            if _size(whole[path]) and (not remote.size_bytes or _size(whole[path]) == remote.size_bytes):
                continue
            size = f", {ByteSize(remote.size_bytes)}" if remote.size_bytes else ""
            self._progress(f"downloading {path} ({number} of {len(wanted)}{size})")
            self._bring(path, partial[path], remote, pace)
            whole[path].parent.mkdir(parents=True, exist_ok=True)
            partial[path].rename(whole[path])
        return whole

    def _bring(self, path: str, partial: Path, remote: Remote, pace: Pace) -> None:
        """Bring `partial` up to the whole of the file, and see that it is the right one."""
        address = url(self._base, self._source, path)
        while True:
            begun_bytes = _size(partial)
            self._download(address, partial, remote, pace)
            try:
                _verify(partial, path, remote, self._source.files[path], without_password(address))
                return
            except InstallFailed as error:
                # These bytes are no start for another attempt.
                pace.reached(pace.done_bytes - _size(partial))
                partial.unlink()
                if not begun_bytes:
                    raise
                # What was there before may have been wrong, and what this hub has added right.
                self._progress(f"from the beginning: {error.message}")

    def _wanted(self, path: str, listed: Mapping[str, Remote] | None) -> Remote:
        pinned, origin = self._source.files[path], self._source.origin(path)
        if listed is None:
            if not pinned:
                raise _Refused(
                    f"it does not list {self._source.repo}, so that {origin} could not be verified",
                    hint="name another as mirrors.hub in audiod.toml",
                )
            return Remote(0)
        if origin not in listed:
            raise _Refused(f"{self._source.repo} has no {origin} at {self._source.revision}")
        remote = listed[origin]
        if pinned and remote.sha256 and remote.sha256 != pinned:
            raise _Refused(
                f"{origin} is not the file that is pinned: its SHA-256 there is {remote.sha256}, not {pinned}",
                hint="the mirror has something else; name another, then run the same again",
            )
        return remote

    def _listing(self) -> dict[str, Remote] | None:
        """Sizes and hashes of all files at that revision; None from a mirror that only copies files."""
        repo, revision = self._source.repo, self._source.revision
        if self._scope:
            query = urlencode({"Revision": revision, "Recursive": "True"})
            url = f"{self._base}/api/v1/models/{repo}/repo/files?{query}"
        else:
            url = f"{self._base}/api/models/{repo}/revision/{quote(revision)}?blobs=true"
        pauses, patience = iter(_UNREACHED_PAUSES_S), iter(_PAUSES_S)
        while True:
            try:
                with urllib.request.urlopen(self._request(url), timeout=_TIMEOUT_S) as answer:  # noqa: S310  checked
                    body = answer.read(64 << 20)
                return _scope_listing(body) if self._scope else self._hub_listing(body)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code in (404, 405, 501):
                    return None
                pause_s = self._pause_s(url, error, next(patience if error.code == 429 else pauses, None))
            except (OSError, http.client.HTTPException) as error:
                pause_s = self._next_pause(url, error, next(pauses, None))
            except (msgspec.DecodeError, KeyError, TypeError, AttributeError, RecursionError):
                return None
            time.sleep(pause_s)

    def _download(self, url: str, partial: Path, remote: Remote, pace: Pace) -> None:
        """Bring `partial` up to the whole of `url`, going on from where it ends."""
        pauses, patience = iter(_UNREACHED_PAUSES_S), iter(_PAUSES_S)
        if remote.size_bytes and _size(partial) > remote.size_bytes:
            pace.reached(pace.done_bytes - _size(partial))
            partial.unlink()
        while not (remote.size_bytes and _size(partial) == remote.size_bytes):
            before = _size(partial)
            try:
                self._download_rest(url, partial, before, remote, pace)
                return
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 416 and before:  # it ends where our bytes end: they are all there
                    return
                pause_s = self._pause_s(url, error, next(patience if error.code == 429 else pauses, None))
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, OSError) and error.errno in _DISK:
                    raise
                if _size(partial) > before:
                    pauses = iter(_PAUSES_S)
                pause_s = self._next_pause(url, error, next(pauses, None))
            time.sleep(pause_s)

    def _pause_s(self, url: str, error: urllib.error.HTTPError, pause_s: float | None) -> float:
        """How long to wait after that answer. Raises InstallFailed where waiting is in vain."""
        if error.code in (401, 403):
            said = f"{without_password(url)}: HTTP {error.code}: not there, private, or its terms were not accepted"
            hint = f"accept its terms on the hub, and set {_TOKEN} to a token of your account"
            raise _Refused(said, hint="" if self._scope else hint)
        if error.code == 404:
            said = f"{without_password(url)}: HTTP 404: there is no such repository, revision or file"
            raise _Refused(said, hint="see `repo`, `revision` and `files` in the model's file in models.d")
        if error.code < 500 and error.code != 429:
            raise _Refused(f"{without_password(url)}: HTTP {error.code}")
        asked_s = _asked_s(error.headers.get("Retry-After", ""))
        if asked_s is not None and pause_s is not None:
            if asked_s > _LONGEST_PAUSE_S:
                raise _Refused(f"{without_password(url)}: HTTP {error.code}, try again in {asked_s:.0f} s")
            self._progress(f"the hub asks for a pause of {asked_s:.0f} s (HTTP {error.code})")
            return asked_s
        return self._next_pause(url, error, pause_s)

    def _next_pause(self, url: str, error: Exception, pause_s: float | None) -> float:
        if pause_s is None:
            reason = getattr(error, "reason", None) or error
            said = f"HTTP {error.code}" if isinstance(error, urllib.error.HTTPError) else str(reason)
            key = "mirrors.modelscope" if self._scope else "mirrors.hub"
            raise InstallFailed(
                f"{without_password(url)}: {said}", hint=f"name a mirror as {key} in audiod.toml"
            ) from error
        return pause_s

    def _download_rest(self, url: str, partial: Path, start: int, remote: Remote, pace: Pace) -> None:
        others_bytes = pace.done_bytes - start
        with urllib.request.urlopen(self._request(url, start), timeout=_TIMEOUT_S) as answer:  # noqa: S310  checked
            # A server that knows no ranges answers 200 with everything: begin anew.
            resumed = answer.status == http.client.PARTIAL_CONTENT
            begin = start if resumed else 0
            wanted = int(answer.headers.get("Content-Length", "0"))
            if remote.size_bytes and wanted and begin + wanted != remote.size_bytes:
                raise _Refused(f"{without_password(url)} has {begin + wanted} bytes, not {remote.size_bytes}")
            if not pace.total_bytes:
                pace.total_bytes = others_bytes + begin + wanted
            done = begin
            began = told_at = time.monotonic()
            with partial.open("ab" if resumed else "wb") as file:
                while block := answer.read1(BLOCK_BYTES):
                    file.write(block)
                    done += len(block)
                    pace.reached(others_bytes + done)
                    now = time.monotonic()
                    if now - told_at >= PAUSE_S:
                        told_at = now
                        self._progress(str(pace))
                    if not self._patient and now - began >= WINDOW_S and pace.rate_bytes_s() < SLOW_BYTES_S:
                        raise _Slow(f"only {ByteSize(pace.rate_bytes_s())}/s for {WINDOW_S:.0f} s")
        # read() takes a closed connection for the end of the file.
        if wanted and done < begin + wanted:
            raise ConnectionError(f"the connection ended after {done - begin} of {wanted} bytes")

    def _request(self, url: str, start: int = 0) -> urllib.request.Request:
        headers = {"User-Agent": "audiod", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        request = urllib.request.Request(url, headers=headers)  # noqa: S310  the scheme was checked
        if not self._scope and (token := os.environ.get(_TOKEN)):
            # Not for whoever the hub redirects to.
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        return request

    def _hub_listing(self, body: bytes) -> dict[str, Remote]:
        """Source: hub API, `GET /api/models/{repo}/revision/{revision}` with `blobs`."""
        listed = msgspec.json.decode(body)
        if (commit := listed.get("sha", self._source.revision)) != self._source.revision:
            raise _Refused(f"it has {self._source.repo} at {commit}, not at {self._source.revision}")
        found = {}
        for file in listed["siblings"]:
            large: dict[str, Any] = file.get("lfs") or {}
            size = int(large.get("size") or file.get("size") or 0)
            found[file["rfilename"]] = Remote(size, large.get("sha256", ""), "" if large else file.get("blobId") or "")
        return found


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def _asked_s(retry_after: str) -> float | None:
    """Seconds that a server asks to wait; it may name a time, too (RFC 9110, 10.2.3)."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _scope_listing(body: bytes) -> dict[str, Remote]:
    """Source: modelscope's hub client, `HubApi.get_model_files`."""
    files = msgspec.json.decode(body)["Data"]["Files"]
    return {
        file["Path"]: Remote(int(file["Size"]), file.get("Sha256") or "") for file in files if file["Type"] != "tree"
    }


def _verify(file: Path, path: str, remote: Remote, pinned: str, url: str) -> None:
    """Whether the bytes are those of the catalogue, or else of the hub's list, and hold what the name says."""
    size = file.stat().st_size
    if remote.size_bytes and size != remote.size_bytes:
        raise InstallFailed(f"{url} gave {size} bytes, not {remote.size_bytes}")
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with file.open("rb") as opened:
        os.fsync(opened.fileno())  # once it is among the whole ones nobody asks again
        while block := opened.read(BLOCK_BYTES):
            sha256.update(block)
            if remote.blob:
                blob.update(block)
    for kind, wanted, got in (
        ("SHA-256", pinned or remote.sha256, sha256.hexdigest()),
        ("git's hash", remote.blob, blob.hexdigest()),
    ):
        if wanted and got != wanted:
            raise InstallFailed(
                f"{url} is not the file that is pinned: {kind} {got}, not {wanted}",
                hint="the mirror served something else; name another, then run the same again",
            )
    if path.endswith(".safetensors"):
        safetensors.check(file)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
