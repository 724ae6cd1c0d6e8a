"""`audioctl subtitles`: a subtitle file beside each film or recording, over the HTTP API, a few at a time.

Decodes nothing and cuts no cues; that is the daemon's. A file that fails does not stop the others.
"""

from __future__ import annotations

import argparse
import queue
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from audioctl import files
from audioctl.client import Client
from audioctl.http_api import HttpApi, add_url, connect
from audioctl.output import Output, clean, duration
from audioproto.errors import AudiodError, BadRequest

SUMMARY = "write subtitles for films and recordings"
EXAMPLES = (
    ("audioctl subtitles film.mkv", "film.srt beside it"),
    ("audioctl subtitles --format vtt --output captions *.mp4", "WebVTT for a folder of films, into another"),
    ("audioctl subtitles --translate-to zh film.mkv", "film.zh.srt, in Chinese"),
)

FORMATS = ("srt", "vtt")
MODES = ("accurate", "fast")

MODEL = "whisper-1"
"""OpenAI's name, which the daemon's aliases lead to what is installed."""

AT_A_TIME = 2
"""One that the model listens to, and one that is sent and decoded meanwhile."""

MOST_AT_A_TIME = 32

_TAG = re.compile(r"[A-Za-z0-9]+([-_][A-Za-z0-9]+)*")


class _Task(NamedTuple):
    number: int
    media: Path
    target: Path


class _Result(NamedTuple):
    task: _Task
    body: bytes
    error: Exception | None
    took_s: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help="any film or sound that the daemon can decode")
    parser.add_argument("--format", choices=FORMATS, default="srt", help="default: srt")
    parser.add_argument("--language", metavar="CODE", help="what is spoken, such as en or zh; default: detected")
    parser.add_argument("--translate-to", metavar="CODE", help="language of the subtitles; default: what is spoken")
    parser.add_argument(
        "--mode", choices=MODES, help="times of words by the aligner, or in proportion; default: its own"
    )
    parser.add_argument("--model", metavar="MODEL", default=MODEL, help=f"name or alias (default: {MODEL})")
    parser.add_argument("--output", metavar="DIRECTORY", help="where to write them; default: beside each FILE")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    parser.add_argument(
        "--parallel",
        metavar="N",
        type=int,
        default=AT_A_TIME,
        help=f"most files at a time, up to {MOST_AT_A_TIME} (default: {AT_A_TIME})",
    )
    add_url(parser)


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    if not 1 <= arguments.parallel <= MOST_AT_A_TIME:
        raise BadRequest(f"--parallel must be 1 to {MOST_AT_A_TIME}", hint="audioctl subtitles --help")
    media = [Path(name) for name in arguments.files]
    targets = files.targets(media, arguments.output, _suffix(arguments.format, arguments.translate_to))
    api = connect(arguments.url, client)
    fields = {
        "model": arguments.model,
        "response_format": arguments.format,
        "language": arguments.language,
        "translate_to": arguments.translate_to,
        "subtitle_mode": arguments.mode,
    }
    asked = {name: value for name, value in fields.items() if value}
    tasks = [_Task(number, *pair) for number, pair in enumerate(zip(media, targets, strict=True), 1)]
    exit_status = written = 0
    for result in _results(api, asked, tasks, arguments.parallel, overwrite=arguments.overwrite):
        task, name = result.task, clean(str(result.task.media))
        try:
            if result.error:
                raise result.error
            files.write(task.target, [result.body], replace=arguments.overwrite)
        except AudiodError as error:
            out.error(error, name)
            exit_status = exit_status or error.exit_status
            continue
        written += 1
        target = clean(str(task.target))
        if out.json:
            out.json_line({"file": name, "format": arguments.format, "output": target})
        out.note(f"[{task.number}/{len(tasks)}] {target} ({duration(result.took_s)})")
    if written < len(tasks) > 1:
        out.note(f"audioctl: {written} of {len(tasks)} written")
    return exit_status


def _suffix(subtitle_format: str, translate_to: str | None) -> str:
    """As players look for it: `srt`, or `zh.srt`."""
    if translate_to is None:
        return subtitle_format
    if not _TAG.fullmatch(translate_to):
        raise BadRequest(f"{translate_to!r} is no language code", param="translate_to", hint="--translate-to zh")
    return f"{translate_to.replace('_', '-')}.{subtitle_format}"


def _results(
    api: HttpApi, fields: Mapping[str, str], tasks: list[_Task], at_a_time: int, *, overwrite: bool
) -> Iterator[_Result]:
    """What came of each task, as they end, at most `at_a_time` under way.

    The threads only wait for the network, and all files are written by the caller: Ctrl-C may leave at any time. They
    are daemons for that reason; a pool would wait for its answers.
    """
    waiting: queue.SimpleQueue[_Task] = queue.SimpleQueue()
    done: queue.SimpleQueue[_Result] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)

    def work() -> None:
        while True:
            try:
                task = waiting.get_nowait()
            except queue.Empty:
                return
            started = time.monotonic()
            body, failed = b"", None
            try:
                files.check_target(task.target, task.media, replace=overwrite)
                body = api.post_file("/audio/transcriptions", fields, task.media)
            except Exception as error:  # told by the main thread
                failed = error
            done.put(_Result(task, body, failed, time.monotonic() - started))

    for _ in range(min(at_a_time, len(tasks))):
        threading.Thread(target=work, daemon=True).start()
    for _ in tasks:
        yield done.get()
