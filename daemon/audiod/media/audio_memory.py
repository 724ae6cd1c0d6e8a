"""The one bound over all audio that the daemon holds for requests: uploads, what is decoded of them, unsent speech.

Only counts; whoever holds the bytes says so here, and frees them itself.
"""

from __future__ import annotations

from types import TracebackType

from audiod.units import ByteSize
from audioproto.errors import QueueFull, UploadTooLarge

_RETRY_AFTER_S = 5.0
"""Nobody can tell when a client will have taken its speech; a transcription of usual length takes about that long."""


class AudioMemory:
    """At most `limit_bytes` for all requests together, except for the single pieces that `Held.charge` tells of."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        """May be changed at any time: what is held stays held."""
        self.held_bytes = 0

    def hold(self) -> Held:
        """What one request holds, at first nothing. Use it in a `with`."""
        return Held(self)


class Held:
    """One request's share. Leaving its `with` gives all of it back, whatever became of the request."""

    def __init__(self, memory: AudioMemory) -> None:
        self._memory = memory
        self.held_bytes = 0

    def fits(self, count_bytes: int) -> bool:
        """Whether there is room for so much more now."""
        return self._memory.held_bytes + count_bytes <= self._memory.limit_bytes

    def reserve(self, count_bytes: int) -> None:
        """Ask for so much more, before it is there.

        Raises QueueFull where others have it, and UploadTooLarge where this request alone is more than all may have.
        """
        limit, taken = ByteSize(self._memory.limit_bytes), ByteSize(self._memory.held_bytes)
        if self.held_bytes + count_bytes > limit:
            raise UploadTooLarge(
                f"the request needs {ByteSize(self.held_bytes + count_bytes)} of memory for its audio; "
                f"all requests together may have {limit}",
                param="file",
                hint="send a shorter recording, or raise server.audio_memory",
            )
        if not self.fits(count_bytes):
            raise QueueFull(
                f"the audio of other requests holds {taken} of the {limit} of memory that there is for it; "
                f"this one needs {ByteSize(count_bytes)} more",
                retry_after_s=_RETRY_AFTER_S,
            )
        self.charge(count_bytes)

    def charge(self, count_bytes: int) -> None:
        """Count what is there already, whether there is room or not."""
        self.held_bytes += count_bytes
        self._memory.held_bytes += count_bytes

    def give_back(self, count_bytes: int) -> None:
        self.held_bytes -= count_bytes
        self._memory.held_bytes -= count_bytes

    def __enter__(self) -> Held:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.give_back(self.held_bytes)
