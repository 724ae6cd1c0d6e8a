"""Where the programs are that audioctl runs.

Runs none of them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import which

from audioproto.errors import NotFound


def audiod() -> str:
    """The daemon's program: beside this one, where it was installed together with it, else on PATH. Raises NotFound."""
    beside = str(Path(sys.argv[0]).resolve().parent)
    found = which("audiod", path=beside) or which("audiod")
    if found is None:
        raise NotFound("there is no program audiod beside audioctl or on PATH", hint="apt install audiod")
    return found
