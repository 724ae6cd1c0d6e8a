"""Engines made for tests, and the code that a zygote runs to find them beside the real ones."""

from __future__ import annotations

from pathlib import Path

from daemons import TOP


def code(directory: Path) -> Path:
    """A folder for `Launch.code`, in `directory`: audioproto and audioworker, with the engines that are here too.

    Its models.d holds the entries of those that a daemon can serve.
    """
    top = directory / "code"
    (top / "audioworker" / "engines").mkdir(parents=True)
    (top / "audioproto").symlink_to(TOP / "daemon" / "audioproto")
    for package in ("audioworker", "audioworker/engines"):
        for file in (TOP / "daemon" / package).glob("*.py"):
            (top / package / file.name).symlink_to(file)
    for file in Path(__file__).parent.glob("[a-z]*.py"):
        (top / "audioworker" / "engines" / file.name).symlink_to(file)
    (top / "models.d").symlink_to(Path(__file__).parent)
    return top
