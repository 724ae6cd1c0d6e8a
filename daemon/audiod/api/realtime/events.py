"""The events of a Realtime session as they are on the wire, both ways, and how a client's are read.

Names and keys are OpenAI's GA ones (openai-python, types/realtime). Decides nothing.
"""

from __future__ import annotations

import re
from typing import Literal, Union, get_args

import msgspec
from msgspec import UNSET, UnsetType

from audiod.api.realtime.sessions import Session
from audiod.api.transcripts import SpokenLanguage, TokenLogprob, UsageDuration
from audioproto.errors import AudiodError

APPEND_BYTES = 15 * 2**20
"""Most audio in one event, as OpenAI's."""

# --- from the client --------------------------------------------------------------------------------------------------


class ClientEvent(msgspec.Struct, frozen=True, tag_field="type"):
    """Base of what a client says; `event_id` comes back in the error that it may cause."""

    event_id: str | None = None


class SessionUpdate(ClientEvent, frozen=True, tag="session.update", kw_only=True):
    """Change the keys of the session that are present; null turns off what can be turned off."""

    session: dict[str, object]


class Append(ClientEvent, frozen=True, tag="input_audio_buffer.append", kw_only=True):
    """Audio in the session's input format; base64 on the wire. Not confirmed."""

    audio: bytes


class Commit(ClientEvent, frozen=True, tag="input_audio_buffer.commit"):
    """The audio so far is a turn."""


class Clear(ClientEvent, frozen=True, tag="input_audio_buffer.clear"):
    """Forget the audio so far."""


FromClient = Union[SessionUpdate, Append, Commit, Clear]

OF_CONVERSATIONS = frozenset(
    {
        "conversation.item.create",
        "conversation.item.delete",
        "conversation.item.retrieve",
        "conversation.item.truncate",
        "output_audio_buffer.clear",
        "response.cancel",
        "response.create",
    }
)
"""Known, and of no use in a transcription session."""


class InvalidEvent(Exception):
    """A client's event that cannot be taken. `code` is OpenAI's word for it, `event_id` the client's own."""

    def __init__(self, message: str, code: str, param: str = "", event_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.event_id = event_id


class _Loose(msgspec.Struct):
    """What can be said of an event that is wrong."""

    type: object = None
    event_id: object = None


_decoder: msgspec.json.Decoder[FromClient] = msgspec.json.Decoder(FromClient)
_loose_decoder = msgspec.json.Decoder(_Loose)
_PLACE = re.compile(r"^(.*?)(?: - at `\$\.?(.*)`)?$", re.DOTALL)


def read(frame: str | bytes) -> FromClient:
    """The client's event. Raises InvalidEvent."""
    try:
        event = _decoder.decode(frame)
    except msgspec.ValidationError as error:
        raise _fault(frame, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent(f"the event is not JSON: {error}", "invalid_json") from error
    if isinstance(event, Append) and len(event.audio) > APPEND_BYTES:
        message = f"the event has {len(event.audio)} bytes of audio; the limit is {APPEND_BYTES}"
        raise InvalidEvent(message, "audio_too_large", "audio", event.event_id)
    return event


def _fault(frame: str | bytes, reason: str) -> InvalidEvent:
    try:
        loose = _loose_decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return InvalidEvent("the event is no JSON object", "invalid_event")
    event_id = loose.event_id if isinstance(loose.event_id, str) else None
    known = sorted(tag for event in get_args(FromClient) if isinstance(tag := event.__struct_config__.tag, str))
    if loose.type is None:
        return InvalidEvent("the event has no type", "missing_required_parameter", "type", event_id)
    if not isinstance(loose.type, str):
        return InvalidEvent("the event's type is no string", "invalid_type", "type", event_id)
    if loose.type in OF_CONVERSATIONS:
        message = f"{loose.type} is for conversations; this is a transcription session"
        return InvalidEvent(message, "unsupported_event", "type", event_id)
    if loose.type not in known:
        message = f"there is no event {loose.type[:100]!r}; a client may send {', '.join(known)}"
        return InvalidEvent(message, "invalid_value", "type", event_id)
    message, param = placed(reason)
    missing = re.match(r"Object missing required field `(\w+)`", message)
    if missing:
        param = f"{param}.{missing[1]}".lstrip(".")
        return InvalidEvent(message, "missing_required_parameter", param, event_id)
    return InvalidEvent(message, "invalid_value", param, event_id)


def placed(reason: str) -> tuple[str, str]:
    """What msgspec finds wrong, and the path of the key that it is about."""
    found = _PLACE.match(reason)
    assert found is not None
    return found[1], found[2] or ""


# --- from the server --------------------------------------------------------------------------------------------------


class ServerEvent(msgspec.Struct, frozen=True, tag_field="type", kw_only=True):
    """Base of what the server says; no two have the same `event_id`."""

    event_id: str


class SessionCreated(ServerEvent, frozen=True, tag="session.created"):
    session: Session


class SessionUpdated(ServerEvent, frozen=True, tag="session.updated"):
    """The whole session as it is in force."""

    session: Session


class SpeechStartedEvent(ServerEvent, frozen=True, tag="input_audio_buffer.speech_started"):
    """`audio_start_ms` counts from the first audio of the session, and has the padding in it."""

    audio_start_ms: int
    item_id: str


class SpeechStoppedEvent(ServerEvent, frozen=True, tag="input_audio_buffer.speech_stopped"):
    """`audio_end_ms` has the silence in it that ended the turn."""

    audio_end_ms: int
    item_id: str


class Committed(ServerEvent, frozen=True, tag="input_audio_buffer.committed"):
    item_id: str
    previous_item_id: str | None


class Cleared(ServerEvent, frozen=True, tag="input_audio_buffer.cleared"):
    pass


class InputAudio(msgspec.Struct, frozen=True, tag_field="type", tag="input_audio"):
    transcript: str | None = None


class Item(msgspec.Struct, frozen=True, tag_field="type", tag="message"):
    """A turn of the client's audio."""

    id: str
    object: Literal["realtime.item"] = "realtime.item"
    status: Literal["completed"] = "completed"
    role: Literal["user"] = "user"
    content: tuple[InputAudio, ...] = (InputAudio(),)


class ItemAdded(ServerEvent, frozen=True, tag="conversation.item.added"):
    item: Item
    previous_item_id: str | None


class ItemDone(ServerEvent, frozen=True, tag="conversation.item.done"):
    item: Item
    previous_item_id: str | None


class TranscriptionDelta(
    ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.delta", kw_only=True
):
    """More of an item's transcript; together they are it."""

    item_id: str
    content_index: int = 0
    delta: str
    logprobs: Union[list[TokenLogprob], UnsetType] = UNSET


class TranscriptionPartial(
    ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.partial", kw_only=True
):
    """Ours, for clients that ask for it: what a live turn's deltas would go on with if nothing changed.

    Comes after each hearing, behind its delta, and replaces the one before; so does a delta, which may say the same.
    """

    item_id: str
    content_index: int = 0
    text: str


class TranscriptionCompleted(
    ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.completed", kw_only=True
):
    """An item's whole transcript. Those of different items come in any order."""

    item_id: str
    content_index: int = 0
    transcript: str
    usage: UsageDuration
    languages: list[SpokenLanguage]
    logprobs: Union[list[TokenLogprob], UnsetType] = UNSET


class FailureDetail(msgspec.Struct, frozen=True):
    type: str
    code: str | None
    message: str
    param: str | None


class TranscriptionFailed(
    ServerEvent, frozen=True, tag="conversation.item.input_audio_transcription.failed", kw_only=True
):
    item_id: str
    content_index: int = 0
    error: FailureDetail


class ErrorDetail(msgspec.Struct, frozen=True):
    """`event_id` is that of the client's event which caused it, where it had one."""

    type: str
    code: str | None
    message: str
    param: str | None
    event_id: str | None


class ErrorEvent(ServerEvent, frozen=True, tag="error"):
    """The session goes on, unless it says otherwise."""

    error: ErrorDetail


def error_detail(error: AudiodError | InvalidEvent, event_id: str | None = None) -> ErrorDetail:
    """`event_id` is the client's, where it is not in the error."""
    if isinstance(error, InvalidEvent):
        own = error.event_id or event_id
        return ErrorDetail("invalid_request_error", error.code, error.message, error.param or None, own)
    failure = failure_detail(error)
    return ErrorDetail(failure.type, failure.code, failure.message, failure.param, event_id)


def failure_detail(error: AudiodError) -> FailureDetail:
    """OpenAI has two types of errors here: the client's and the server's."""
    kind = "invalid_request_error" if error.http_status < 500 else "server_error"
    message = f"{error.message} (try: {error.hint})" if error.hint else error.message
    return FailureDetail(kind, error.code, message, error.param or None)
