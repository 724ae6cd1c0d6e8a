"""POST /v1/audio/transcriptions: an upload in any format that FFmpeg reads, its words out.

Checks the form; what is done then is recognition.py's.
"""

from __future__ import annotations

from typing import Annotated, Literal, Union

import msgspec
from aiohttp import web
from msgspec import Meta

from audiod.api import recognition
from audiod.api.demand import read_wishes
from audiod.api.forms import Form, decode
from audiod.api.recognition import Asked
from audioproto.errors import BadRequest
from audioproto.worker import Transcribe

_LONGEST_PROMPT = 10_000
_MOST_KEYWORDS = 1000


class VoiceActivityDetection(msgspec.Struct):
    """How the server is to find speech. Checked for OpenAI's sake: engines find it in their own ways."""

    type: Literal["server_vad"]
    prefix_padding_ms: Annotated[int, Meta(ge=0)] = 300
    silence_duration_ms: Annotated[int, Meta(ge=0)] = 200
    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5


class TranscriptionForm(msgspec.Struct):
    """The fields beside `file`. Unknown ones are ignored, because real clients send them."""

    model: Annotated[str, Meta(description="A model that transcribes, or an alias of one.", examples=["whisper-1"])]
    language: Annotated[str, Meta(description="ISO 639-1 code, tag or English name; recognised where left out.")] = ""
    languages: Annotated[
        list[str], Meta(max_length=100, description="Candidates, of which the likeliest is taken.")
    ] = []
    prompt: Annotated[
        str, Meta(max_length=_LONGEST_PROMPT, description="Text that could have been said before, for style and names.")
    ] = ""
    keywords: Annotated[
        list[str], Meta(max_length=_MOST_KEYWORDS, description="Words or phrases that may be heard.")
    ] = []
    hotwords: Annotated[str, Meta(max_length=_LONGEST_PROMPT, description="Keywords as Speaches takes them.")] = ""
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"] = "json"
    temperature: Annotated[
        float, Meta(ge=0, le=1, description="0: the most likely text, and higher ones where that is nonsense.")
    ] = 0.0
    timestamp_granularities: Annotated[
        list[Literal["word", "segment"]], Meta(description="Of verbose_json; segments where left out.")
    ] = []
    include: Annotated[
        list[Literal["logprobs"]], Meta(description="Log probabilities of tokens, in json, of models that give them.")
    ] = []
    stream: Annotated[
        bool | None, Meta(description="Answer json and text as server-sent events; the other formats ignore it.")
    ] = False
    chunking_strategy: Annotated[
        Union[Literal["auto"], VoiceActivityDetection, None],
        Meta(description="Checked and otherwise ignored: long audio is always cut where nobody speaks."),
    ] = None
    known_speaker_names: Annotated[list[str], Meta(description="Refused: nothing tells speakers apart here yet.")] = []
    known_speaker_references: Annotated[list[str], Meta(description="Refused, like known_speaker_names.")] = []
    subtitle_mode: Annotated[
        Literal["accurate", "fast"] | None,
        Meta(description="Ours: times of words heard by the model or the aligner, or in proportion to the text."),
    ] = None
    translate_to: Annotated[
        str, Meta(description="Ours: code of the language to answer in, such as en, zh or zh-TW.")
    ] = ""
    priority: Annotated[str | None, Meta(description="Ours: interactive or batch.")] = None
    keep_alive: Annotated[str | None, Meta(description="Ours: how long the model then stays loaded.")] = None
    park_keep_alive: Annotated[str | None, Meta(description="Ours: how long it then stays parked.")] = None
    timeout: Annotated[str | None, Meta(description="Ours: longest wait in the queue.")] = None


def check(form: Form) -> Asked:
    """Raises BadRequest naming the field at fault."""
    asked = decode(form, TranscriptionForm)
    _refuse_speakers(asked)
    logprobs = "logprobs" in asked.include
    if logprobs and asked.response_format != "json":
        raise BadRequest("include[]=logprobs needs response_format=json", param="include[]")
    wants_words = "word" in asked.timestamp_granularities and asked.response_format == "verbose_json"
    if asked.translate_to and wants_words:
        raise BadRequest("a translation has no times of words", param="timestamp_granularities[]")
    if asked.translate_to and logprobs:
        raise BadRequest("a translation has no log probabilities", param="include[]")
    work = Transcribe(
        0,
        0,
        "" if asked.language.lower() == "auto" else asked.language,
        recognition.context(asked.prompt),
        asked.temperature,
        words=wants_words,
        languages=asked.languages,
        keywords=asked.keywords + ([asked.hotwords] if asked.hotwords else []),
        logprobs=logprobs,
    )
    return Asked(
        asked.model,
        work,
        asked.response_format,
        read_wishes(asked.priority, asked.keep_alive, asked.park_keep_alive, asked.timeout),
        asked.timestamp_granularities or ("segment",),
        bool(asked.stream),
        asked.translate_to,
        asked.subtitle_mode,
    )


def _refuse_speakers(asked: TranscriptionForm) -> None:
    because = "no diariser is configured, so speakers cannot be told apart"
    if asked.response_format == "diarized_json":
        raise BadRequest(f"response_format=diarized_json: {because}", param="response_format")
    if asked.known_speaker_names:
        raise BadRequest(f"known_speaker_names[]: {because}", param="known_speaker_names[]")
    if asked.known_speaker_references:
        raise BadRequest(f"known_speaker_references[]: {because}", param="known_speaker_references[]")


async def transcribe(request: web.Request) -> web.StreamResponse:
    """Answer in the response_format asked for."""
    return await recognition.answer(request, check)
