"""The worker protocol: what the daemon says to zygotes and workers, and what they say back.

Frames (framing.py) over an inherited Unix stream socketpair. `Fork`, and whatever has audio, carry one file descriptor
each (SCM_RIGHTS): the new worker's socket, or a sealed memfd of mono s16le PCM.
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
    one. `deltas` asks for text as the model writes it.
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
    deltas: bool = False


class Passage(msgspec.Struct, frozen=True):
    """What is said from `start` to `end`, in seconds from the start of the audio."""

    start: float
    end: float
    text: str


class Align(Message, frozen=True):
    """Find the times of the words of `passages` in the `samples` in the descriptor sent along (mono s16le, 16 kHz).

    Passages are in order and do not overlap. Answered by a Segment for each, in their order, then Done. `language` is
    an ISO 639-1 code or empty where it is not known.
    """

    job: int
    samples: int
    passages: list[Passage]
    language: str = ""


class Recording(msgspec.Struct, frozen=True, omit_defaults=True):
    """The `samples` from the one numbered `begin` on, in the descriptor sent along (mono s16le at `rate_hz`)."""

    samples: int
    rate_hz: int
    begin: int = 0


class Reference(msgspec.Struct, frozen=True, omit_defaults=True):
    """The speaker to imitate. `transcript` is what is said in the recording, empty where that is not known.

    `voice` is the id of the stored voice that the recording belongs to: what an engine makes of it may be kept under
    that name. It is empty for a recording that came with the request, of which nothing may be left behind.
    """

    recording: Recording
    transcript: str = ""
    voice: str = ""


class Emotion(msgspec.Struct, frozen=True, omit_defaults=True):
    """How it is to sound: like the `recording`, by `vector` (as types.EMOTIONS), or as the description `text` says.

    One of them; where there is none, as the text itself suggests. `alpha`, 0 to 1, is how much of it.
    """

    recording: Recording | None = None
    vector: list[float] = []
    text: str = ""
    alpha: float = 1.0


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the model chooses. What is None is the engine's own choice; equal seeds give equal audio."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None


class Synthesize(Message, frozen=True):
    """Speak `text`. `speed` 0.25 to 4: the engine applies what it can and reports the rest in AudioStart.tempo.

    `reference` and `emotion` are for engines that take them. Their recordings are in the one descriptor sent along,
    which is there exactly if there is a recording. `pause_s` is the silence between two parts of a long text; None is
    the engine's own. `language` is the code of the text's, for engines that do not go by voice or letters alone; empty
    where the engine is to tell.
    """

    job: int
    text: str
    voice: str = ""
    speed: float = 1.0
    instructions: str = ""
    reference: Reference | None = None
    emotion: Emotion | None = None
    sampling: Sampling = Sampling()
    pause_s: float | None = None
    language: str = ""

    @property
    def recordings(self) -> list[Recording]:
        """All of them, in no particular order."""
        of_voice = [self.reference.recording] if self.reference else []
        return of_voice + ([self.emotion.recording] if self.emotion and self.emotion.recording else [])


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


ToWorker = Union[Transcribe, Align, Synthesize, Abort, Pause, Resume, Warm]

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
    words_estimated: bool = False
    """Whether the times of the words are in proportion to the text, instead of heard."""
    logprobs: list[Token] = []


class Delta(Message, frozen=True):
    """Text of the segment to come, as the model writes it: what goes behind the deltas before it.

    A preview: where the model got stuck the segment says something else, or two segments come. Their text counts.
    """

    job: int
    text: str


class AudioStart(Message, frozen=True):
    """Sent once before the first chunk. `tempo` is the speed factor that the engine could not apply itself."""

    job: int
    sample_rate: int
    tempo: float = 1.0


class AudioChunk(Message, frozen=True):
    """Mono s16le PCM at AudioStart.sample_rate."""

    job: int
    pcm: bytes


class Phase(Message, frozen=True):
    """A phase of a job is over: `name` is the engine's, in the words of its field, like `vocoder`.

    `part` of `parts` is how far the job has come, 0 of 0 where the phase belongs to all of it. `peak_bytes` is the
    device memory that was in use at most, weights included; 0 where that is not known.
    """

    job: int
    name: str
    seconds: float
    part: int = 0
    parts: int = 0
    peak_bytes: int = 0


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
FromWorker = Union[Progress, Ready, Segment, Delta, AudioStart, AudioChunk, Phase, Paused, Done, Failed]
