"""An upload: the bytes of a request as they arrive, in a memfd, so that they are on no disk and once in memory.

Does not look at them; pool.py has them decoded.
"""

from __future__ import annotations

import os
from types import TracebackType

from audiod.media.audio_memory import Held
from audioproto.errors import UploadTooLarge


def too_large(limit_bytes: int) -> UploadTooLarge:
    return UploadTooLarge(
        f"the upload is larger than {limit_bytes / 1e6:g} MB",
        param="file",
        hint="compress it first, e.g. ffmpeg -i INPUT -ac 1 -ar 16000 -b:a 32k OUTPUT.mp3",
    )


class Upload:
    """Collects at most `limit_bytes`, which are `held` while it is open. Close it, or use it in a `with`.

    `expected_bytes` are reserved at once, so that an upload that is begun need not be refused half-way. Raises what
    Held.reserve raises, here and in `write`.
    """

    def __init__(self, limit_bytes: int, held: Held, expected_bytes: int = 0) -> None:
        self.limit_bytes = limit_bytes
        self.held = held
        self.size = 0
        """Bytes so far."""
        self._reserved_bytes = 0
        self._reserve(expected_bytes)
        self.fd = os.memfd_create("audiod-upload", os.MFD_CLOEXEC)
        # Writing to memory never waits, whatever the flag says; the flag says so to whoever watches the event loop.
        os.set_blocking(self.fd, False)

    def _reserve(self, size: int) -> None:
        if size > self._reserved_bytes:
            self.held.reserve(size - self._reserved_bytes)
            self._reserved_bytes = size

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append. Raises UploadTooLarge, having kept nothing of `chunk`."""
        if self.size + len(chunk) > self.limit_bytes:
            raise too_large(self.limit_bytes)
        self._reserve(self.size + len(chunk))
        rest = memoryview(chunk)
        while rest:
            written = os.write(self.fd, rest)
            self.size += written
            rest = rest[written:]

    def complete(self) -> None:
        """No more is coming: what was reserved in vain is given back."""
        self.held.give_back(self._reserved_bytes - self.size)
        self._reserved_bytes = self.size

    def close(self) -> None:
        """Free the memory. May be called again."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self.held.give_back(self._reserved_bytes)

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
