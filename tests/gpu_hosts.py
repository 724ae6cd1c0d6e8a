"""Hosts with NVIDIA GPUs for tests, as far as NVML can tell: a library in C that answers what a text file says.

The real pynvml loads it, in a process of its own, because a process keeps the first library of that name.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from daemons import TOP

SOURCE = TOP / "tests" / "gpu" / "nvml.c"
LIBRARY = "libnvidia-ml.so.1"

GIB = 2**30


def build(directory: Path) -> None:
    """The library, in `directory`. Skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here")
    flags = ["-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}"]
    subprocess.run([compiler, *flags, "-o", str(directory / LIBRARY), str(SOURCE)], check=True)


class GpuHost:
    """`show` says what there is, in the lines that nvml.c describes; it may change while processes look."""

    def __init__(self, library: Path, directory: Path) -> None:
        self._library = library
        self.state = directory / "nvml.txt"
        self.show()

    def show(self, *lines: str, driver: str = "550.54.15") -> None:
        fresh = self.state.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in (f"driver {driver}", *lines)))
        fresh.replace(self.state)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AUDIOD_", "CUDA_"))}
        path = os.pathsep.join(filter(None, [str(TOP / "daemon"), os.environ.get("PYTHONPATH", "")]))
        return kept | {"LD_LIBRARY_PATH": str(self._library), "NVML_STATE": str(self.state), "PYTHONPATH": path}

    def run(self, code: str, **environment: str) -> Any:
        """What `code` prints, as JSON. It may await; `state` is the path of the file, to be changed on the way."""
        lines = textwrap.indent(textwrap.dedent(code), "    ")
        program = f"{_IMPORTS}\nasync def main():\n{lines}\n\nasyncio.run(main())\n"
        ran = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            env=self.environment() | environment,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)


_IMPORTS = """
import asyncio, json, os, time
from dataclasses import asdict
from pathlib import Path
from audiod import devices, gpu, meters
from audioproto.errors import AudiodError
state = Path(os.environ["NVML_STATE"])
def tell(found):
    print(json.dumps(found))
"""
