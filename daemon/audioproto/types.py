"""Words that every part shares: what a model is, where it is, what it can do.

Holds data only; no behaviour beyond small derived properties.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

PCM_RATE_IN = 16_000
"""Sample rate in Hz of all audio handed to a transcriber (mono, s16le). Whisper and Qwen3-ASR take exactly this."""

PCM_RATE_OUT = 24_000
"""Sample rate in Hz of `pcm` answers (mono, s16le), fixed by the OpenAI SDK's audio player."""


class Task(StrEnum):
    """What a model does for a client."""

    TRANSCRIBE = "transcribe"
    SPEAK = "speak"
    ALIGN = "align"
    """It finds out when each word of a known text is said."""


EMOTIONS = ("happy", "angry", "sad", "afraid", "disgusted", "melancholic", "surprised", "calm")
"""Names of an emotion vector's values, in their order. IndexTTS2's, whose users know them."""


class Priority(StrEnum):
    """Who waits: a person, or a job that may take its time. Batch work is put off, never for ever."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class Residency(StrEnum):
    """Where a model is now. The only state there is: processes have none of their own."""

    UNLOADED = "unloaded"
    """No process."""
    STARTING = "starting"
    """The zygote is being started."""
    PARKED = "parked"
    """The zygote holds the weights in host memory; nothing is on the device."""
    LOADING = "loading"
    """A worker was forked and moves the model onto the device."""
    READY = "ready"
    """A worker serves requests."""
    DRAINING = "draining"
    """The worker finishes its leases and takes no new ones."""
    PARKING = "parking"
    """The worker is ending; its memory is not yet proved to be back."""
    STOPPING = "stopping"
    """Worker and zygote are ending."""
    FAILED = "failed"
    """Could not be started or loaded; retried after a pause, or at once by `audioctl load`."""


class Death(StrEnum):
    """How a process of a model ended that nobody had asked to end."""

    KILLED = "killed"
    """By SIGKILL or SIGTERM from outside: somebody's, or the kernel's where that cannot be told."""
    OUT_OF_MEMORY = "out_of_memory"
    """By the kernel, because its control group or the host had run out of memory."""
    CRASHED = "crashed"
    """By another signal, or it left by itself."""
    HUNG = "hung"
    """It did not notice that its request had been given up, so it was replaced."""


class Hold(StrEnum):
    """How much of an engine a zygote may hold and still let a forked child work."""

    WEIGHTS = "weights"
    """Library imported and model built on the CPU."""
    IMPORTS = "imports"
    """Library imported; the model owns threads or handles that do not survive a fork, so the worker builds it."""
    NOTHING = "nothing"
    """Not even the import survives a fork; the zygote stays empty."""


class Voice(msgspec.Struct, frozen=True, omit_defaults=True):
    """One speaker of a speech model. `language` is a BCP 47 tag."""

    id: str
    name: str = ""
    language: str = ""
    gender: str = ""


class VoiceKind(StrEnum):
    """How a stored voice was made. Values are OpenAI's."""

    AUDIO_SAMPLE = "audio_sample"
    """From a recording of somebody, by their consent."""
    PROMPT = "prompt"
    """From a description in words."""


class LicenceNotice(msgspec.Struct, frozen=True):
    """Terms of a model, or of a part of it, that are not those of open source.

    `licence` is an SPDX identifier, `text` says in a few sentences who may use it for what, `url` has all of it.
    """

    licence: str
    name: str
    text: str
    url: str

    @property
    def line(self) -> str:
        return f"{self.name} ({self.licence}): {self.text} {self.url}"


class EngineSpec(msgspec.Struct, frozen=True):
    """What an engine needs to know to come up; made by the daemon from the model's entry.

    `model_dir` is a local directory; no engine may reach a network. `options` are the engine's own, already checked
    to be plain TOML values.
    """

    engine: str
    model: str
    model_dir: str
    device: str = "cpu"
    threads: int = 1
    concurrency: int = 1
    """Jobs at work at a time; paused ones come on top."""
    max_batch: int = 1
    """Jobs that one call may compute together, where the engine can; never more than `concurrency`."""
    max_batch_wait_s: float = 0.0
    """How long a call waits for more jobs to join it."""
    options: dict[str, Any] = {}
    memory_bytes: int = 0
    """Device memory that is set aside for the worker, weights, working memory and all; 0 where it is not bounded. An
    engine that can do with less than all of its weights on the device at a time decides by this."""
    voices_dir: str = ""
    """Where the engine may keep what it makes of stored voices, in one file a voice, `<id>.<suffix>`; empty: nowhere.
    The daemon removes a voice's file together with the voice."""
