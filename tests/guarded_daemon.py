"""`audiod`, with a guard: a call that blocks the event loop raises there, and is told on standard error.

Run in place of `python -m audiod` by the tests, so that every test that uses the daemon also watches its loop. Where
MADE_FOR_TESTS names a folder of code, workers find the engines there, which are the real ones and those of tests/made.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from blockbuster import BlockBuster

from audiod import app
from audiod.__main__ import main


def use_engines_of(code: Path) -> None:
    prepare = app.Daemon._prepare_directories

    def prepare_and_replace(self: app.Daemon) -> None:
        prepare(self)
        link = self._code / "audioworker"
        link.unlink()
        link.symlink_to(code / "audioworker")

    app.Daemon._prepare_directories = prepare_and_replace  # type: ignore[method-assign]


if __name__ == "__main__":
    guard = BlockBuster()
    guard.activate()
    # The log goes to standard error by design: a pipe or the journal, which takes a line without waiting.
    for name in ("io.TextIOWrapper.write", "io.BufferedWriter.write", "io.TextIOWrapper.flush"):
        if name in guard.functions:
            guard.functions[name].deactivate()
    if made := os.environ.get("MADE_FOR_TESTS"):
        use_engines_of(Path(made))
    sys.exit(main())
