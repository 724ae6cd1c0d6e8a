"""Long audio before a model that hears one chunk at a time, and may get stuck: chunks in, segments out.

Where audio is cut is speech.py's and chunks.py's, what the model makes of a chunk is the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field

import numpy as np

from audioproto.spacing import glue
from audioproto.types import PCM_RATE_IN
from audioproto.worker import Segment, Transcribe
from audioworker import alignment, chunks
from audioworker.engine import Audio, Cancelled
from audioworker.jobs import Jobs

SHORTEST_S = 0.1
"""Less holds no word, and a model makes one up."""

_SHORTEST_HALF_S = 2.0
"""A chunk whose text has no end is cut in two and heard again, down to this length."""

_TOKENS, _TOKENS_PER_S = 64, 25
"""More text than anybody says: fast speech has 8 tokens a second, 20 in scripts that a vocabulary cuts into bytes."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the model says of a chunk. `endless` if it came to no end; `language` is a code, or empty."""

    text: str
    language: str
    endless: bool = False
    tokens: list[int] = field(default_factory=list)
    avg_logprob: float = 0.0


Hear = Callable[[Audio, str], Said]
"""Puts a chunk before the model; also told the text before it."""


def most_tokens(chunk: Audio) -> int:
    """Of a text that has an end, for so much audio."""
    return _TOKENS + round(_TOKENS_PER_S * chunk.size / PCM_RATE_IN)


def transcribe(
    audio: Audio, places: Iterable[tuple[int, int]], request: Transcribe, hear: Hear, jobs: Jobs, cancelled: Cancelled
) -> Generator[Segment, None, str]:
    """A segment for each of the `places`, samples of `audio`, in which anything is said.

    Returns the language that most of the text is in. The times of words are estimates.
    """
    spoken: dict[str, int] = {}
    before = ""
    for begin, end in places:
        jobs.rest()
        for first, last, said in _heard(audio, begin, end, before, hear, jobs):
            text = glue(before, said.text) + said.text
            before = text
            spoken[said.language] = spoken.get(said.language, 0) + len(text)
            start_s, end_s = round(first / PCM_RATE_IN, 3), round(last / PCM_RATE_IN, 3)
            yield Segment(
                request.job,
                start_s,
                end_s,
                text,
                tokens=said.tokens,
                temperature=request.temperature,
                avg_logprob=said.avg_logprob,
                words=alignment.estimate(text, start_s, end_s) if request.words else [],
                words_estimated=request.words,
            )
        if cancelled():
            break
    return max(spoken, key=lambda language: spoken[language], default="")


def _heard(
    audio: Audio, begin: int, end: int, before: str, hear: Hear, jobs: Jobs
) -> Generator[tuple[int, int, Said], None, None]:
    """Where it is loud in a chunk and what is said there, or the same of its halves; nothing where nobody speaks."""
    chunk = np.nan_to_num(audio[begin:end], posinf=0.0, neginf=0.0)
    loud = chunks.loud(chunk)
    if loud is None or loud[1] - loud[0] < SHORTEST_S * PCM_RATE_IN:
        return
    said = hear(chunk, before)
    if said.endless and chunk.size > 2 * _SHORTEST_HALF_S * PCM_RATE_IN:
        middle = begin + chunks.halves(chunk)
        for half in ((begin, middle), (middle, end)):
            jobs.rest()
            for first, last, part in _heard(audio, *half, before, hear, jobs):
                before = part.text
                yield first, last, part
    elif said.text:
        yield begin + loud[0], begin + loud[1], said
