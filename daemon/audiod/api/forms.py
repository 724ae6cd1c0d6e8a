"""Multipart forms: one file, read into memory outside the heap, and text fields, wherever they come in the form.

Knows no endpoint; what a field may say is its handler's matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

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


@dataclass(slots=True)
class Form:
    """The multipart form as read: the file in memory outside the heap, and the text fields by name."""

    file_field: str
    upload: Upload
    fields: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    has_file: bool = False

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
            form.has_file |= name == form.file_field
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
