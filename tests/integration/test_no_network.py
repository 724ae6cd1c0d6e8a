"""Loading asks no network: a daemon that has none loads what is installed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from daemons import Daemon


class Cut(Daemon):
    """In a network namespace of its own, where there is the loopback and nothing else."""

    def command(self) -> list[str]:
        return ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *super().command()]


@pytest.mark.skipif(
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
