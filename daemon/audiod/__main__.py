"""The `audiod` command: serve, install, runtime, models, check-config. Reads arguments, renders errors; no more.

Imports of each verb are its own, so that checking a file does not wait for the web framework.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from audiod import config as configuration
from audiod.api.auth import VARIABLE, Keys
from audiod.config import Config
from audioproto import __version__, process
from audioproto.control import Progress
from audioproto.errors import AudiodError, BadRequest

_STARTED = time.monotonic()


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="audiod", description="Speech models behind the OpenAI audio API.")
    root.add_argument("--version", action="version", version=f"audiod {__version__}")
    verbs = root.add_subparsers(dest="verb", required=True, metavar="VERB")
    serve = verbs.add_parser("serve", help="run the daemon until SIGTERM or Ctrl-C")
    _add_places(serve)
    serve.add_argument("--host", help="address to listen on (AUDIOD_HOST)")
    serve.add_argument("--port", help="port to listen on, 0 for any free one (AUDIOD_PORT)")
    serve.add_argument("--socket", help="path of the control socket (AUDIOD_SOCKET)")
    install = verbs.add_parser("install", help="build a model's runtime and fetch its weights")
    install.add_argument("model", nargs="*", help="models to install")
    install.add_argument("--all-embedded", action="store_true", help="all that need no GPU and no model hub")
    install.add_argument("--json", action="store_true", help="print progress and the outcome as JSON lines")
    _add_places(install)
    runtime = verbs.add_parser("runtime", help="list, build, try or remove the environments of engines' libraries")
    runtime.add_argument("action", choices=("list", "install", "verify", "remove"))
    runtime.add_argument("name", nargs="?", help="the runtime, but for list")
    models = verbs.add_parser("models", help="list, verify or remove models; install installs one")
    models.add_argument("action", choices=("list", "verify", "remove"))
    models.add_argument("name", nargs="?", help="the model, but for list")
    for verb in (runtime, models):
        verb.add_argument("--json", action="store_true", help="print JSON, progress as JSON lines")
        _add_places(verb)
    check = verbs.add_parser("check-config", help="say whether a configuration is right, and where not")
    check.add_argument("file", nargs="?", type=Path, help="default: the one that serve would read")
    check.add_argument("--json", action="store_true", help="print the whole configuration in force as JSON")
    return root


def _add_places(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--config", type=Path, help="configuration file (AUDIOD_CONFIG)")
    verb.add_argument("--state-dir", help="where models and runtimes are kept (AUDIOD_STATE_DIR)")


def read_config(arguments: argparse.Namespace) -> Config:
    """File, then environment, then command line. Raises ConfigInvalid."""
    given = {name: getattr(arguments, name.removeprefix("AUDIOD_").lower(), None) for name in configuration.SHORT_NAMES}
    overrides = {name: value for name, value in given.items() if value is not None}
    file = arguments.config or configuration.default_file(os.environ)
    return configuration.load(file, os.environ, overrides)


def serve(arguments: argparse.Namespace) -> int:
    from audiod import logs, systemd
    from audiod.app import Daemon

    # First of all, and out of the environment: no child of ours may take them for its own.
    sockets = systemd.inherited_sockets(os.environ)
    notifier = systemd.Notifier.from_environment(os.environ)
    config = read_config(arguments)
    logs.configure(config.logging.level, config.logging.format)

    def announce(urls: list[str]) -> None:
        took_s = time.monotonic() - _STARTED
        print(f"audiod {__version__} serves {', '.join(urls)} after {took_s:.2f} s")
        print(f"control socket {config.control.socket}: audioctl --socket {config.control.socket} status", flush=True)

    # Reads the disk, so before the event loop turns.
    daemon = Daemon(config, lambda: read_config(arguments), Keys.parse_variable(arguments.api_keys), sockets, notifier)
    try:
        asyncio.run(daemon.run(announce))
    except asyncio.CancelledError:  # asked to stop a second time
        return 130
    return 0


def install(arguments: argparse.Namespace) -> int:
    from audiod import install_command

    config = read_config(arguments)

    def work(say: Callable[[str], None]) -> str:
        install_command.run(
            arguments.model,
            all_embedded=arguments.all_embedded,
            catalogue_dir=config.catalogue_dir,
            places=config.places,
            say=say,
        )
        return f"{arguments.model[0]} is installed" if len(arguments.model) == 1 else ""

    return _told(arguments, work)


def runtime(arguments: argparse.Namespace) -> int:
    from audiod import runtime_command
    from audiod.models import catalogue

    config = read_config(arguments)
    if arguments.action == "list":
        found = runtime_command.runtimes(catalogue.load(config.catalogue_dir).values(), config.places)
        rows = [
            (it.runtime, it.torch or "-", it.path or ("outdated" if it.outdated else "not installed"))
            for it in found.runtimes
        ]
        print(msgspec.json.encode(found).decode() if arguments.json else _table(rows))
        return 0
    if not arguments.name:
        raise BadRequest(f"{arguments.action} which runtime?", hint="audiod runtime list")
    do = {
        "install": runtime_command.install_runtime,
        "verify": runtime_command.verify_runtime,
        "remove": runtime_command.remove_runtime,
    }[arguments.action]
    return _told(arguments, lambda say: do(arguments.name, config.places, say))


def models(arguments: argparse.Namespace) -> int:
    from audiod import runtime_command
    from audiod.models import catalogue, install
    from audiod.models.library import Library

    config = read_config(arguments)
    entries = catalogue.load(config.catalogue_dir)
    if arguments.action == "list":
        library = Library(entries, config.aliases, lambda entry: install.missing(entry, config.places))
        found = runtime_command.models(library, config.places)
        rows = [
            (it.model, it.task, "installed" if it.installed else f"lacks {it.missing}; try: {it.hint}")
            for it in found.models
        ]
        print(msgspec.json.encode(found).decode() if arguments.json else _table(rows))
        return 0
    if not arguments.name:
        raise BadRequest(f"{arguments.action} which model?", hint="audiod models list")
    do = {"verify": runtime_command.verify_model, "remove": runtime_command.remove_model}[arguments.action]
    return _told(arguments, lambda say: do(arguments.name, entries, config.places, say))


def _told(arguments: argparse.Namespace, work: Callable[[Callable[[str], None]], str]) -> int:
    """Do it, and print each line of progress and the outcome, which may be empty: as the daemon does, with --json."""

    def say(line: str) -> None:
        print(msgspec.json.encode(Progress(line)).decode() if arguments.json else line, flush=True)

    try:
        outcome = work(say)
    except AudiodError as error:
        if not arguments.json:
            raise
        print(msgspec.json.encode(Progress(error.message, error=error.body())).decode(), flush=True)
        return error.exit_status
    if arguments.json:
        print(msgspec.json.encode(Progress(outcome, done=True)).decode(), flush=True)
    elif outcome:
        print(outcome, flush=True)
    return 0


def _table(rows: Sequence[tuple[str, str, str]]) -> str:
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    return "\n".join(f"{first:<{widths[0]}}  {second:<{widths[1]}}  {third}" for first, second, third in rows)


def check_config(arguments: argparse.Namespace) -> int:
    from audiod.models import catalogue

    file = arguments.file or configuration.default_file(os.environ)
    config = configuration.load(file, os.environ)
    entries = catalogue.load(config.catalogue_dir)
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(config, enc_hook=str), indent=2))
    else:
        print(f"{file or 'built-in configuration'}: correct, {len(entries)} models in {config.catalogue_dir}")
    return 0


_VERBS = {"serve": serve, "install": install, "runtime": runtime, "models": models, "check-config": check_config}


def main() -> int:
    arguments = parser().parse_args()
    arguments.api_keys = process.take_variable(VARIABLE)
    verb = _VERBS[arguments.verb]
    try:
        return verb(arguments)
    except AudiodError as error:
        if getattr(arguments, "json", False):
            print(json.dumps({"error": msgspec.to_builtins(error.body())}), file=sys.stderr)
            return error.exit_status
        print(f"audiod: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  try: {error.hint}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
