"""Live turns with a tiny Qwen3-ASR checkpoint, whose words and their times are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from daemons import running
from realtime import session

SECOND = 24_000

ENTRY = """
id = "tiny"
engine = "qwen_asr"
runtime = "qwen-asr"
task = "transcribe"
languages = ["en", "zh"]
path = "{path}"
options = {{ vad = false }} # it hears noise too
"""


def test_words_come_live_with_estimated_times(tmp_path: Path, state_dir: Path, tiny_qwen: Path) -> None:
    (tmp_path / "models.d").mkdir()
    (tmp_path / "models.d/tiny.toml").write_text(ENTRY.format(path=tiny_qwen / "asr"))
    noise = (np.random.default_rng(0).normal(0, 3000, 4 * SECOND)).astype("<i2")
    live = {"model": "tiny", "delay": "minimal", "partials": True}
    with running(tmp_path, state_dir) as daemon, session(daemon, transcription=live) as client:
        client.append(noise[: SECOND + SECOND // 10].tobytes())
        first = client.until("transcription.partial")
        assert first["text"].strip() == "hello brave new world"
        client.append(noise[SECOND + SECOND // 10 : 2 * SECOND + SECOND // 5].tobytes())
        delta = client.until("transcription.delta")
        assert delta["delta"] == "hello brave new world"
        assert client.until("transcription.partial")["text"] == ""
        client.append(noise[2 * SECOND + SECOND // 5 :].tobytes())
        client.commit()
        completed = client.until("transcription.completed")
        assert completed["transcript"] == "hello brave new world"
        assert completed["item_id"] == first["item_id"] == delta["item_id"]
        assert completed["languages"] == [{"code": "en"}]
