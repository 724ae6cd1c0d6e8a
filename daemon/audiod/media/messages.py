"""What the daemon and a media process say to each other: one msgpack message in each packet.

Over Unix SOCK_SEQPACKET, which keeps messages whole and their descriptors with them, so no framing is needed. A
process serves one job: after Started come a Decode, an Encode or a Listen, after Encode its Feeds and a Finish, and
after Listen its Hears and Flushes.
"""

from __future__ import annotations

from typing import Union

import msgspec

from audiod.media.formats import SpeechFormat
from audiod.media.live import LiveFormat
from audioproto.errors import ErrorBody

PIECE_BYTES = 64 * 1024
"""Most audio in one message, well under the smallest usual socket buffer (net.core.wmem_default, 208 KiB)."""

PACKET_BYTES = PIECE_BYTES + 4096
"""Room for any message."""

HEAR_BYTES = PIECE_BYTES // 4
"""Most live audio in one message: G.711 becomes four times as much."""

DECODED_SAMPLES = 2**19
"""A decoder tells before it writes this many more samples: 1 MiB, or 33 s of audio at 16 kHz."""


class Message(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Base of all messages; the class name is the tag."""


class Limits(msgspec.Struct, frozen=True):
    """What the process may use, beyond what it was forked with."""

    memory_bytes: int
    cpu_s: int
    file_bytes: int


# --- from the daemon ------------------------------------------------------------------------------------------------


class Decode(Message, frozen=True):
    """Decode the first descriptor sent along into the second. Answered by Decoded or Refused, after any Decoding."""

    limits: Limits
    max_audio_s: float
    rate_hz: int


class Encode(Message, frozen=True):
    """Be an encoder for mono s16le PCM of `rate_hz`, played `tempo` times as fast at the same pitch."""

    limits: Limits
    format: SpeechFormat
    rate_hz: int
    tempo: float


class Feed(Message, frozen=True):
    """At most PIECE_BYTES of whole samples. Answered by Encoded, at least once."""

    pcm: bytes


class Finish(Message, frozen=True):
    """No more is coming. Answered by Encoded, at least once."""


class Listen(Message, frozen=True):
    """Be ready for live audio in `format`; with `detect`, say where speech is in it."""

    limits: Limits
    format: LiveFormat
    detect: bool


class Hear(Message, frozen=True):
    """At most HEAR_BYTES. Answered by Heard."""

    audio: bytes


class Flush(Message, frozen=True):
    """Give what has been held back, too. Answered by Heard."""


ToProcess = Union[Decode, Encode, Feed, Finish, Listen, Hear, Flush]

# --- from the process -----------------------------------------------------------------------------------------------


class Started(Message, frozen=True):
    """Forked, and waiting for its job. Comes with a pidfd of the process, to kill it by."""


class Decoding(Message, frozen=True):
    """From now on there may be up to `samples` in all; not said of the first DECODED_SAMPLES."""

    samples: int


class Decoded(Message, frozen=True):
    """Mono s16le PCM at the rate asked for was written, `samples` of it."""

    samples: int


class Refused(Message, frozen=True):
    """The upload cannot be decoded, and why."""

    error: ErrorBody


class Encoded(Message, frozen=True):
    """A piece of what is ready; `more` pieces follow before the next request is read."""

    data: bytes
    more: bool = False


class Heard(Message, frozen=True):
    """Mono s16le at 16 kHz, and the probability of speech in each frame (media/vad.py) that it completes."""

    pcm: bytes
    speech: list[float] = []


FromProcess = Union[Started, Decoding, Decoded, Refused, Encoded, Heard]
