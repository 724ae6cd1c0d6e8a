"""A real Prometheus for tests, with the configuration and the rules that are shipped; it scrapes one daemon.

From Debian's package, unpacked by `scripts/setup-system prometheus`; nothing is installed or started beside it.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from daemons import TOP

SHIPPED = TOP / "etc" / "prometheus"
INTERVAL_S = 1
_LIMIT_S = 60.0

T = TypeVar("T")


def program(name: str) -> Path | None:
    """`prometheus` or `promtool`, if there is one."""
    unpacked = TOP / ".state" / "tools" / "prometheus" / "usr" / "bin" / name
    found = str(unpacked) if unpacked.exists() else shutil.which(name)
    return Path(found) if found else None


def until(look: Callable[[], T], limit_s: float = _LIMIT_S) -> T:
    """Ask again and again until the answer is true."""
    deadline = time.monotonic() + limit_s
    while not (answer := look()):
        assert time.monotonic() < deadline, f"not within {limit_s:g} s"
        time.sleep(0.05)
    return answer


@dataclass(frozen=True)
class Series:
    """One series of an answer: its labels, and its values by time."""

    labels: dict[str, str]
    values: list[tuple[float, float]]


class Prometheus:
    """Prometheus as a process of the test's own, on a free port."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r'msg="Listening on" address=(\S+)', line):
                self.url = f"http://{found[1]}"
            if "Server is ready" in line:
                return
        raise AssertionError(f"Prometheus did not start:\n{said}")

    def ask(self, path: str, **parameters: object) -> Any:
        """The `data` of an API answer. An error, of a query that does not parse say, fails the test."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def value(self, expression: str) -> float | None:
        """The one sample that an expression has now; None where it has none."""
        found = self.ask("query", query=expression)["result"]
        assert len(found) < 2, found
        return float(found[0]["value"][1]) if found else None

    def over(self, expression: str, start: float, end: float) -> list[Series]:
        """An expression over a stretch of time, as a dashboard asks for it."""
        data = self.ask("query_range", query=expression, start=start, end=end, step=INTERVAL_S)
        return [
            Series(series["metric"], [(float(at), float(value)) for at, value in series["values"]])
            for series in data["result"]
        ]

    def catch_up(self) -> float:
        """Wait until a scrape that began after this call is in, and return its time."""
        called = time.time()

        def later() -> float:
            at = self.value('timestamp(up{job="audiod"})') or 0.0
            return at if at > called else 0.0

        return until(later)


@contextlib.contextmanager
def scraping(directory: Path, daemon_url: str) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the daemon every second, otherwise as the shipped files have it."""
    binary = program("prometheus")
    assert binary is not None
    shutil.copytree(SHIPPED, directory / "etc")
    file = directory / "etc" / "prometheus.yml"
    text = file.read_text()
    assert "127.0.0.1:8000" in text
    text = text.replace("127.0.0.1:8000", urllib.parse.urlsplit(daemon_url).netloc)
    file.write_text(re.sub(r"_interval: 15s", f"_interval: {INTERVAL_S}s", text))
    arguments = [f"--config.file={file}", f"--storage.tsdb.path={directory / 'data'}"]
    with subprocess.Popen(
        [str(binary), *arguments, "--web.listen-address=127.0.0.1:0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Prometheus(process)
        finally:
            process.terminate()
            assert process.stderr is not None
            process.stderr.read()
