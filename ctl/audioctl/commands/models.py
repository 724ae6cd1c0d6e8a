"""`audioctl models`: what the catalogue offers and what of it is installed; installs, verifies and removes it.

Fetches nothing itself: the daemon builds the runtime and fetches the weights, or without one the `audiod` program.
"""

from __future__ import annotations

import argparse

from audioctl.client import Client, decode
from audioctl.offline import Installer
from audioctl.output import Cell, Column, Output, clean, size
from audioctl.progress import follow
from audioproto.control import GetModels, ModelInfo, ModelList, Pull, Remove, Verify
from audioproto.errors import BadRequest, ModelNotFound, ModelNotInstalled

SUMMARY = "list the catalogue; install, verify or remove models"
EXAMPLES = (
    ("audioctl models", "every model that the daemon knows, installed or not"),
    ("audioctl models pull whisper-base hibari", "install two of them, with progress"),
    ("audioctl models verify whisper-base", "read its files again: are they what was fetched?"),
    ("audioctl models remove kokoro-82m", "free its space; refused while it is in memory"),
    ("audioctl models path whisper-base", "the directory that its files are in"),
    ("audioctl models --names", "names, one a line, as shell completion wants them"),
)

COLUMNS = (
    Column("MODEL", least=8),
    Column("TASK"),
    Column("ENGINE", least=6),
    Column("INSTALLED"),
    Column("LANGUAGES", least=9),
    Column("VOICES", right=True),
    Column("ALIASES", least=7),
)

LANGUAGES_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        nargs="?",
        choices=("list", "pull", "verify", "remove", "path"),
        default="list",
        help="list is what happens without",
    )
    parser.add_argument("models", metavar="MODEL", nargs="*", help="models; verify takes all installed without")
    parser.add_argument("--names", action="store_true", help="print names only")


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    client = Installer(client.path)
    action, names = arguments.action, arguments.models
    if action == "verify" and not names:
        names = [model.model for model in decode(client.call(GetModels()), ModelList).models if model.installed]
    elif action != "list" and not names:
        raise BadRequest(f"{action} which models?", hint="audioctl models")
    match action:
        case "pull":
            return follow({model: Pull(model) for model in names}, client, out, wait=True)
        case "verify":
            return follow({model: Verify(model) for model in names}, client, out, wait=True)
        case "remove":
            return follow({model: Remove(model) for model in names}, client, out, wait=True)
        case "path":
            return _paths(names, client, out)
    if names:
        raise BadRequest("list takes no model", hint="audioctl models list")
    body = client.call(GetModels())
    models = decode(body, ModelList).models
    if arguments.names:
        for model in models:
            out.line(clean(model.model))
    elif out.json:
        out.document(body)
    else:
        out.line("\n".join(render(models, out)))
    return 0


def _paths(names: list[str], client: Client, out: Output) -> int:
    """A line for each, or a JSON object by model. Raises ModelNotFound, ModelNotInstalled."""
    models = {model.model: model for model in decode(client.call(GetModels()), ModelList).models}
    found = {}
    for name in names:
        if name not in models:
            raise ModelNotFound(f"there is no model {name!r}", hint="audioctl models")
        if not models[name].path:
            hint = models[name].hint or "its weights come with its runtime: audioctl runtime"
            raise ModelNotInstalled(f"there are no files of {name}", hint=hint)
        found[name] = models[name].path
    if out.json:
        out.document(found)
    else:
        out.line("\n".join(clean(path) for path in found.values()))
    return 0


def render(models: list[ModelInfo], out: Output) -> list[str]:
    """The table, and below it how to get what is not installed, and terms that are not those of open source."""
    lines = out.table(COLUMNS, [_row(model) for model in models])
    for model in models:
        if not model.installed:
            lacking = f"lacks {clean(model.missing)}" if model.missing else "is not installed"
            download = f", {size(model.download_bytes)} to fetch" if model.download_bytes else ""
            fix = clean(model.hint or f"audioctl models pull {model.model}")
            lines += ["", f"{clean(model.model)} {lacking}{download}", f"  try: {fix}"]
    for model in models:
        if model.licence_notices:
            lines += ["", f"{clean(model.model)} is not open source:"]
            lines += [f"  {clean(notice.name)}: {clean(notice.url)}" for notice in model.licence_notices]
    return lines


def _row(model: ModelInfo) -> list[str | Cell]:
    return [
        model.model,
        model.task,
        model.engine,
        Cell("yes", "green") if model.installed else Cell("no", "yellow"),
        _languages(model.languages),
        str(len(model.voices)) if model.voices else "-",
        " ".join(model.aliases) or "-",
    ]


def _languages(languages: list[str]) -> str:
    more = len(languages) - LANGUAGES_SHOWN
    return " ".join([*languages[:LANGUAGES_SHOWN], *([f"+{more}"] if more > 0 else [])]) or "-"
