"""Every error a user can meet: one tree, each with a stable code, its HTTP status and its exit status side by side.

Domain code raises these; it never speaks HTTP and never exits. `api/errors.py` and `audioctl` only render them.

    AudiodError
     +- BadRequest            the caller's fault, will never work as sent
     |   +- BadAudio, AudioTooLong, UnspeakableText, VoiceNotFound, VoiceNotSpoken, ConsentNotFound, UnsupportedTask
     |   +- StoreFull
     +- UploadTooLarge, UploadStalled
     +- ModelNotFound, ModelNotInstalled, ModelTooLarge, OutOfMemory
     +- Unauthorized, PermissionDenied, DaemonUnreachable
     +- ConfigInvalid
     |   +- DeviceNotFound
     +- Unavailable           passing: try again after `retry_after_s`
         +- QueueFull, QueueTimeout, Draining, ModelFailed, WorkerDied, ModelUnloaded, DeviceUnreadable,
            TranslatorUnavailable
     +- EngineFailed          the engine raised on this request
     +- TranslatorFailed      the chat endpoint refuses us, or its answers are none
     +- InstallFailed, StoreFailed, Interrupted
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as it travels over the control socket and the worker channel."""

    code: str
    message: str
    hint: str = ""
    param: str = ""
    retry_after_s: float | None = None
    position: int | None = None


class AudiodError(Exception):
    """Base of the tree.

    `hint` names the next command to type. `param` is the request field at fault. `retry_after_s` is seconds until
    another attempt makes sense, or None where no attempt will help. `position` is the place in the queue that the
    request had or would have had, from 1, or None where it is not about that.
    """

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    exit_status: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        param: str = "",
        retry_after_s: float | None = None,
        position: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param
        self.retry_after_s = retry_after_s
        self.position = position

    def body(self) -> ErrorBody:
        return ErrorBody(self.code, self.message, self.hint, self.param, self.retry_after_s, self.position)


class BadRequest(AudiodError):
    code = "invalid_request"
    http_status = 400
    exit_status = 2


class BadAudio(BadRequest):
    code = "invalid_audio"


class AudioTooLong(BadRequest):
    code = "audio_too_long"


class UnspeakableText(BadRequest):
    code = "unspeakable_text"


class VoiceNotFound(BadRequest):
    code = "voice_not_found"


class VoiceNotSpoken(BadRequest):
    """There is such a stored voice, but the model cannot speak with it."""

    code = "voice_not_spoken"


class ConsentNotFound(BadRequest):
    """A new voice names a consent that is not there."""

    code = "consent_not_found"


class StoreFull(BadRequest):
    """As many voices are stored as may be, or as much."""

    code = "store_full"


class UnsupportedTask(BadRequest):
    code = "unsupported_task"


class UploadTooLarge(AudiodError):
    code = "upload_too_large"
    http_status = 413
    exit_status = 2


class UploadStalled(AudiodError):
    """The client stopped sending in the middle of its request."""

    code = "upload_stalled"
    http_status = 408
    exit_status = 9


class NotFound(AudiodError):
    code = "not_found"
    http_status = 404
    exit_status = 4


class MethodNotAllowed(AudiodError):
    """`allowed` are the methods that the path takes."""

    code = "method_not_allowed"
    http_status = 405
    exit_status = 2
    allowed: Sequence[str] = ()


class ModelNotFound(NotFound):
    code = "model_not_found"


class ModelNotInstalled(NotFound):
    code = "model_not_installed"


class ModelTooLarge(AudiodError):
    code = "model_too_large"
    http_status = 507
    exit_status = 5


class OutOfMemory(AudiodError):
    """Memory ran out, on a device or the host, though by its size the model should fit."""

    code = "out_of_memory"
    http_status = 507
    exit_status = 5


class Unauthorized(AudiodError):
    code = "invalid_api_key"
    http_status = 401
    exit_status = 6


class PermissionDenied(AudiodError):
    code = "permission_denied"
    http_status = 403
    exit_status = 6


class ConfigInvalid(AudiodError):
    code = "config_invalid"
    http_status = 400
    exit_status = 7


class DeviceNotFound(ConfigInvalid):
    """The configuration names a device that this host does not have."""

    code = "device_not_found"


class DaemonUnreachable(AudiodError):
    code = "daemon_unreachable"
    http_status = 502
    exit_status = 8


class Unavailable(AudiodError):
    code = "unavailable"
    http_status = 503
    exit_status = 9


class QueueFull(Unavailable):
    code = "queue_full"


class QueueTimeout(Unavailable):
    code = "queue_timeout"


class Draining(Unavailable):
    code = "draining"


class ModelFailed(Unavailable):
    code = "model_failed"


class ModelUnloaded(Unavailable):
    code = "model_unloaded"


class WorkerDied(Unavailable):
    code = "worker_died"


class DeviceUnreadable(Unavailable):
    """A device, or its driver, does not say how its memory stands."""

    code = "device_unreadable"


class TranslatorUnavailable(Unavailable):
    """The chat endpoint that translates cannot be reached, is busy or too slow."""

    code = "translator_unavailable"


class TranslatorFailed(AudiodError):
    """The chat endpoint that translates refuses our requests, or answers nothing that could be used."""

    code = "translator_failed"
    http_status = 502
    exit_status = 1


class EngineFailed(AudiodError):
    code = "engine_failed"
    http_status = 500
    exit_status = 1


class InstallFailed(AudiodError):
    code = "install_failed"
    http_status = 500
    exit_status = 10


class StoreFailed(AudiodError):
    """What is kept on disk for clients could not be changed."""

    code = "store_failed"
    http_status = 507
    exit_status = 5


class Interrupted(AudiodError):
    code = "interrupted"
    http_status = 503
    exit_status = 130


def _tree(root: type[AudiodError]) -> dict[str, type[AudiodError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


def all_errors() -> dict[str, type[AudiodError]]:
    """Every class of the tree by its code."""
    return _tree(AudiodError)


def from_body(body: ErrorBody) -> AudiodError:
    """Rebuild the typed error from its wire form; an unknown code becomes the base class."""
    cls = all_errors().get(body.code, AudiodError)
    return cls(body.message, hint=body.hint, param=body.param, retry_after_s=body.retry_after_s, position=body.position)
