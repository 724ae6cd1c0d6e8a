"""`audioctl runtime`: the environments of engines' libraries: which there are, and one built, tried or removed.

Builds nothing itself: the daemon does, or without one the `audiod` program.
"""

from __future__ import annotations

import argparse

from audioctl.client import Client, decode
from audioctl.offline import Installer
from audioctl.output import Cell, Column, Output, clean, size
from audioctl.progress import follow
from audioproto.control import GetRuntimes, InstallRuntime, RemoveRuntime, RuntimeInfo, RuntimeList, VerifyRuntime
from audioproto.errors import BadRequest

SUMMARY = "list, install, verify or remove engines' runtimes"
EXAMPLES = (
    ("audioctl runtime", "every runtime, which models need it, and its build of torch"),
    ("audioctl runtime install kokoro", "build it for this host's GPU and driver, with progress"),
    ("audioctl runtime verify", "import what each installed one has, and compute on each device"),
    ("audioctl runtime remove kokoro", "free its space; refused while a model that needs it is in memory"),
)

COLUMNS = (
    Column("RUNTIME", least=8),
    Column("INSTALLED"),
    Column("TORCH"),
    Column("SIZE", right=True),
    Column("MODELS", least=8),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        nargs="?",
        choices=("list", "install", "verify", "remove"),
        default="list",
        help="list is what happens without",
    )
    parser.add_argument("runtimes", metavar="RUNTIME", nargs="*", help="runtimes; verify takes all installed without")
    parser.add_argument("--names", action="store_true", help="print names only")


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    client = Installer(client.path)
    names: list[str] = arguments.runtimes
    match arguments.action:
        case "list":
            if names:
                raise BadRequest("list takes no runtime", hint="audioctl runtime list")
            body = client.call(GetRuntimes())
            runtimes = decode(body, RuntimeList).runtimes
            if arguments.names:
                for runtime in runtimes:
                    out.line(clean(runtime.runtime))
            elif out.json:
                out.document(body)
            else:
                out.line("\n".join(render(runtimes, out)))
            return 0
        case "verify":
            if not names:
                listed = decode(client.call(GetRuntimes()), RuntimeList).runtimes
                names = [runtime.runtime for runtime in listed if runtime.installed]
            return follow({name: VerifyRuntime(name) for name in names}, client, out, wait=True)
        case action:
            if not names:
                raise BadRequest(f"{action} which runtime?", hint="audioctl runtime list")
            request = InstallRuntime if action == "install" else RemoveRuntime
            return follow({name: request(name) for name in names}, client, out, wait=True)


def render(runtimes: list[RuntimeInfo], out: Output) -> list[str]:
    """The table, and below it what is not as it should be, with what to type."""
    lines = out.table(COLUMNS, [_row(runtime) for runtime in runtimes])
    for runtime in runtimes:
        name = clean(runtime.runtime)
        if runtime.outdated:
            lines += ["", f"{name} was built for another lock file or another Python"]
        elif runtime.installed and runtime.fits and runtime.fits != runtime.torch:
            lines += ["", f"{name} should have torch for {clean(runtime.fits)} here: {clean(runtime.reason)}"]
        elif not runtime.installed and runtime.reason and not runtime.fits:
            lines += ["", f"{name} cannot be installed: {clean(runtime.reason)}"]
            continue
        else:
            continue
        lines.append(f"  try: audioctl runtime install {name}")
    return lines


def _row(runtime: RuntimeInfo) -> list[str | Cell]:
    installed = Cell("yes", "green") if runtime.installed else Cell("outdated" if runtime.outdated else "no", "yellow")
    fetched = f"~{size(runtime.download_bytes)} to fetch" if runtime.download_bytes else "-"
    return [
        runtime.runtime,
        installed,
        runtime.torch or "-",
        size(runtime.disk_bytes) if runtime.installed else fetched,
        " ".join(runtime.models) or "-",
    ]
