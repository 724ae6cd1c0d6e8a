"""Multipart forms: one file, read into memory outside the heap, and text fields, wherever they come in the form.

Knows no endpoint; what a field may say is the matter of its handler's struct, as which `decode` reads the fields.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from audiod.api.bodies import READ_BYTES, Body
from audiod.api.services import SERVICES
from audiod.media.audio_memory import Held
from audiod.media.upload import Upload, too_large
from audioproto.errors import BadRequest

FIELD_BYTES = 64 * 1024
"""Longest text field of a form."""

FORM_BYTES = 1024 * 1024
"""What a form may have beside its file: text fields, boundaries, headers of parts."""

_MAX_PARTS = 1000

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(slots=True)
class Form:
    """The multipart form as read: the file in memory outside the heap, and the text fields by name."""

    file_field: str
    upload: Upload
    fields: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    has_file: bool = False
    is_named: bool = False
    """Whether the file came with a name, as files do, or like a text field."""

    def text(self, name: str, default: str = "") -> str:
        return self.fields[name][-1] if self.fields.get(name) else default

    def many(self, name: str) -> list[str]:
        """The values of an array: `name[]`, once for each, as the SDKs send it, or without the brackets."""
        return self.fields.get(f"{name}[]") or self.fields.get(name) or []

    def extension(self, name: str) -> str | None:
        return self.text(name) or None

    def require_file(self) -> None:
        """Raises BadRequest where there was none."""
        if not self.has_file:
            raise BadRequest(f"the form has no {self.file_field}", param=self.file_field)


async def read_form(request: web.Request, held: Held, file_field: str = "file", limit_bytes: int | None = None) -> Form:
    """Read the whole form; the caller closes `upload`. Fields may come before or after the file.

    `limit_bytes` of the file: `server.upload_limit` where there is none.

    Raises BadRequest for anything but a form, UploadTooLarge, UploadStalled, and what Held.reserve raises: before any
    of the body is read, where the client says how long it is.
    """
    kind, options = parse_options_header(request.headers.get("Content-Type", ""))
    if kind != "multipart/form-data":
        raise BadRequest("send multipart/form-data")
    server = request.app[SERVICES].config.server
    limit_bytes = int(server.upload_limit) if limit_bytes is None else limit_bytes
    body = Body(request, limit_bytes + FORM_BYTES, server.upload_stall, too_large(limit_bytes))
    body.refuse_early()
    form = Form(file_field, Upload(limit_bytes, held, request.content_length or 0))
    try:
        parser = PushMultipartParser(options.get("boundary", ""), max_segment_count=_MAX_PARTS)
        await _read_parts(parser.parse_async(body.read, READ_BYTES), form)
        form.upload.complete()
    except MultipartError as error:
        form.upload.close()
        raise BadRequest(f"the multipart body is malformed: {error}") from error
    except BaseException:
        form.upload.close()
        raise
    return form


async def _read_parts(events: AsyncIterator[MultipartSegment | bytes | bytearray | None], form: Form) -> None:
    """Each part comes as its headers, then its content in pieces, then None."""
    name, text, total_bytes = "", bytearray(), 0
    async for event in events:
        if isinstance(event, MultipartSegment):
            name, text = event.name or "", bytearray()
            if name == form.file_field:
                if form.has_file:
                    raise BadRequest(f"the form has more than one {name}", param=name)
                form.has_file, form.is_named = True, event.filename is not None
        elif event is None:
            if name not in ("", form.file_field):
                form.fields[name].append(_decoded(name, text))
        elif name == form.file_field:
            form.upload.write(event)
        else:
            text += event
            total_bytes += len(event)
            if len(text) > FIELD_BYTES:
                raise BadRequest(f"the field {name} is longer than {FIELD_BYTES} bytes", param=name)
            if total_bytes > FORM_BYTES:
                raise BadRequest(f"the form's fields are longer than {FORM_BYTES} bytes together")


def _decoded(name: str, text: bytearray) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the field {name} is not UTF-8", param=name) from error


# --- fields as a struct -----------------------------------------------------------------------------------------------


def decode(form: Form, kind: type[T]) -> T:
    """The text fields as `kind`. Those that it does not have, or that are empty, are as if they had not been sent.

    An array comes as `name[]` or `name`, once for each item; an object as `name[key]` for each of its keys, or as JSON.

    Raises BadRequest naming the field as it stands in the form.
    """
    sent: dict[str, Any] = {}
    for name, form_name in _names_of(kind).items():
        if form_name.endswith("[]"):
            value: Any = [text for text in form.many(name) if text]
        else:
            value = _object(form, name) or form.text(name)
        if value:
            sent[name] = value
    try:
        return msgspec.convert(sent, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), kind) from error


@cache
def _names_of(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The fields of `kind`, as they are called in a form."""
    found = msgspec.inspect.type_info(kind)
    assert isinstance(found, msgspec.inspect.StructType)
    return {
        field.encode_name: f"{field.encode_name}[]"
        if isinstance(_bare(field.type), msgspec.inspect.ListType)
        else field.encode_name
        for field in found.fields
    }


def _bare(kind: msgspec.inspect.Type) -> msgspec.inspect.Type:
    return _bare(kind.type) if isinstance(kind, msgspec.inspect.Metadata) else kind


def _object(form: Form, name: str) -> dict[str, Any]:
    """An object that came in pieces, or as JSON; empty where it did neither."""
    pieces = {
        key.removeprefix(f"{name}[").removesuffix("]"): texts[-1]
        for key, texts in form.fields.items()
        if key.startswith(f"{name}[") and key.endswith("]")
    }
    text = form.text(name).strip()
    if pieces or not text.startswith("{"):
        return pieces
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"{name} is no JSON: {error}", param=name) from error
    assert isinstance(found, dict)
    return found


def _refusal(message: str, kind: type[msgspec.Struct]) -> BadRequest:
    """Of msgspec's "Expected `float` - at `$.temperature`" or "... missing required field `model`"."""
    what, _, path = message.partition(" - at `$.")
    if not path:
        missing = message.rsplit("`", 2)[-2]
        return BadRequest(f"the form has no {missing}", param=missing)
    name = path.rstrip("`").partition("[")[0].partition(".")[0]
    form_name = _names_of(kind)[name]
    allowed = _allowed(kind, name)
    what = f"must be one of {', '.join(allowed)}" if allowed and "enum" in what else f"is wrong: {what}"
    return BadRequest(f"{form_name} {what}", param=form_name)


def _allowed(kind: type[msgspec.Struct], name: str) -> list[str]:
    """The texts that a field may be, or its items; none at all where there is no such list."""
    found = msgspec.inspect.type_info(kind)
    assert isinstance(found, msgspec.inspect.StructType)
    of_field = _bare(next(field.type for field in found.fields if field.encode_name == name))
    if isinstance(of_field, msgspec.inspect.ListType):
        of_field = _bare(of_field.item_type)
    return [str(value) for value in of_field.values] if isinstance(of_field, msgspec.inspect.LiteralType) else []
