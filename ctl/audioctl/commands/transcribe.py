"""`audioctl transcribe`: recordings to text, over the HTTP API, one after another.

Decodes nothing; what the daemon cannot read, it says. A file that fails does not stop the others.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audioctl import files
from audioctl.client import Client, decode
from audioctl.http_api import add_url, connect
from audioctl.output import Output, clean, duration
from audioproto.errors import AudiodError

SUMMARY = "turn recordings into text"
EXAMPLES = (
    ("audioctl transcribe talk.m4a", "the text to standard output"),
    ("audioctl transcribe --output-dir texts *.ogg", "a text file for each of many"),
    ("audioctl transcribe --language zh --model qwen3-asr-0.6b call.ogg", "where you know better than the detector"),
)

FORMATS = {"text": "txt", "json": "json", "verbose_json": "json", "srt": "srt", "vtt": "vtt"}
"""What may be asked for, and the suffix of the file that it makes."""

MODEL = "whisper-1"
"""OpenAI's name, which the daemon's aliases lead to what is installed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help="any sound or film that the daemon can decode")
    parser.add_argument("--model", metavar="MODEL", default=MODEL, help=f"name or alias (default: {MODEL})")
    parser.add_argument("--language", metavar="CODE", help="such as en or zh; default: detected")
    parser.add_argument("--format", choices=tuple(FORMATS), default="text", help="default: text")
    parser.add_argument("--output-dir", metavar="DIRECTORY", help="a file there for each, instead of standard output")
    add_url(parser)


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    recordings = [Path(name) for name in arguments.files]
    targets: Sequence[Path | None] = [None] * len(recordings)
    if arguments.output_dir is not None:
        targets = files.targets(recordings, arguments.output_dir, FORMATS[arguments.format])
    api = connect(arguments.url, client)
    fields = {"model": arguments.model, "response_format": arguments.format}
    if arguments.language:
        fields["language"] = arguments.language
    several = len(recordings) > 1
    exit_status = 0
    for number, (recording, target) in enumerate(zip(recordings, targets, strict=True), 1):
        name = clean(str(recording))
        started = time.monotonic()
        try:
            body = api.post_file("/audio/transcriptions", fields, recording)
            if target is not None:
                files.write(target, [body])
            _show(name, target, body, arguments.format, out, several=several)
        except AudiodError as error:
            out.error(error, name)
            exit_status = exit_status or error.exit_status
            continue
        if several or target is not None:
            out.note(f"[{number}/{len(recordings)}] {name} ({duration(time.monotonic() - started)})")
    return exit_status


def _show(name: str, target: Path | None, body: bytes, answer_format: str, out: Output, *, several: bool) -> None:
    if out.json:
        result = decode(body, dict[str, Any]) if "json" in answer_format else body.decode(errors="replace")
        document = {"file": name, "format": answer_format}
        out.json_line({**document, "result": result} if target is None else {**document, "output": str(target)})
    elif target is None:
        if several:
            out.line(f"==> {name} <==")
        out.line(body.decode(errors="replace").rstrip("\n"))
