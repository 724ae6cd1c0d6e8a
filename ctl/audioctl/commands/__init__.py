"""The verbs: one file each, found by looking at the folder. A new verb is a new file.

Imports a verb's module only when it is asked for, so that no verb pays for another's imports.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from typing import Protocol, cast

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


def verbs() -> list[str]:
    """All verbs in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def module_of(verb: str) -> Command:
    """The file of one of `verbs()`. Not called `load`: importing a verb binds its name in this package."""
    return cast(Command, importlib.import_module(f"{__name__}.{verb}"))
