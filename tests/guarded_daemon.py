"""`audiod`, with a guard: a call that blocks the event loop raises there, and is told on standard error.

Run in place of `python -m audiod` by the tests, so that every test that uses the daemon also watches its loop.
"""

from __future__ import annotations

import sys

from blockbuster import BlockBuster

from audiod.__main__ import main

if __name__ == "__main__":
    guard = BlockBuster()
    guard.activate()
    # The log goes to standard error by design: a pipe or the journal, which takes a line without waiting.
    for name in ("io.TextIOWrapper.write", "io.BufferedWriter.write", "io.TextIOWrapper.flush"):
        if name in guard.functions:
            guard.functions[name].deactivate()
    sys.exit(main())
