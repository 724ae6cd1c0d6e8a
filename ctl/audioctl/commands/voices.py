"""`audioctl voices`: voices made from recordings, stored in the daemon: over the HTTP API, as any client stores them.

Looks at no sound; what is wrong with a recording the daemon says. `voices say` is `say` with that voice. In OpenAI's
API a consent outlives its voices; here it goes with the last of them.
"""

from __future__ import annotations

import argparse
import contextlib
import re
from pathlib import Path
from typing import Any

import msgspec

from audioctl.client import Client, decode
from audioctl.commands import Action, say
from audioctl.http_api import HttpApi, add_url, connect
from audioctl.output import Column, Output, clean
from audioproto.errors import AudiodError, BadRequest, VoiceNotFound

SUMMARY = "store voices from recordings, list and remove them, speak with them"
EXAMPLES = (
    (
        "audioctl voices add Anna anna.wav --consent anna-agrees.wav --language en-US",
        "1 to 60 s of her speech, and a recording in which she agrees to it",
    ),
    ("audioctl voices", "all of them, with their ids"),
    ('audioctl voices say Anna "Good morning" -o morning.mp3', "the same as say --voice Anna"),
)

COLUMNS = (Column("NAME", least=8), Column("ID"), Column("LANGUAGE"), Column("MADE FROM"))
SOURCES = {"audio_sample": "a recording", "prompt": "a description", "consent": "nothing yet: a consent"}

ADD = "audioctl voices add NAME FILE --consent FILE --language TAG"

_CONSENT = re.compile(r"cons_[0-9a-f]+")


class _Voice(msgspec.Struct, omit_defaults=True):
    """One of the daemon's list; `type` is empty for voices that models have of their own."""

    id: str
    name: str
    language: str = ""
    type: str = ""
    consent: str = ""


class _Voices(msgspec.Struct):
    voices: list[_Voice]


class _Consent(msgspec.Struct):
    id: str
    name: str
    language: str


class _Consents(msgspec.Struct):
    data: list[_Consent]
    last_id: str | None
    has_more: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_url(parser)


def _add_to_add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("voice", metavar="NAME", help="what the voice is to be called")
    parser.add_argument("file", metavar="FILE", help="a recording of the speaker, 1 to 60 s")
    parser.add_argument(
        "--consent",
        metavar="FILE|ID",
        help="a recording of the speaker's consent, or the id of one that is stored; no voice is stored without",
    )
    parser.add_argument("--language", metavar="TAG", help="what the speaker speaks, such as en-US")
    parser.add_argument("--transcript", metavar="TEXT", help="what is said in the recording")
    add_url(parser)


def _add_to_remove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("voice", metavar="VOICE", help="its name or id; or the id of a consent")
    add_url(parser)


def _add_to_say(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("voice", metavar="VOICE", help="its name or id")
    say.add_text(parser)
    say.add_options(parser)


ACTIONS = {
    "list": Action("list stored voices, and consents that no voice was made by", (EXAMPLES[1],), add_arguments),
    "add": Action(
        "store a voice, and the speaker's consent to it",
        (
            EXAMPLES[0],
            (
                "audioctl voices add Calm calm.wav --consent cons_18a2b3c4d5e6f7081122334455667788",
                "another voice of somebody who has agreed already; `audioctl voices list --json` tells the id",
            ),
        ),
        _add_to_add,
    ),
    "remove": Action(
        "remove a voice, all that was made of it, and its consent where no other voice was made by that",
        (("audioctl voices remove Anna", "the voice, its recording and hers in which she agrees"),),
        _add_to_remove,
    ),
    "say": Action(
        "turn text into speech with a stored voice",
        (EXAMPLES[2], ('audioctl voices say Anna "Oh no" -o oh.wav --emotion "sad 0.7"', "in a mood")),
        _add_to_say,
    ),
}


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    match arguments.action:
        case "add":
            return _add(arguments, connect(arguments.url, client), out)
        case "remove":
            return _remove(arguments.voice, connect(arguments.url, client), out)
        case "say":
            return say.run(arguments, client, out)
    return _list(connect(arguments.url, client), out)


def _stored(api: HttpApi) -> list[_Voice]:
    return [voice for voice in decode(api.get("/audio/voices"), _Voices).voices if voice.type]


def _consents(api: HttpApi) -> list[_Consent]:
    found: list[_Consent] = []
    after = ""
    while True:
        page = decode(api.get(f"/audio/voice_consents?limit=100{after}"), _Consents)
        found += page.data
        if not page.has_more:
            return found
        after = f"&after={page.last_id}"


def _list(api: HttpApi, out: Output) -> int:
    consents = _consents(api)  # refused without a key, while of the voices some are told to anybody
    voices = _stored(api)
    if out.json:
        out.document({"voices": voices, "consents": consents})
        return 0
    in_use = {voice.consent for voice in voices}
    shown = voices + [_Voice(one.id, one.name, one.language, "consent") for one in consents if one.id not in in_use]
    if shown:
        rows = [[voice.name, voice.id, voice.language or "-", SOURCES.get(voice.type, voice.type)] for voice in shown]
        out.line("\n".join(out.table(COLUMNS, rows)))
    else:
        out.note("no voices are stored")
    return 0


def _add(arguments: argparse.Namespace, api: HttpApi, out: Output) -> int:
    """The consent first, for without one there is no voice; it does not stay where the voice is refused."""
    if not arguments.consent:
        raise BadRequest(
            "a voice is somebody's: --consent takes a recording in which they agree to its use, or a consent's id",
            hint=ADD,
        )
    named, consent = {"name": arguments.voice}, arguments.consent
    is_new = not _CONSENT.fullmatch(consent)
    if is_new:
        if not arguments.language:
            raise BadRequest("which language is the consent in?", hint=ADD)
        spoken = {**named, "language": arguments.language}
        consent = _made(api.post_file("/audio/voice_consents", spoken, Path(consent), "recording"))["id"]
    fields = {**named, "consent": consent}
    for name in ("language", "transcript"):
        if value := getattr(arguments, name):
            fields[name] = value
    try:
        voice = _made(api.post_file("/audio/voices", fields, Path(arguments.file), "audio_sample"))
    except AudiodError:
        if is_new:
            with contextlib.suppress(AudiodError):
                api.delete(f"/audio/voice_consents/{consent}")
        raise
    if out.json:
        out.document(voice)
    else:
        out.note(f"{clean(arguments.voice)} is stored")
        out.line(clean(voice["id"]))
    return 0


def _made(answer: bytes) -> dict[str, Any]:
    return decode(answer, dict[str, Any])


def _remove(asked: str, api: HttpApi, out: Output) -> int:
    consents = {one.id: one for one in _consents(api)}
    stored = _stored(api)
    if asked in consents:
        removed = {"consent": asked}
    else:
        voice = _one_of(stored, asked)
        api.delete(f"/audio/voices/{voice.id}")
        removed = {"voice": voice.id}
        out.note(f"{clean(voice.name)} ({clean(voice.id)}) is removed")
        if voice.consent in consents and not any(one.consent == voice.consent for one in stored if one is not voice):
            removed["consent"] = voice.consent
    if consent := removed.get("consent"):
        api.delete(f"/audio/voice_consents/{consent}")
        out.note(f"the consent of {clean(consents[consent].name)} ({consent}) is removed")
    if out.json:
        out.document(removed)
    return 0


def _one_of(stored: list[_Voice], asked: str) -> _Voice:
    """The voice of that id, or the only one of that name. Raises VoiceNotFound, BadRequest."""
    found = [voice for voice in stored if voice.id == asked]
    found = found or [voice for voice in stored if voice.name.casefold() == asked.casefold()]
    if not found:
        raise VoiceNotFound(f"no voice {asked!r} is stored", hint="audioctl voices")
    if len(found) > 1:
        ids = ", ".join(voice.id for voice in found)
        raise BadRequest(f"{len(found)} voices are called {asked!r}: {ids}", hint="audioctl voices remove ID")
    return found[0]
