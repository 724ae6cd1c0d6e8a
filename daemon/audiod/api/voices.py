"""/v1/audio/voices and /v1/audio/voice_consents: voices that models have of their own, and those that clients store.

Recordings are decoded by media and checked here; how they are kept is audiod/voices.py's, who can speak with them the
catalogue's.
"""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal, Union

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType
from multipart import parse_options_header

from audiod.api import access, bodies, forms, recordings
from audiod.api.answers import json_answer
from audiod.api.forms import Form
from audiod.api.recordings import LEAST_AUDIBLE_S, LONGEST_S, RECORDING_BYTES, SHORTEST_SAMPLE_S
from audiod.api.services import SERVICES, STAGE, Services
from audiod.media.audio_memory import Held
from audiod.media.pool import Pcm
from audiod.models.catalogue import ModelEntry
from audiod.voices import AUDIO_RATE_HZ, Consent, StoredVoice
from audioproto.errors import BadRequest, ConsentNotFound, NotFound, PermissionDenied
from audioproto.types import Task, Voice, VoiceKind

Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\S", description="What people call it.")]
Language = Annotated[
    str, Meta(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*\Z", max_length=35, description="A BCP 47 tag, like en-US.")
]


# --- what clients send ------------------------------------------------------------------------------------------------


class VoiceSampleForm(msgspec.Struct, frozen=True):
    """A voice from a recording, which comes as the file `audio_sample` (1 to 60 s, at most 10 MiB).

    `language` and `transcript` are ours, not OpenAI's.
    """

    name: Name
    consent: Annotated[str, Meta(description="Id of the speaker's consent.")]
    type: Literal["audio_sample"] = "audio_sample"
    language: Union[Language, UnsetType] = UNSET
    transcript: Annotated[str, Meta(max_length=4096, description="What is said in the recording.")] = ""


class VoicePrompt(msgspec.Struct, frozen=True):
    """A voice from a description, as JSON or a form. It is kept; no model here speaks with one."""

    name: Name
    prompt: Annotated[str, Meta(max_length=4096, pattern=r"\S", description="A description of the voice.")]
    type: Literal["prompt"]
    model: Literal["auto", "2026-10-08"] = "auto"
    script_hint: Annotated[Union[str, None], Meta(description="Text for the voice to speak when it is made.")] = None


class ConsentForm(msgspec.Struct, frozen=True):
    """Somebody's consent to a voice of theirs, spoken in the file `recording` (at most 60 s and 10 MiB)."""

    name: Name
    language: Language


class ConsentUpdate(msgspec.Struct, frozen=True):
    """Another name for a consent."""

    name: Name


# --- what they are answered -------------------------------------------------------------------------------------------


class StoredVoiceObject(msgspec.Struct, frozen=True, tag_field="object", tag="audio.voice"):
    """A stored voice. What comes after `prompt` is ours, not OpenAI's."""

    id: str
    name: str
    created_at: int
    type: VoiceKind
    prompt: Union[str, UnsetType] = UNSET
    language: Union[str, UnsetType] = UNSET
    transcript: Union[str, UnsetType] = UNSET
    consent: Union[str, UnsetType] = UNSET
    duration: Annotated[Union[float, UnsetType], Meta(description="Seconds of its recording.")] = UNSET


class VoiceDeleted(msgspec.Struct, frozen=True, tag_field="object", tag="audio.voice.deleted"):
    """The voice is gone; the consent that it was made by is not."""

    id: str
    deleted: bool = True


class ConsentObject(msgspec.Struct, frozen=True, tag_field="object", tag="audio.voice_consent"):
    """A consent."""

    id: str
    name: str
    language: str
    created_at: int


class ConsentDeleted(msgspec.Struct, frozen=True, tag_field="object", tag="audio.voice_consent"):
    """The consent is gone; voices that were made by it are not."""

    id: str
    deleted: bool = True


class ConsentList(msgspec.Struct, frozen=True, tag_field="object", tag="list"):
    """A page of consents, the newest first. Ask for the next one with `after` = `last_id`."""

    data: list[ConsentObject]
    first_id: Union[str, None]
    last_id: Union[str, None]
    has_more: bool


class ListedVoice(msgspec.Struct, frozen=True):
    """A voice of a model's own (with `model`), or a stored one (with `type`, and the id of its consent)."""

    id: str
    name: str
    language: Union[str, UnsetType] = UNSET
    gender: Union[str, UnsetType] = UNSET
    model: Union[str, UnsetType] = UNSET
    type: Union[VoiceKind, UnsetType] = UNSET
    consent: Union[str, UnsetType] = UNSET


class VoiceList(msgspec.Struct, frozen=True):
    """All voices, as Kokoro-FastAPI and Speaches list them; with `?legacy=true` their ids alone."""

    voices: Sequence[Union[ListedVoice, str]]


# --- voices -----------------------------------------------------------------------------------------------------------


async def list_voices(request: web.Request) -> web.Response:
    """The voices of all usable speech models, and the stored ones for those who have a key."""
    services = request.app[SERVICES]
    found = [_embedded(entry, voice) for entry in services.library.usable(Task.SPEAK) for voice in entry.voices]
    if access.is_known(request):
        found += [
            ListedVoice(
                stored.id, stored.name, stored.language or UNSET, type=stored.kind, consent=stored.consent or UNSET
            )
            for stored in services.voices.voices.newest_first()
        ]
    is_legacy = request.query.get("legacy", "").lower() in ("true", "1")
    return json_answer(VoiceList([voice.id for voice in found] if is_legacy else found))


async def create_voice(request: web.Request) -> web.Response:
    """Store a voice, from a recording or from a description."""
    kind, _ = parse_options_header(request.headers.get("Content-Type", ""))
    if kind == "application/json":
        body = await bodies.read_json_body(request, request.app[SERVICES].config.server)
        return await _store_prompt(request, bodies.decode_json(body, _prompt_decoder))
    with request.app[SERVICES].audio_memory.hold() as held:
        form = await _read_form(request, held, "audio_sample")
        with form.upload:
            match form.text("type", VoiceKind.AUDIO_SAMPLE):
                case VoiceKind.PROMPT:
                    return await _store_prompt(request, forms.decode(form, VoicePrompt))
                case VoiceKind.AUDIO_SAMPLE:
                    return await _store_sample(request, form, forms.decode(form, VoiceSampleForm))
                case _:
                    raise BadRequest(f"type must be one of {', '.join(VoiceKind)}", param="type")


async def get_voice(request: web.Request) -> web.Response:
    """One voice, stored or a model's own."""
    services = request.app[SERVICES]
    if stored := services.voices.voices.records.get(request.match_info["voice"]):
        return json_answer(_describe(stored, in_full=True))
    return json_answer(_embedded(*_own(services, request.match_info["voice"])))


async def delete_voice(request: web.Request) -> web.Response:
    """Delete a stored voice; its consent stays."""
    services, voice = request.app[SERVICES], request.match_info["voice"]
    store = services.voices
    if not await asyncio.to_thread(store.remove, store.voices, voice):
        entry, _ = _own(services, voice)
        raise PermissionDenied(f"{voice} is a voice of {entry.id}'s own and cannot be deleted", param="voice_id")
    return json_answer(VoiceDeleted(voice))


async def preview_voice(request: web.Request) -> web.StreamResponse:
    """The recording that a stored voice was made from, as WAV."""
    services, voice = request.app[SERVICES], request.match_info["voice"]
    stored = services.voices.voices.records.get(voice)
    if stored is None:
        _own(services, voice)
    if stored is None or not stored.audio_bytes:
        raise NotFound(f"{voice} was made from no recording; POST /v1/audio/speech lets it speak", param="voice_id")
    file = services.voices.voices.audio_file(voice)
    if not await asyncio.to_thread(file.is_file):
        raise NotFound(f"the recording of {voice} is gone from the disk", hint="audioctl doctor", param="voice_id")
    return web.FileResponse(file, headers={"Content-Type": "audio/wav"})


async def _store_prompt(request: web.Request, asked: VoicePrompt) -> web.Response:
    store = request.app[SERVICES].voices

    def make(identity: str) -> StoredVoice:
        return StoredVoice(
            identity,
            asked.name.strip(),
            kind=VoiceKind.PROMPT,
            prompt=asked.prompt,
            model=asked.model,
            script_hint=asked.script_hint or "",
        )

    return json_answer(_describe(await asyncio.to_thread(store.add, store.voices, make)))


async def _store_sample(request: web.Request, form: Form, asked: VoiceSampleForm) -> web.Response:
    store = request.app[SERVICES].voices
    form.require_file()
    if asked.consent not in store.consents.records:
        raise ConsentNotFound(f"there is no consent {asked.consent[:100]!r}", param="consent")
    store.require_room(store.voices)
    audio, duration_s = await _read_recording(request, form, SHORTEST_SAMPLE_S, LEAST_AUDIBLE_S)

    def make(identity: str) -> StoredVoice:
        return StoredVoice(
            identity,
            asked.name.strip(),
            language=asked.language or "",
            audio_bytes=len(audio),
            duration_s=duration_s,
            kind=VoiceKind.AUDIO_SAMPLE,
            consent=asked.consent,
            transcript=asked.transcript.strip(),
        )

    return json_answer(_describe(await asyncio.to_thread(store.add, store.voices, make, audio)))


def _describe(stored: StoredVoice, in_full: bool = False) -> StoredVoiceObject:
    return StoredVoiceObject(
        stored.id,
        stored.name,
        stored.created_at,
        stored.kind,
        prompt=stored.prompt or UNSET,
        language=stored.language or UNSET,
        transcript=stored.transcript or UNSET,
        consent=(in_full and stored.consent) or UNSET,
        duration=(in_full and stored.duration_s) or UNSET,
    )


def _embedded(entry: ModelEntry, voice: Voice) -> ListedVoice:
    return ListedVoice(voice.id, voice.name or voice.id, voice.language or UNSET, voice.gender or UNSET, model=entry.id)


def _own(services: Services, voice: str) -> tuple[ModelEntry, Voice]:
    """The voice of that id which some usable model has of its own. Raises NotFound."""
    for entry in services.library.usable(Task.SPEAK):
        for own in entry.voices:
            if own.id == voice:
                return entry, own
    raise NotFound(f"there is no voice {voice[:100]!r}", hint="GET /v1/audio/voices", param="voice_id")


# --- consents ---------------------------------------------------------------------------------------------------------


async def create_consent(request: web.Request) -> web.Response:
    """Store a consent with its recording."""
    store = request.app[SERVICES].voices
    with request.app[SERVICES].audio_memory.hold() as held:
        form = await _read_form(request, held, "recording")
        with form.upload:
            asked = forms.decode(form, ConsentForm)
            form.require_file()
            store.require_room(store.consents)
            audio, duration_s = await _read_recording(request, form)
    make = partial(_new_consent, asked=asked, audio_bytes=len(audio), duration_s=duration_s)
    return json_answer(_describe_consent(await asyncio.to_thread(store.add, store.consents, make, audio)))


async def list_consents(request: web.Request) -> web.Response:
    """The consents, `limit` of them (20, at most 100) after the id `after`."""
    limit = request.query.get("limit", "20")
    if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:4]) <= 100):
        raise BadRequest("limit must be a whole number from 1 to 100", param="limit")
    try:
        found, has_more = request.app[SERVICES].voices.consents.page(request.query.get("after", ""), int(limit))
    except ValueError as error:
        raise BadRequest(f"after: {error}", param="after") from error
    data = [_describe_consent(consent) for consent in found]
    return json_answer(ConsentList(data, data[0].id if data else None, data[-1].id if data else None, has_more))


async def get_consent(request: web.Request) -> web.Response:
    """One consent."""
    consents = request.app[SERVICES].voices.consents
    return json_answer(_describe_consent(_found(consents.records.get(request.match_info["consent"]), request)))


async def update_consent(request: web.Request) -> web.Response:
    """Give a consent another name."""
    store = request.app[SERVICES].voices
    body = await bodies.read_json_body(request, request.app[SERVICES].config.server)
    asked = bodies.decode_json(body, _update_decoder)
    name = asked.name.strip()
    renamed = await asyncio.to_thread(store.rename, store.consents, request.match_info["consent"], name)
    return json_answer(_describe_consent(_found(renamed, request)))


async def delete_consent(request: web.Request) -> web.Response:
    """Delete a consent; voices that were made by it stay."""
    store, consent = request.app[SERVICES].voices, request.match_info["consent"]
    if not await asyncio.to_thread(store.remove, store.consents, consent):
        _found(None, request)
    return json_answer(ConsentDeleted(consent))


def _found(consent: Consent | None, request: web.Request) -> Consent:
    if consent is None:
        raise NotFound(f"there is no consent {request.match_info['consent'][:100]!r}", param="consent_id")
    return consent


def _new_consent(identity: str, asked: ConsentForm, audio_bytes: int, duration_s: float) -> Consent:
    return Consent(identity, asked.name.strip(), asked.language, audio_bytes, duration_s)


def _describe_consent(consent: Consent) -> ConsentObject:
    return ConsentObject(consent.id, consent.name, consent.language, consent.created_at)


# --- recordings -------------------------------------------------------------------------------------------------------

_prompt_decoder = msgspec.json.Decoder(VoicePrompt)
_update_decoder = msgspec.json.Decoder(ConsentUpdate)


async def _read_form(request: web.Request, held: Held, field: str) -> Form:
    request[STAGE] = "uploading"
    with recordings.naming(field):
        form = await forms.read_form(request, held, field, RECORDING_BYTES)
    request[STAGE] = ""
    return form


async def _read_recording(
    request: web.Request, form: Form, shortest_s: float = 0.0, audible_s: float = 0.0
) -> tuple[bytes, float]:
    """The form's file as it is stored, and its seconds. Raises BadAudio and AudioTooLong."""
    request[STAGE] = "decoding"
    media = request.app[SERVICES].media
    with recordings.naming(form.file_field), await media.decode(form.upload, AUDIO_RATE_HZ, LONGEST_S) as pcm:
        audio = await asyncio.to_thread(_as_wave, pcm, shortest_s, audible_s)
        duration_s = round(pcm.duration_s, 3)
    request[STAGE] = ""
    return audio, duration_s


def _as_wave(pcm: Pcm, shortest_s: float, audible_s: float) -> bytes:
    """A whole WAV file. Raises what recordings.check raises."""
    samples = recordings.check(pcm, shortest_s, audible_s)
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, pcm.rate_hz, pcm.samples, "NONE", ""))
        writer.writeframesraw(samples)
    return file.getvalue()
