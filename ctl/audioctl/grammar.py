"""The command line's grammar as plain data, read off the parsers: for the shell completions and the manual.

The one place that looks into argparse; generates no text of its own.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

from audioctl import arguments, commands


class Word(NamedTuple):
    """An option or a positional argument.

    `flags` is empty for a positional. `value` is the metavar of what it takes, empty for a switch; `optional` says that
    the value may be left out, `required` that the word may not. `repeated` words may be given more than once. `choices`
    is empty where anything goes.
    """

    flags: tuple[str, ...]
    value: str
    optional: bool
    required: bool
    repeated: bool
    choices: tuple[str, ...]
    meaning: str


class Verb(NamedTuple):
    """A verb, or one of its actions: then the name has two words, as in `voices add`."""

    name: str
    summary: str
    options: tuple[Word, ...]
    positionals: tuple[Word, ...]
    examples: tuple[tuple[str, str], ...]
    actions: tuple[str, ...]


def verbs() -> list[Verb]:
    """Every verb, alphabetically, each followed by its actions; without the options that all of them have."""
    common = {word.flags for word in global_options()}
    found = []
    for name in commands.names():
        words = _words(arguments.verb_parser(name))
        options = tuple(word for word in words if word.flags and word.flags not in common)
        positionals = tuple(word for word in words if not word.flags)
        actions = tuple(commands.actions_of(name)) if " " not in name else ()
        if actions:
            meaning = f"what to do; {name} --help tells of each, and {actions[0]} is what happens without"
            positionals = (Word((), "|".join(actions), True, False, False, actions, meaning),)
        command = commands.named(name)
        found.append(Verb(name, command.summary, options, positionals, command.examples, actions))
    return found


def global_options() -> list[Word]:
    """Options that may stand before the verb; all but --version also after it."""
    return _words(arguments.top_parser())


def _words(parser: argparse.ArgumentParser) -> list[Word]:
    return [_word(action) for action in parser._actions]


def _word(action: argparse.Action) -> Word:
    choices = tuple(str(choice) for choice in action.choices or ())
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return Word(
        flags=tuple(action.option_strings),
        value="" if action.nargs == 0 else "|".join(choices) or metavar,
        optional=action.nargs in ("?", "*"),
        required=action.required and action.nargs not in ("?", "*"),
        repeated=action.nargs in ("+", "*") or isinstance(action, argparse._AppendAction),
        choices=choices,
        meaning=action.help or "",
    )
