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


def test_only_who_was_killed_outright_can_be_the_victim_of_the_kernel() -> None:
    """Another process of the group may have been; this one crashed all by itself."""
    assert Ending.of(-signal.SIGKILL, out_of_memory=True).death is Death.OUT_OF_MEMORY
    for status in (0, 3, -signal.SIGTERM, -signal.SIGSEGV):
        assert Ending.of(status, out_of_memory=True) == Ending.of(status)
