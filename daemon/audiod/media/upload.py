"""An upload: the bytes of a request as they arrive, in a memfd, so that they are on no disk and once in memory.

Does not look at them; pool.py has them decoded.
"""

from __future__ import annotations

import os
from types import TracebackType

from audioproto.errors import UploadTooLarge


class Upload:
    """Collects at most `limit_bytes`. Close it, or use it in a `with`."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.size = 0
        """Bytes so far."""
        self.fd = os.memfd_create("audiod-upload", os.MFD_CLOEXEC)
        # Writing to memory never waits, whatever the flag says; the flag says so to whoever watches the event loop.
        os.set_blocking(self.fd, False)

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append. Raises UploadTooLarge, having kept nothing of `chunk`."""
        if self.size + len(chunk) > self.limit_bytes:
            raise UploadTooLarge(
                f"the upload is larger than {self.limit_bytes / 1e6:g} MB",
                param="file",
                hint="compress it first, e.g. ffmpeg -i INPUT -ac 1 -ar 16000 -b:a 32k OUTPUT.mp3",
            )
        rest = memoryview(chunk)
        while rest:
            written = os.write(self.fd, rest)
            self.size += written
            rest = rest[written:]

    def close(self) -> None:
        """Free the memory. May be called again."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
