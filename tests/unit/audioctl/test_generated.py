"""The manual and the shell completions are what the parsers say today, and the shells can read them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[3]
COMPLETION = TOP / "packaging" / "completion"


def test_the_manual_and_the_completions_are_up_to_date() -> None:
    checked = subprocess.run([sys.executable, TOP / "scripts" / "man", "--check"], capture_output=True, text=True)
    assert checked.stderr == ""
    assert checked.returncode == 0


@pytest.mark.parametrize(
    ("shell", "check", "script"),
    [("bash", "-n", "audioctl.bash"), ("zsh", "-n", "_audioctl"), ("fish", "--no-execute", "audioctl.fish")],
)
def test_a_shell_can_read_its_completions(shell: str, check: str, script: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    checked = subprocess.run([program, check, COMPLETION / script], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def complete(*words: str) -> list[str]:
    """What bash offers for the last of `words`."""
    quoted = " ".join(f"'{word}'" for word in words)
    completed = subprocess.run(
        ["bash", "--norc", "-c", f'. {COMPLETION}/audioctl.bash; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; '
         '_audioctl; printf "%s\\n" "${COMPREPLY[@]}"'],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return completed.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["audioctl", "un"], ["undrain", "unload"]),
        (["audioctl", "--socket", "/run/x", "--json", "un"], ["undrain", "unload"]),
        (["audioctl", "unload", "--f"], ["--force"]),
        (["audioctl", "completion", ""], ["bash", "zsh", "fish"]),
        (["audioctl", "say", "hello", "--format", "m"], ["mp3"]),
        (["audioctl", "transcribe", "--format", "v"], ["verbose_json", "vtt"]),
        (["audioctl", "config", "c"], ["check"]),
        (["audioctl", "config", "check", str(COMPLETION / "audioctl.f")], [str(COMPLETION / "audioctl.fish")]),
        (["audioctl", "say", "--voice", ""], []),
        (["audioctl", "voices", ""], ["list", "add", "remove", "say"]),
        (["audioctl", "voices", "add", "--co"], ["--consent"]),
        (["audioctl", "voices", "add", "Anna", str(COMPLETION / "audioctl.f")], [str(COMPLETION / "audioctl.fish")]),
        (["audioctl", "voices", "remove", "--co"], []),
        (["audioctl", "voices", "say", "--format", "m"], ["mp3"]),
    ],
)
def test_bash_completes_verbs_options_choices_and_files(words: list[str], offered: list[str]) -> None:
    assert complete(*words) == offered
