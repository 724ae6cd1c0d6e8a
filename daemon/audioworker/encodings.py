"""What an engine has made of voices: the last few in memory, and those of stored voices on disk too.

Knows tensors by name, and not what they mean. A file that cannot be read or written costs time, and never a request.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from audioworker.engine import Audio

if TYPE_CHECKING:
    import torch

Encoding = dict[str, "torch.Tensor"]

_KEPT = 8
"""In memory: of IndexTTS2 one takes 6 MB."""

_VOICE = re.compile(r"[A-Za-z0-9_-]{1,100}")


def digest(recording: Audio, rate_hz: int) -> str:
    """Tells recordings apart."""
    return hashlib.sha256(b"%d " % rate_hz + recording.tobytes()).hexdigest()


class Encodings:
    """By recording. `directory` is of one model, "" where nothing is to be kept; `version` names engine and weights.

    May be asked by several threads.
    """

    def __init__(self, directory: str, version: str) -> None:
        self._directory = Path(directory) if directory else None
        self._version = version
        self._recent: OrderedDict[str, Encoding] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, recording: str, voice: str) -> Encoding | None:
        """What was made of the recording of that digest; `voice` is its stored voice, or "". On the CPU."""
        with self._lock:
            if found := self._recent.get(recording):
                self._recent.move_to_end(recording)
        if found is None:
            found = self._read(recording, voice)
            if found is not None:
                self._remember(recording, found)
        elif (file := self._file(voice)) is not None and not file.is_file():  # it was stored after it was spoken with
            self._keep(file, recording, found)
        return found

    def put(self, recording: str, voice: str, encoding: Encoding) -> None:
        """Keep it, on disk too if there is a `voice`."""
        encoding = {name: tensor.detach().cpu().contiguous() for name, tensor in encoding.items()}
        self._remember(recording, encoding)
        if (file := self._file(voice)) is not None:
            self._keep(file, recording, encoding)

    def _remember(self, recording: str, encoding: Encoding) -> None:
        with self._lock:
            self._recent[recording] = encoding
            self._recent.move_to_end(recording)
            while len(self._recent) > _KEPT:
                self._recent.popitem(last=False)

    def _keep(self, file: Path, recording: str, encoding: Encoding) -> None:
        try:
            self._write(file, recording, encoding)
        except OSError as error:
            print(f"what was made of {file.stem} is not kept on disk: {error}", file=sys.stderr)

    def _file(self, voice: str) -> Path | None:
        if self._directory is None or not _VOICE.fullmatch(voice):
            return None
        return self._directory / f"{voice}.safetensors"

    def _read(self, recording: str, voice: str) -> Encoding | None:
        from safetensors import SafetensorError, safe_open

        file = self._file(voice)
        if file is None or not file.is_file():
            return None
        try:
            with safe_open(file, "pt") as opened:
                if opened.metadata() != self._label(recording):
                    return None
                return {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            print(f"{file} is made anew: {error}", file=sys.stderr)
            return None

    def _write(self, file: Path, recording: str, encoding: Encoding) -> None:
        from safetensors.torch import save

        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            with new.open("wb") as opened:
                opened.write(save(encoding, self._label(recording)))
                opened.flush()
                os.fsync(opened.fileno())
            new.replace(file)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink()
            raise

    def _label(self, recording: str) -> dict[str, str]:
        return {"version": self._version, "recording": recording}
