"""`audioctl voices`: voices made from recordings, stored in the daemon: over the HTTP API, as any client stores them.

Looks at no sound; what is wrong with a recording the daemon says. `voices say` is `say` with that voice.
"""

from __future__ import annotations

import argparse
import contextlib
import re
from pathlib import Path
from typing import Any

import msgspec

from audioctl.client import Client, decode
from audioctl.commands import say
from audioctl.http_api import HttpApi, connect
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
    ('audioctl voices say Anna "Oh no" -o oh.wav --emotion "sad 0.7"', "in a mood"),
    ("audioctl voices remove Anna", "the voice, its recording, and all that was made of it"),
)

COLUMNS = (Column("NAME", least=8), Column("ID"), Column("LANGUAGE"), Column("MADE FROM"))
SOURCES = {"audio_sample": "a recording", "prompt": "a description"}

_CONSENT = re.compile(r"cons_[0-9a-f]+")


class _Voice(msgspec.Struct, omit_defaults=True):
    """One of the daemon's list; `type` is empty for voices that models have of their own."""

    id: str
    name: str
    language: str = ""
    type: str = ""


class _Voices(msgspec.Struct):
    voices: list[_Voice]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        nargs="?",
        choices=("list", "add", "remove", "say"),
        default="list",
        help="list is what happens without",
    )
    parser.add_argument("voice", metavar="VOICE", nargs="?", help="its name; remove and say also take its id")
    parser.add_argument(
        "what", metavar="FILE|TEXT", nargs="?", help="add: the recording; say: the text, standard input without"
    )
    parser.add_argument(
        "--consent",
        metavar="FILE|ID",
        help="add: a recording of the speaker's consent, or the id of one that is stored; no voice is stored without",
    )
    parser.add_argument(
        "--language", metavar="TAG", help="add: what the speaker speaks, such as en-US; say: what the text is in"
    )
    parser.add_argument("--transcript", metavar="TEXT", help="add: what is said in the recording")
    parser.add_argument("-o", "--output", metavar="FILE", help="say: where to write it; - is standard output")
    say.add_options(parser)


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    action, voice = arguments.action, arguments.voice
    if action == "list":
        if voice is not None:
            raise BadRequest("list takes no voice", hint="audioctl voices")
        return _list(connect(arguments.url, client), out)
    if not voice:
        raise BadRequest(f"{action} which voice?", hint="audioctl voices --help")
    match action:
        case "add":
            return _add(arguments, connect(arguments.url, client), out)
        case "remove":
            return _remove(arguments, connect(arguments.url, client), out)
    if arguments.output is None:
        raise BadRequest("where is the sound to go?", hint="audioctl voices say VOICE TEXT -o FILE")
    arguments.text = "-" if arguments.what is None else arguments.what
    return say.run(arguments, client, out)


def _stored(api: HttpApi) -> list[_Voice]:
    return [voice for voice in decode(api.get("/audio/voices"), _Voices).voices if voice.type]


def _list(api: HttpApi, out: Output) -> int:
    voices = _stored(api)
    if out.json:
        out.document({"voices": voices})
    elif voices:
        rows = [[voice.name, voice.id, voice.language or "-", SOURCES.get(voice.type, voice.type)] for voice in voices]
        out.line("\n".join(out.table(COLUMNS, rows)))
    else:
        out.note("no voices are stored")
    return 0


def _add(arguments: argparse.Namespace, api: HttpApi, out: Output) -> int:
    """The consent first, for without one there is no voice; it does not stay where the voice is refused."""
    if arguments.what is None:
        raise BadRequest("which recording is the voice in?", hint="audioctl voices add NAME FILE --consent FILE")
    if not arguments.consent:
        raise BadRequest(
            "a voice is somebody's: --consent takes a recording in which they agree to its use, or a consent's id",
            hint="audioctl voices add NAME FILE --consent FILE",
        )
    named, consent = {"name": arguments.voice}, arguments.consent
    is_new = not _CONSENT.fullmatch(consent)
    if is_new:
        if not arguments.language:
            raise BadRequest("which language is the consent in?", hint="--language en-US")
        spoken = {**named, "language": arguments.language}
        consent = _made(api.post_file("/audio/voice_consents", spoken, Path(consent), "recording"))["id"]
    fields = {**named, "consent": consent}
    for name in ("language", "transcript"):
        if value := getattr(arguments, name):
            fields[name] = value
    try:
        voice = _made(api.post_file("/audio/voices", fields, Path(arguments.what), "audio_sample"))
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


def _remove(arguments: argparse.Namespace, api: HttpApi, out: Output) -> int:
    asked = arguments.voice
    stored = _stored(api)
    found = [voice for voice in stored if voice.id == asked]
    found = found or [voice for voice in stored if voice.name.casefold() == asked.casefold()]
    if not found:
        raise VoiceNotFound(f"no voice {asked!r} is stored", hint="audioctl voices")
    if len(found) > 1:
        ids = ", ".join(voice.id for voice in found)
        raise BadRequest(f"{len(found)} voices are called {asked!r}: {ids}", hint="audioctl voices remove ID")
    answer = api.delete(f"/audio/voices/{found[0].id}")
    if out.json:
        out.document(answer)
    else:
        out.note(f"{clean(found[0].name)} ({clean(found[0].id)}) is removed")
    return 0
