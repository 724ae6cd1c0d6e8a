"""The command line's grammar: global options, then a verb, then what the verb's own file adds.

Runs nothing. The manual and the shell completions are generated from the parsers made here.
"""

from __future__ import annotations

import argparse
import math
from typing import Any, NoReturn

from audioctl import commands
from audioproto import PROTOCOL_VERSION, __version__
from audioproto.errors import BadRequest

PROGRAM = "audioctl"
DESCRIPTION = "Watch and steer audiod: which speech models are where, what runs, and why something does not."
EXAMPLES = (
    ("audioctl status", "which models are loaded, parked or failed, and the memory they hold"),
    ("audioctl load whisper-base", "bring a model onto the device and wait until it is ready"),
    ('audioctl say "Good morning" -o morning.mp3', "turn text into speech"),
    ("audioctl transcribe talk.m4a", "turn a recording into text"),
    ("audioctl subtitles film.mkv", "subtitles beside a film"),
)
ENVIRONMENT = (
    ("AUDIOD_SOCKET", "control socket, where --socket is not given"),
    ("AUDIOD_URL", "base URL of the HTTP API for say, subtitles, transcribe and voices, where --url is not given"),
    ("AUDIOD_API_KEY", "key for the HTTP API, sent as a bearer token"),
    ("NO_COLOR", "if set and not empty, nothing is coloured"),
    ("COLUMNS", "width of tables, where it is not that of the terminal"),
)


HELP_WIDTH = 80
"""Given, for argparse else asks shutil for the terminal's at every option added, which costs more than all parsing."""


class Parser(argparse.ArgumentParser):
    """Raises BadRequest where argparse would print and exit, so that --json holds for wrong usage too."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=_formatter, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise BadRequest(message, hint=f"{self.prog} --help")


def parse(argv: list[str]) -> argparse.Namespace:
    """Arguments with `verb`, `json` and `socket` set beside the verb's own, and `action` where it has several.

    Raises BadRequest.

    `--help` and `--version` print and raise SystemExit(0), as argparse does.
    """
    top = top_parser()
    top.add_argument("verb", nargs="?")
    top.add_argument("rest", nargs=argparse.REMAINDER)
    given = top.parse_args(argv)
    if given.help:
        print(overview(), end="")
        raise SystemExit(0)
    if given.verb is None:
        raise BadRequest("which command?", hint=f"{PROGRAM} --help")
    if given.verb not in commands.verbs():
        raise BadRequest(f"there is no command {given.verb!r}", hint=_nearest(given.verb))
    rest, name = given.rest, given.verb
    del given.rest, given.help
    if actions := commands.actions_of(given.verb):
        given.action = rest.pop(0) if rest and not rest[0].startswith("-") else ""
        if given.action and given.action not in actions:
            message = f"there is no {given.verb} {given.action!r}; there are {', '.join(actions)}"
            raise BadRequest(message, hint=f"{PROGRAM} {given.verb} --help")
        name = f"{given.verb} {given.action}".rstrip()
    return verb_parser(name).parse_args(rest, given)


def interval_s(text: str) -> float:
    """Seconds between two looks: the `type` of an option."""
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise ValueError
    return seconds


interval_s.__name__ = "interval"  # argparse names the type in its message


def top_parser() -> Parser:
    """Options that stand before the verb."""
    parser = Parser(prog=PROGRAM, add_help=False)
    parser.add_argument("-h", "--help", action="store_true", help="show this help message and exit")
    parser.add_argument(
        "--version",
        action="version",
        version=f"{PROGRAM} {__version__} (protocol {PROTOCOL_VERSION})",
        help="show the version of audioctl alone and exit",
    )
    _add_global_options(parser)
    return parser


def verb_parser(name: str) -> Parser:
    """The whole grammar after one verb, or after one of its actions: of `commands.names()`."""
    command = commands.named(name)
    parser = Parser(
        prog=f"{PROGRAM} {name}",
        description=command.summary[0].upper() + command.summary[1:] + ".",
        epilog="examples:\n" + _two_lines(command.examples),
    )
    command.add_arguments(parser)
    _add_global_options(parser)
    if " " not in name and (actions := commands.actions_of(name)):
        rows = [(action, each.summary) for action, each in actions.items()]
        parser.usage = f"{parser.prog} [{'|'.join(actions)}] ..."
        more = f"`{parser.prog} ACTION --help` says more.\n"
        parser.epilog = f"actions:\n{_columns(rows)}\n{parser.epilog}\n{more}"
    return parser


def overview() -> str:
    """The text of `audioctl --help`."""
    parser = top_parser()
    parser.usage = f"{PROGRAM} [--socket PATH] [--json] COMMAND ..."
    parser.description = DESCRIPTION
    parser.epilog = "\n".join(
        (
            "commands:",
            _columns([(verb, commands.module_of(verb).SUMMARY) for verb in commands.verbs()]),
            "environment:",
            _columns(ENVIRONMENT),
            "examples:",
            _two_lines(EXAMPLES),
            f"`{PROGRAM} COMMAND --help` says more, and `man {PROGRAM}` all of it.",
        )
    )
    return parser.format_help()


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, width=HELP_WIDTH)


def _add_global_options(parser: Parser) -> None:
    parser.add_argument("--socket", metavar="PATH", help="control socket of the daemon")
    parser.add_argument("--json", action="store_true", help="print JSON, errors too, for scripts")


def _columns(rows: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> str:
    width = max(len(name) for name, _ in rows)
    return "".join(f"  {name:{width}}  {meaning}\n" for name, meaning in rows)


def _two_lines(examples: tuple[tuple[str, str], ...]) -> str:
    return "".join(f"  {command}\n      {meaning}\n" for command, meaning in examples)


def _nearest(verb: str) -> str:
    from difflib import get_close_matches

    return f"{PROGRAM} {(get_close_matches(verb, commands.verbs(), 1) or ['--help'])[0]}"
