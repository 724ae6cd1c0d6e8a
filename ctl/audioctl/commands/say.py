"""`audioctl say`: text to a sound file, over the HTTP API.

Plays nothing and decodes nothing; the file holds the daemon's bytes.
"""

from __future__ import annotations

import argparse
import os
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from audioctl import files
from audioctl.client import Client
from audioctl.http_api import HttpApi, add_url, connect
from audioctl.output import Output, size
from audioproto import emotions
from audioproto.errors import BadRequest

SUMMARY = "turn text into speech"
EXAMPLES = (
    ('audioctl say "Good morning" -o morning.mp3', "the format follows from the name"),
    ("audioctl say --voice zf_xiaobei --speed 1.2 -o book.opus < chapter.txt", "read the text from a file"),
    (
        'audioctl say "Good morning" --voice Anna --emotion "happy 0.6" -o morning.mp3',
        "a stored voice, and how",
    ),
    ('audioctl say "Good morning" -o - | aplay', "a WAV to standard output"),
)

FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
SUFFIXES = {"ogg": "opus", "oga": "opus"}
"""Beside the formats' own names: Opus comes in an Ogg container."""

MODEL = "tts-1"
VOICE = "alloy"
"""OpenAI's names, which the daemon's aliases lead to what is installed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_text(parser)
    parser.add_argument("--voice", metavar="VOICE", default=VOICE, help=f"who says it (default: {VOICE})")
    add_options(parser)


def add_text(parser: argparse.ArgumentParser) -> None:
    """What to say, and where to."""
    parser.add_argument(
        "text", metavar="TEXT", nargs="?", default="-", help="what to say; - or nothing: standard input"
    )
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="where to write it; - is standard output")


def add_options(parser: argparse.ArgumentParser) -> None:
    """How to say it: also the options of `voices say`."""
    parser.add_argument("--model", metavar="MODEL", default=MODEL, help=f"name or alias (default: {MODEL})")
    parser.add_argument("--language", metavar="TAG", help="what the text is in, where text and voice do not show it")
    parser.add_argument(
        "--emotion", metavar="WORDS", help="such as 'happy 0.6, calm 0.2', or a description; not for every model"
    )
    parser.add_argument("--emotion-from", metavar="FILE", help="a recording that sounds as it should")
    parser.add_argument("--seed", metavar="NUMBER", type=int, help="equal numbers make equal sound")
    parser.add_argument("--speed", metavar="FACTOR", type=float, help="0.25 to 4, where 1 is the voice's own")
    parser.add_argument("--format", choices=FORMATS, help="default: from FILE's suffix; wav for standard output")
    add_url(parser)


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    sound_format = arguments.format or _format_of(arguments.output)
    if arguments.output == "-" and out.terminal:
        raise BadRequest("sound does not belong on a terminal", hint="audioctl say TEXT -o FILE")
    text = _text(sys.stdin.buffer.read() if arguments.text == "-" else os.fsencode(arguments.text))
    if not text.strip():
        raise BadRequest("there is no text to say", hint='audioctl say "Good morning" -o morning.mp3')
    fields: dict[str, Any] = {
        "model": arguments.model,
        "voice": arguments.voice,
        "input": text,
        "response_format": sound_format,
    }
    if arguments.language:
        fields["language"] = arguments.language
    if arguments.speed is not None:
        fields["speed"] = arguments.speed
    if arguments.seed is not None:
        fields["seed"] = arguments.seed
    if emotion := _emotion(arguments):
        fields["emotion"] = emotion
    api = connect(arguments.url, client)
    if api.is_audiod and sys.stderr.isatty() and arguments.output != "-" and not out.json:
        sound = _followed(api, fields, out)
    else:
        sound = api.post_json("/audio/speech", fields)
    if arguments.output == "-":
        for block in sound:
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
        return 0
    written = files.write(Path(arguments.output), sound)
    if out.json:
        out.document({"output": arguments.output, "format": sound_format, "bytes": written})
    else:
        out.note(f"{arguments.output}: {size(written)}")
    return 0


def _followed(api: HttpApi, fields: Mapping[str, Any], out: Output) -> Iterator[bytes]:
    """The sound as it comes, and for whoever looks on a line for each part of a long text."""
    told = 0
    for event in api.post_for_events("/audio/speech", {**fields, "stream_format": "sse", "progress": True}):
        if audio := event.get("audio"):
            yield b64decode(audio)
        elif event.get("parts", 0) > 1 and event["part"] > told:
            told = event["part"]
            out.note(f"part {told} of {event['parts']}")


def _emotion(arguments: argparse.Namespace) -> dict[str, Any]:
    """The emotion object of the request, empty where there is none. Raises BadRequest."""
    if arguments.emotion and arguments.emotion_from:
        raise BadRequest("--emotion and --emotion-from: which of them?")
    if arguments.emotion_from:
        try:
            audio = Path(arguments.emotion_from).read_bytes()
        except OSError as error:
            raise BadRequest(f"cannot read {arguments.emotion_from}: {error.strerror}") from error
        return {"audio": b64encode(audio).decode()}
    if not arguments.emotion:
        return {}
    vector = emotions.read(arguments.emotion)
    return {"text": arguments.emotion} if vector is None else {"vector": vector}


def _format_of(output: str) -> str:
    if output == "-":
        return "wav"
    suffix = Path(output).suffix[1:].lower()
    sound_format = SUFFIXES.get(suffix, suffix)
    if sound_format not in FORMATS:
        raise BadRequest(f"which format is {output!r} to have?", hint=f"--format {'|'.join(FORMATS)}")
    return sound_format


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest(
            "the text is not UTF-8", hint="iconv -f GB18030 -t UTF-8 FILE | audioctl say -o ..."
        ) from error
