"""A real daemon that has the scripted engine beside the real ones: a model that speaks when the test says so."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from daemons import TOP, Daemon

MODEL = "scripted"

_ENTRY = f"""
id = "{MODEL}"
engine = "scripted"
runtime = "hibari"
task = "speak"
description = "does what the text says"
licence = "Apache-2.0"
languages = ["en"]
scripts = ["latin"]
device = "cpu"
threads = 1
parked_bytes = "100MiB"
ready_bytes = "50MiB"
default_voice = "one"
voices = [{{ id = "one", name = "One", language = "en-US" }}]
"""


class ScriptedDaemon(Daemon):
    """Its code is the checkout's, by links, and tests/made among the engines."""

    def __init__(self, directory: Path, state_dir: Path, settings: str = "") -> None:
        super().__init__(directory, state_dir, settings)
        (directory / "models.d" / "scripted.toml").write_text(_ENTRY)
        for name in ("etc", "packaging"):
            (directory / name).symlink_to(TOP / name)
        engines = directory / "daemon" / "audioworker" / "engines"
        engines.mkdir(parents=True)
        for package in ("audiod", "audioproto"):
            (directory / "daemon" / package).symlink_to(TOP / "daemon" / package)
        for source, target in (
            (TOP / "daemon" / "audioworker", engines.parent),
            (TOP / "daemon" / "audioworker" / "engines", engines),
            (TOP / "tests" / "made", engines),
        ):
            for file in source.glob("*.py"):
                with contextlib.suppress(FileExistsError):
                    (target / file.name).symlink_to(file)

    def environment(self) -> dict[str, str]:
        return super().environment() | {"PYTHONPATH": f"{self.directory / 'daemon'}:{TOP / 'ctl'}"}

    def check_log(self) -> None:
        """As ever, but that an engine told to raise does so is expected."""
        lines = self.log.read_text().splitlines(keepends=True)
        self.log.write_text("".join(line for line in lines if f" audiod.worker.{MODEL}:" not in line))
        super().check_log()


@contextlib.contextmanager
def scripted(directory: Path, state_dir: Path, settings: str = "") -> Iterator[ScriptedDaemon]:
    """An engine that a failed test has left waiting does not keep the daemon for long."""
    settings = settings or '[server]\nstop_timeout = "10s"\n'
    daemon = ScriptedDaemon(directory, state_dir, settings)
    daemon.start()
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.stop()
        daemon.check_log()


class Gate:
    """A place in a script where the engine waits: the step is `read {gate}`."""

    def __init__(self, directory: Path, name: str = "gate") -> None:
        self._path = directory / name
        os.mkfifo(self._path)

    def __str__(self) -> str:
        return str(self._path)

    def open(self) -> None:
        """Let the engine go on. Waits until it has come here."""
        with self._path.open("wb"):
            pass
