"""The `audiod` command: serve, install, check-config. Reads arguments, sets up logging, renders errors; no more.

Imports of each verb are its own, so that checking a file does not wait for the web framework.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path

import msgspec

from audiod import config as configuration
from audiod.api.auth import VARIABLE, Keys
from audiod.config import Config
from audioproto import __version__, process
from audioproto.errors import AudiodError

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
    install.add_argument("--runtime", action="append", default=[], help="build only this engine's runtime")
    install.add_argument("--all-embedded", action="store_true", help="all that need no GPU and no model hub")
    _add_places(install)
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
    install_command.run(
        arguments.model,
        runtimes=arguments.runtime,
        all_embedded=arguments.all_embedded,
        catalogue_dir=config.catalogue_dir,
        places=config.places,
    )
    return 0


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


def main() -> int:
    arguments = parser().parse_args()
    arguments.api_keys = process.take_variable(VARIABLE)
    verb = {"serve": serve, "install": install, "check-config": check_config}[arguments.verb]
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
