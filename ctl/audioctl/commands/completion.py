"""`audioctl completion`: prints a script that makes a shell complete audioctl.

What the script says is in audioctl/completion.py.
"""

from __future__ import annotations

import argparse

from audioctl.client import Client
from audioctl.output import Output

SUMMARY = "print a completion script for a shell"
EXAMPLES = (
    ('eval "$(audioctl completion bash)"', "in ~/.bashrc"),
    ('audioctl completion zsh > "${fpath[1]}/_audioctl"', "once, for zsh"),
    ("audioctl completion fish > ~/.config/fish/completions/audioctl.fish", "once, for fish"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell")


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    from audioctl.completion import script

    out.line(script(arguments.shell).rstrip("\n"))
    return 0
