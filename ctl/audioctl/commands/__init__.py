"""The verbs: one file each, found by looking at the folder. A new verb is a new file.

Imports a verb's module only when it is asked for, so that no verb pays for another's imports.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, cast

from audioctl.client import Client
from audioctl.output import Output


class Command(Protocol):
    """What a file in this folder defines."""

    SUMMARY: str
    """One line, for the list of commands."""
    EXAMPLES: tuple[tuple[str, str], ...]
    """Command lines and what each does; shown by --help and in the manual."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace, client: Client, out: Output) -> int:
        """Do it and return the exit status. Raises AudiodError."""


class Action(NamedTuple):
    """What stands behind a word, and the grammar of what follows it: of a verb, or of one of the things it does.

    A verb that does several, with options of their own, has them in `ACTIONS`, by the words that follow it.
    """

    summary: str
    examples: tuple[tuple[str, str], ...]
    add_arguments: Callable[[argparse.ArgumentParser], None]


def verbs() -> list[str]:
    """All verbs in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def module_of(verb: str) -> Command:
    """The file of one of `verbs()`. Not called `load`: importing a verb binds its name in this package."""
    return cast(Command, importlib.import_module(f"{__name__}.{verb}"))


def actions_of(verb: str) -> Mapping[str, Action]:
    """What one of `verbs()` does, by the word that follows it; nothing where it is one thing."""
    actions: Mapping[str, Action] = getattr(module_of(verb), "ACTIONS", {})
    return actions


def names() -> list[str]:
    """All verbs, each followed by its actions: `voices`, `voices add`."""
    return [name for verb in verbs() for name in (verb, *(f"{verb} {action}" for action in actions_of(verb)))]


def named(name: str) -> Action:
    """One of `names()`."""
    verb, _, action = name.partition(" ")
    command = module_of(verb)
    return actions_of(verb)[action] if action else Action(command.SUMMARY, command.EXAMPLES, command.add_arguments)
