"""Loading asks no network: a daemon that has none loads what is installed, with every part that it needs."""

from __future__ import annotations

import base64
import ctypes
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audiod.config import Config
from audiod.models import catalogue, install
from audiod.models.catalogue import HubSource
from audiod.models.install import Places
from daemons import AUDIO, TOP, Daemon, say
from model_hub import COMMIT, Hub


class Cut(Daemon):
    """In a network namespace of its own, where there is the loopback and nothing else."""

    def command(self) -> list[str]:
        return ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *super().command()]

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """By a thread that goes there, and ends there."""

        def inside() -> tuple[int, bytes]:
            with Path(f"/proc/{self.process.pid}/ns/net").open() as namespace:
                assert ctypes.CDLL(None).setns(namespace.fileno(), 0) == 0
            return super(Cut, self).request(method, path, body, **headers)

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(inside).result()


pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("ip")), reason="needs root, unshare and ip"
)


def test_models_are_loaded_without_a_network(tmp_path: Path, state_dir: Path, tiny_qwen: Path) -> None:
    daemon = Cut(tmp_path, state_dir)
    (tmp_path / "models.d/tiny.toml").write_text(
        f'id = "tiny"\nengine = "qwen_asr"\nruntime = "qwen-asr"\ntask = "transcribe"\npath = "{tiny_qwen / "asr"}"\n'
    )
    daemon.start()
    try:
        for model in ("whisper-base", "hibari", "tiny"):
            loaded = daemon.ctl("load", model)
            assert loaded.returncode == 0, loaded.stderr
    finally:
        daemon.stop()
    daemon.check_log()


def test_what_was_pulled_of_indextts_is_all_that_it_needs(tmp_path: Path, state_dir: Path, tiny_indextts: Path) -> None:
    """The entry as it is shipped, but for hashes, commits and sizes; its five repositories have a tiny checkpoint."""
    text = re.sub(r'"[0-9a-f]{64}"', '""', (TOP / "etc/models.d/indextts-2.toml").read_text())
    text = re.sub(r'^revision = "[0-9a-f]{40}"', f'revision = "{COMMIT}"', text, flags=re.M)
    text = re.sub(r'^disk_bytes = ".*"', 'disk_bytes = "1MB"', text, flags=re.M)
    text = re.sub(r'^(parked|ready|staged)_bytes = "(.).*"', r'\1_bytes = "\g<2>00MiB"', text, flags=re.M)
    text += "[options]\nbeams = 1\ndiffusion_steps = 2\n"
    entry = catalogue.parse(text, "indextts-2.toml")
    sources = [source for part in entry.weights for source in part.sources if isinstance(source, HubSource)]
    served = {
        source.repo: {source.origin(path): _content(tiny_indextts / "tiny" / path) for path in source.files}
        for source in sources
    }
    assert len(served) == 5
    own = tmp_path / "own"
    (own / "models").mkdir(parents=True)
    (own / "runtimes").symlink_to(state_dir / "runtimes")
    with Hub(served) as hub:
        places = Places(Config().places.locks_dir, own / "runtimes", own / "models", (hub.url,))
        install.install(entry, places, lambda line: None)
    daemon = Cut(tmp_path, own)
    (tmp_path / "models.d/indextts-2.toml").write_text(text)
    daemon.start()
    try:
        recording = base64.b64encode((AUDIO / "jfk.wav").read_bytes()).decode()
        angry = {"mode": "text", "text": "angry"}
        status, audio = say(daemon, "Hello.", model="indextts-2", voice={"audio": recording}, emotion=angry)
        assert status == 200, json.loads(audio)
        assert len(audio) > 10_000
    finally:
        daemon.stop()
    daemon.check_log()


def _content(file: Path) -> bytes:
    """What a tiny checkpoint does not have is nothing that is read."""
    return file.read_bytes() if file.exists() else b"{}"
