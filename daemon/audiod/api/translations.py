"""POST /v1/audio/translations: an upload in any language, its words in English out, or in another language.

Checks the form; what is done then is recognition.py's.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from audiod.api import recognition
from audiod.api.demand import read_wishes
from audiod.api.forms import Form, decode
from audiod.api.recognition import Asked
from audioproto.worker import Transcribe


class TranslationForm(msgspec.Struct):
    """The fields beside `file`. Unknown ones are ignored, because real clients send them."""

    model: Annotated[str, Meta(description="A model that transcribes, or an alias of one.", examples=["whisper-1"])]
    prompt: Annotated[
        str, Meta(max_length=10_000, description="Text that could have been said before, in English.")
    ] = ""
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    temperature: Annotated[
        float, Meta(ge=0, le=1, description="0: the most likely text, and higher ones where that is nonsense.")
    ] = 0.0
    language: Annotated[str, Meta(description="Ours: what is spoken; recognised where left out.")] = ""
    translate_to: Annotated[str, Meta(description="Ours: code of the language to answer in, such as zh or zh-TW.")] = (
        "en"
    )
    subtitle_mode: Annotated[
        Literal["accurate", "fast"] | None,
        Meta(
            description="Ours: subtitles by times of words where the model does not translate itself, or by estimates."
        ),
    ] = None
    priority: Annotated[str | None, Meta(description="Ours: interactive or batch.")] = None
    keep_alive: Annotated[str | None, Meta(description="Ours: how long the model then stays loaded.")] = None
    park_keep_alive: Annotated[str | None, Meta(description="Ours: how long it then stays parked.")] = None
    timeout: Annotated[str | None, Meta(description="Ours: longest wait in the queue.")] = None


def check(form: Form) -> Asked:
    """Raises BadRequest naming the field at fault."""
    asked = decode(form, TranslationForm)
    language = "" if asked.language.lower() == "auto" else asked.language
    work = Transcribe(0, 0, language, recognition.context(asked.prompt), asked.temperature)
    wishes = read_wishes(asked.priority, asked.keep_alive, asked.park_keep_alive, asked.timeout)
    return Asked(
        asked.model,
        work,
        asked.response_format,
        wishes,
        translate_to=asked.translate_to,
        subtitle_mode=asked.subtitle_mode,
    )


async def translate(request: web.Request) -> web.StreamResponse:
    """Answer in the response_format asked for."""
    return await recognition.answer(request, check)
