"""How the end of a process is told."""

from __future__ import annotations

import signal

import pytest

from audiod.supervisor.worker import Ending
from audioproto.types import Death


@pytest.mark.parametrize(
    ("status", "words", "death"),
    [
        (0, "exited with status 0", Death.CRASHED),
        (3, "exited with status 3", Death.CRASHED),
        (-signal.SIGKILL, "was killed by SIGKILL", Death.KILLED),
        (-signal.SIGTERM, "was killed by SIGTERM", Death.KILLED),
        (-signal.SIGSEGV, "was killed by SIGSEGV", Death.CRASHED),
        (-signal.SIGABRT, "was killed by SIGABRT", Death.CRASHED),
        (-40, "was killed by signal 40", Death.CRASHED),
    ],
)
def test_an_ending_has_words_and_a_kind(status: int, words: str, death: Death) -> None:
    assert Ending.of(status) == Ending(words, death)
