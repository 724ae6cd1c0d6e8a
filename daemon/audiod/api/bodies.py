"""Bodies of requests: read in pieces, bounded in size and in time, and taken to their end where they are refused.

Knows no endpoint; what is in a body is its handler's matter.
"""

from __future__ import annotations

import asyncio
import re
import string
from http import HTTPStatus
from typing import TypeVar

import msgspec
from aiohttp import web

from audiod.config import Server
from audiod.media.audio_memory import Held
from audiod.units import ByteSize, Duration
from audioproto.errors import BadRequest, UploadStalled, UploadTooLarge

JSON_BODY_BYTES = 1024 * 1024
"""Largest body of a request, but for the recordings in it."""

_OF_RECORDINGS = (string.ascii_letters + string.digits + "+/=\\").encode()
"""What base64 in JSON consists of: some write `/` as `\\/`, or break lines. Nothing that takes long to decode does."""

READ_BYTES = 256 * 1024
"""Most that is read at once."""

_ASKED: web.RequestKey[bool] = web.RequestKey("asked", bool)
"""Set once the client has been asked for its body, where it waits for that."""

_PROGRESS_BYTES = 1024
"""Less than this within `server.upload_stall` counts as standing still, or a byte a minute would never end."""

_QUOTED = 200
"""Characters."""

T = TypeVar("T")


def seconds(limit: Duration) -> float | None:
    """As asyncio's timeouts want it: None where the time never comes."""
    return None if limit < 0 else float(limit)


class Body:
    """A body as it comes; of one longer than `limit_bytes`, `too_large` is raised.

    A client that waits to be asked for its body (`Expect: 100-continue`) is asked by the first `read`, so that one that
    is refused before has sent nothing.
    """

    def __init__(self, request: web.Request, limit_bytes: int, stall: Duration, too_large: UploadTooLarge) -> None:
        self._request = request
        self._limit_bytes = limit_bytes
        self._too_large = too_large
        self._stall_s = seconds(stall)
        self._read_bytes = 0
        self._progress_bytes = 0
        self._deadline: float | None = None

    def refuse_early(self) -> None:
        """Raise `too_large` at once where the client says itself that it is."""
        if (self._request.content_length or 0) > self._limit_bytes:
            raise self._too_large

    async def read(self, count_bytes: int = READ_BYTES) -> bytes:
        """The next piece, empty at the end. Raises UploadStalled, `too_large`, and BadRequest for broken framing."""
        if self._read_bytes == 0:
            await _ask_for_it(self._request)
            self._restart_clock()
        try:
            async with asyncio.timeout_at(self._deadline):
                piece = await self._request.content.read(count_bytes)
        except TimeoutError as error:
            raise UploadStalled(
                f"the request stood still: of its body {self._read_bytes} bytes came, "
                f"and then less than {_PROGRESS_BYTES} within {self._stall_s:g} s"
            ) from error
        except web.RequestPayloadError as error:
            raise BadRequest(f"the body is malformed: {error}") from error
        self._read_bytes += len(piece)
        if self._read_bytes > self._limit_bytes:
            raise self._too_large
        self._progress_bytes += len(piece)
        if self._progress_bytes >= _PROGRESS_BYTES:
            self._restart_clock()
        return piece

    def _restart_clock(self) -> None:
        self._progress_bytes = 0
        if self._stall_s is not None:
            self._deadline = asyncio.get_running_loop().time() + self._stall_s


def _waits_to_be_asked(request: web.Request) -> bool:
    return request.headers.get("Expect", "").lower() == "100-continue" and _ASKED not in request


async def _ask_for_it(request: web.Request) -> None:
    if _waits_to_be_asked(request):
        request[_ASKED] = True
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # it is no part of the answer


async def when_read(request: web.Request) -> None:
    """aiohttp's `expect_handler` of routes that read a Body: asks for nothing yet."""


async def read_json_body(
    request: web.Request, server: Server, limit_bytes: int = JSON_BODY_BYTES, held: Held | None = None
) -> bytearray:
    """A whole body of at most `limit_bytes`; what of it is beyond JSON_BODY_BYTES has to be base64, and is `held`.

    Raises what Body.read and Held.reserve raise: before any of it is read, where the client says how long it is.
    """
    most = ByteSize(limit_bytes)
    too_large = UploadTooLarge(f"the request's body is larger than this path takes, which is {most}")
    body = Body(request, limit_bytes, server.upload_stall, too_large)
    body.refuse_early()
    whole, reserved_bytes, other_bytes = bytearray(), 0, 0

    def reserve(size_bytes: int) -> None:
        nonlocal reserved_bytes
        if held is not None and size_bytes - JSON_BODY_BYTES > reserved_bytes:
            held.reserve(size_bytes - JSON_BODY_BYTES - reserved_bytes)
            reserved_bytes = size_bytes - JSON_BODY_BYTES

    reserve(request.content_length or 0)
    while piece := await body.read():
        reserve(len(whole) + len(piece))
        whole += piece
        other_bytes += len(piece.translate(None, _OF_RECORDINGS))
        if other_bytes > JSON_BODY_BYTES:
            most = ByteSize(JSON_BODY_BYTES)
            raise UploadTooLarge(f"the request's body has more than {most} beside recordings in base64")
    return whole


def decode_json(body: bytes | bytearray | str, decoder: msgspec.json.Decoder[T]) -> T:
    """A JSON body as the decoder's type, a Struct. Raises BadRequest, naming the field where one is at fault."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message = _shortened(str(error))
        field = field_of(message)
        if choices := _choices(decoder.type, field) if message.startswith("Invalid enum value") else "":
            message = f"{field} must be one of {choices}"
        raise BadRequest(message, param=field) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"what was sent is not JSON: {error}") from error
    except RecursionError as error:
        raise BadRequest("what was sent is nested too deeply") from error


def _shortened(message: str) -> str:
    """One of msgspec, which quotes what was sent, and ends with where it was."""
    return message if len(message) <= 2 * _QUOTED else f"{message[:_QUOTED]}...{message[-_QUOTED:]}"


def field_of(message: str) -> str:
    """The field that a msgspec message is about: "... - at `$.speed`" or "... missing required field `input`"."""
    found = re.search(r" - at `\$\.(\w+)", message) or re.search(r"missing required field `(\w+)`$", message)
    return found[1] if found else ""


def _choices(struct: object, field: str) -> str:
    """The values of an enum that is a field of `struct`."""
    kind = msgspec.inspect.type_info(struct)
    fields = kind.fields if isinstance(kind, msgspec.inspect.StructType) else ()
    for one in fields:
        alternatives = one.type.types if isinstance(one.type, msgspec.inspect.UnionType) else (one.type,)
        for alternative in alternatives:
            if one.encode_name == field and isinstance(alternative, msgspec.inspect.EnumType):
                return ", ".join(str(member.value) for member in alternative.cls)
    return ""


async def finish(request: web.Request, response: web.StreamResponse, server: Server) -> None:
    """Send a `response` that came before the whole body was read, then read and drop the rest of it.

    Many clients look for an answer only when they have sent everything, and find a reset in its place where the
    connection is closed before. As much is dropped as would have been taken, and then what aiohttp's own patience of
    10 s brings; who stands still is cut off.
    """
    if request.content.is_eof() or request.transport is None:
        return
    await response.prepare(request)
    await response.write_eof()
    if response.status != HTTPStatus.REQUEST_TIMEOUT and not _waits_to_be_asked(request):
        rest = Body(request, int(server.upload_limit), server.upload_stall, UploadTooLarge(""))
        try:
            while await rest.read():
                pass
            return
        except UploadTooLarge:
            return
        except (UploadStalled, BadRequest):
            pass
    request.protocol.force_close()
