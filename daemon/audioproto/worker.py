"""The worker protocol: what the daemon says to zygotes and workers, and what they say back.

Frames (framing.py) over an inherited Unix stream socketpair. `Fork` and `Transcribe` carry one file descriptor each
(SCM_RIGHTS): the new worker's socket, and a sealed memfd of mono s16le PCM at 16 kHz.
"""

from __future__ import annotations

from typing import Union

import msgspec

from audioproto.errors import ErrorBody
from audioproto.types import EngineSpec, Hold


class Message(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Base of all messages; the class name is the tag."""


# --- daemon to zygote ---------------------------------------------------------------------------------------------


class Init(Message, frozen=True):
    """Import the library and hold what the engine may hold. Answered by Prepared or Failed."""

    spec: EngineSpec


class Fork(Message, frozen=True):
    """Fork a worker that speaks on the descriptor sent along. Answered by Forked, later by Exited."""

    worker: int


ToZygote = Union[Init, Fork]

# --- zygote to daemon ---------------------------------------------------------------------------------------------


class Progress(Message, frozen=True):
    """Preparing or loading goes on: the time limit for standing still begins anew. `message` is for a person."""

    message: str = ""


class Prepared(Message, frozen=True):
    """The zygote is up. `prepare_s` is the seconds that imports and weights took."""

    hold: Hold
    prepare_s: float


class Forked(Message, frozen=True):
    worker: int
    pid: int


class Exited(Message, frozen=True):
    """The zygote reaped a worker. `status` is its exit status, or minus the signal that ended it."""

    worker: int
    pid: int
    status: int


# --- daemon to worker ---------------------------------------------------------------------------------------------


class Transcribe(Message, frozen=True):
    """Transcribe the `samples` in the descriptor sent along (mono s16le, 16 kHz).

    `language` is an ISO 639-1 code or empty for automatic, then of `languages` where there are any. `prompt` is text
    that could have gone before, `keywords` are words that may be heard. `temperature` is 0 to 1. `words` asks for word
    times, `logprobs` for those of tokens. `translate_to` is the code of the language to write in, empty for the spoken
    one.
    """

    job: int
    samples: int
    language: str = ""
    prompt: str = ""
    temperature: float = 0.0
    words: bool = False
    languages: list[str] = []
    keywords: list[str] = []
    logprobs: bool = False
    translate_to: str = ""


class Synthesize(Message, frozen=True):
    """Speak `text`. `speed` 0.25 to 4: the engine applies what it can and reports the rest in AudioStart.tempo."""

    job: int
    text: str
    voice: str = ""
    speed: float = 1.0
    instructions: str = ""


class Abort(Message, frozen=True):
    """Stop the job at the next chance. The job still ends with Done or Failed."""

    job: int


class Pause(Message, frozen=True):
    """Let the job stand still from its next segment on. Answered by Paused, unless the job ends first."""

    job: int


class Resume(Message, frozen=True):
    """Let a paused job go on. Without effect on one that is not paused, except that a Pause on its way is undone."""

    job: int


class Warm(Message, frozen=True):
    """Do once what the first request would otherwise pay for (memory pools, kernels, caches). Ends with Done."""

    job: int


ToWorker = Union[Transcribe, Synthesize, Abort, Pause, Resume, Warm]

# --- worker to daemon ---------------------------------------------------------------------------------------------


class Ready(Message, frozen=True):
    """The model is on the device. `load_s` is seconds from the fork; `sample_rate` is what it speaks at, in Hz."""

    load_s: float
    sample_rate: int = 0


class Word(msgspec.Struct, frozen=True):
    """Times in seconds from the start of the audio."""

    word: str
    start: float
    end: float
    probability: float = 1.0


class Token(msgspec.Struct, frozen=True):
    """A piece of text as the model wrote it, with its natural log probability. `text` may be part of a character."""

    text: bytes
    logprob: float


class Segment(Message, frozen=True):
    """A finished stretch of transcript; fields as in OpenAI's verbose_json, times in seconds."""

    job: int
    start: float
    end: float
    text: str
    tokens: list[int] = []
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 0.0
    no_speech_prob: float = 0.0
    seek: int = 0
    words: list[Word] = []
    logprobs: list[Token] = []


class AudioStart(Message, frozen=True):
    """Sent once before the first chunk. `tempo` is the speed factor that the engine could not apply itself."""

    job: int
    sample_rate: int
    tempo: float = 1.0


class AudioChunk(Message, frozen=True):
    """Mono s16le PCM at AudioStart.sample_rate."""

    job: int
    pcm: bytes


class Paused(Message, frozen=True):
    """The job stands between two segments and computes nothing."""

    job: int


class Done(Message, frozen=True):
    """The job ended well. `language` is what was recognised (ISO 639-1); `engine_s` is seconds in the engine."""

    job: int
    language: str = ""
    engine_s: float = 0.0
    aborted: bool = False


class Failed(Message, frozen=True):
    """A job failed, or, with job 0, the process could not come up."""

    error: ErrorBody
    job: int = 0


FromZygote = Union[Progress, Prepared, Forked, Exited, Failed]
FromWorker = Union[Progress, Ready, Segment, AudioStart, AudioChunk, Paused, Done, Failed]
