"""What a Realtime session is set to, and how an update changes it: pure.

Only the keys that are present change; null turns off what can be turned off and puts other keys back to their default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Literal, Union, cast, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from audiod.media.live import LiveFormat
from audiod.media.turns import TurnSettings
from audioproto.errors import BadRequest

_OFF_BY_NULL = frozenset({"transcription", "turn_detection", "noise_reduction"})

_EAGERNESS_MS = {"low": 2000, "medium": 1000, "auto": 1000, "high": 500}
"""Silence that ends a turn. OpenAI's waits up to 8, 4 and 2 s where a sentence sounds unfinished; we cannot tell."""


Check = Callable[["Transcription", bool], object]
"""Raises an AudiodError where no model transcribes so, or it gives no log probabilities and those are wanted."""


class Pcm(msgspec.Struct, frozen=True, tag_field="type", tag=LiveFormat.PCM.value):
    """Mono s16le."""

    rate: Literal[24000] = 24000


class Pcmu(msgspec.Struct, frozen=True, tag_field="type", tag=LiveFormat.PCMU.value):
    """G.711 mu-law, 8 kHz."""


class Pcma(msgspec.Struct, frozen=True, tag_field="type", tag=LiveFormat.PCMA.value):
    """G.711 A-law, 8 kHz."""


Delay = Literal["minimal", "low", "medium", "high", "xhigh"]


class Transcription(msgspec.Struct, frozen=True):
    """How turns are transcribed. `model` is an id or alias.

    With a `delay` turns are live: they are heard while they are spoken. The longer, the rarer and surer. `partials` is
    ours: whether the client wants to know what is not certain yet.
    """

    model: str = ""
    language: str | UnsetType = UNSET
    prompt: str | UnsetType = UNSET
    languages: list[str] | UnsetType = UNSET
    keywords: list[str] | UnsetType = UNSET
    delay: Delay | UnsetType = UNSET
    partials: bool | UnsetType = UNSET

    @property
    def hearing_intervals(self) -> int:
        """How many of the shortest intervals are between two hearings of a live turn; 0 where turns are not live."""
        return 0 if self.delay is UNSET else 1 + get_args(Delay).index(self.delay)


class ServerVad(msgspec.Struct, frozen=True, tag_field="type", tag="server_vad"):
    """A turn ends with `silence_duration_ms` of silence."""

    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5
    prefix_padding_ms: Annotated[int, Meta(ge=0, le=10_000)] = 300
    silence_duration_ms: Annotated[int, Meta(ge=0, le=60_000)] = 500

    @property
    def turns(self) -> TurnSettings:
        return TurnSettings(self.threshold, self.prefix_padding_ms, self.silence_duration_ms)


class SemanticVad(msgspec.Struct, frozen=True, tag_field="type", tag="semantic_vad"):
    """A turn ends with silence, more of it the less eager."""

    eagerness: Literal["low", "medium", "high", "auto"] = "auto"

    @property
    def turns(self) -> TurnSettings:
        return TurnSettings(silence_duration_ms=_EAGERNESS_MS[self.eagerness])


class NoiseReduction(msgspec.Struct, frozen=True):
    """Taken and shown, without effect."""

    type: Literal["near_field", "far_field"]
    strength: float | UnsetType = UNSET


class AudioInput(msgspec.Struct, frozen=True):
    format: Union[Pcm, Pcmu, Pcma] = Pcm()
    transcription: Transcription | None = Transcription()
    noise_reduction: NoiseReduction | None = None
    turn_detection: Union[ServerVad, SemanticVad, None] = ServerVad()


class Audio(msgspec.Struct, frozen=True):
    input: AudioInput = AudioInput()


class Session(msgspec.Struct, frozen=True):
    """A transcription session, whole. `expires_at` is Unix time; what has been said by then is still transcribed."""

    id: str
    expires_at: int | UnsetType
    object: Literal["realtime.transcription_session"] = "realtime.transcription_session"
    type: Literal["transcription"] = "transcription"
    audio: Audio = Audio()
    include: list[Literal["item.input_audio_transcription.logprobs"]] | UnsetType = UNSET

    @property
    def format(self) -> LiveFormat:
        return LiveFormat(cast(str, self.audio.input.format.__struct_config__.tag))

    @property
    def turns(self) -> TurnSettings | None:
        """None where the client says itself when a turn is complete."""
        detection = self.audio.input.turn_detection
        return None if detection is None else detection.turns


def updated(session: Session, update: Mapping[str, object], default_model: str, check: Check) -> Session:
    """`session` with a client's `update` of it. Raises BadRequest naming the key, and what `check` raises."""
    if (kind := update.get("type", "transcription")) != "transcription":
        raise BadRequest(f"type must be transcription, not {kind!r}: no conversations are served", param="session.type")
    try:
        merged = _merge(msgspec.to_builtins(session), update)
    except RecursionError as error:
        raise BadRequest("the session is nested too deeply", param="session") from error
    merged |= {"id": session.id, "object": session.object, "type": session.type, "expires_at": session.expires_at}
    try:
        new = msgspec.convert(merged, Session)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        missing = re.match(r"Object missing required field `(\w+)`", message)
        name = f".{missing[1]}" if missing else ""
        raise BadRequest(message, param=f"session{path.rstrip('`')}{name}") from error
    transcription = new.audio.input.transcription
    if transcription is None:
        return new
    if not transcription.model:
        transcription = msgspec.structs.replace(transcription, model=default_model)
        new = with_transcription(new, transcription)
    _check_live(transcription, bool(new.include))
    if transcription != session.audio.input.transcription or new.include != session.include:
        check(transcription, bool(new.include))
    return new


def _check_live(how: Transcription, logprobs: bool) -> None:
    """Raises BadRequest."""
    where = "session.audio.input.transcription"
    if how.hearing_intervals and logprobs:
        message = f"live turns have no log probabilities: leave out either them or {where}.delay"
        raise BadRequest(message, param="session.include")
    if how.partials is True and not how.hearing_intervals:
        raise BadRequest(f"partials are of live turns: set {where}.delay too", param=f"{where}.partials")


def with_transcription(session: Session, transcription: Transcription) -> Session:
    """`session` with its turns transcribed so."""
    sound = msgspec.structs.replace(session.audio.input, transcription=transcription)
    return msgspec.structs.replace(session, audio=Audio(sound))


def _merge(old: object, new: object) -> dict[str, object]:
    """`old` with the keys of `new` in place, at every depth; an object of another `type` replaces what there was."""
    assert isinstance(new, Mapping)
    merged: dict[str, object] = dict(old) if isinstance(old, Mapping) else {}
    if "type" in new and new["type"] != merged.get("type"):
        merged = {}
    for key, value in new.items():
        if value is None and key not in _OFF_BY_NULL:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value) if isinstance(value, Mapping) else value
    return merged
