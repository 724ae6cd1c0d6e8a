"""How a text is to sound: the `emotion` object of a speech request, and what plain `instructions` say of it.

Pure: the recording in an emotion is still text here. Models that have none are speaking.py's matter.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Union

import msgspec
from msgspec import Meta

from audioproto import emotions
from audioproto.errors import BadRequest
from audioproto.types import EMOTIONS
from audioproto.worker import Emotion

DESCRIPTION_CHARACTERS = 4096
"""Of a description in words; OpenAI's bound of `instructions`."""

Share = Annotated[float, Meta(ge=0, le=1)]


class EmotionMode(StrEnum):
    """Where the emotion comes from."""

    AUTO = "auto"
    AUDIO = "audio"
    VECTOR = "vector"
    TEXT = "text"


class EmotionFields(msgspec.Struct, forbid_unknown_fields=True):
    """How it is to sound; where nothing is said, as the voice's own recording does.

    `auto` goes by what is given. With `text` and none given, the emotion is read from the input.
    """

    mode: EmotionMode | None = EmotionMode.AUTO
    audio: Annotated[str | None, Meta(description="A recording that sounds so: base64, or a data URL of it.")] = None
    vector: Annotated[
        Union[dict[str, Share], Annotated[list[Share], Meta(min_length=len(EMOTIONS), max_length=len(EMOTIONS))], None],
        Meta(
            description=f"How much there is of {', '.join(EMOTIONS)}: by name, or all eight in this order.",
            examples=[{"happy": 0.6, "calm": 0.2}],
        ),
    ] = None
    text: Annotated[
        Annotated[str, Meta(max_length=DESCRIPTION_CHARACTERS)] | None,
        Meta(description="A description in words.", examples=["tired, but friendly"]),
    ] = None
    alpha: Annotated[Share | None, Meta(description="How much of it, 1 where left out.")] = None


_decoder = msgspec.json.Decoder(EmotionFields)


def read(fields: EmotionFields, param: str = "emotion") -> Emotion | None:
    """What the fields, which came in `param`, ask for, but for their recording; None for the voice's own emotion.

    Raises BadRequest where they contradict each other.
    """
    try:
        return _read(fields)
    except ValueError as error:
        raise BadRequest(f"{param}: {error}", param=param) from error


def _read(fields: EmotionFields) -> Emotion | None:
    vector = _vector(fields.vector)
    text = (fields.text or "").strip()
    given = [
        mode
        for mode, value in (
            (EmotionMode.AUDIO, fields.audio),
            (EmotionMode.VECTOR, vector),
            (EmotionMode.TEXT, text),
        )
        if value
    ]
    mode = fields.mode or EmotionMode.AUTO
    if mode is EmotionMode.AUTO and len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are given; there can be one of them")
    if mode is not EmotionMode.AUTO and given not in ([], [mode]):
        raise ValueError(f"the mode is {mode}, but {' and '.join(given)} given")
    if mode in (EmotionMode.AUDIO, EmotionMode.VECTOR) and not given:
        raise ValueError(f"the mode is {mode}, but there is no {mode}")
    if not given and mode is not EmotionMode.TEXT:
        return None
    return Emotion(vector=vector, text=text, alpha=1.0 if fields.alpha is None else fields.alpha)


def read_instructions(instructions: str) -> EmotionFields | None:
    """What plain instructions ask for: an emotion object in JSON, emotions by name, or else a description.

    None where they are empty. Raises BadRequest.
    """
    text = instructions.strip()
    if not text:
        return None
    try:
        if text.startswith("{"):
            return _decoder.decode(text)
        named = emotions.read(text)
    except msgspec.ValidationError as error:
        raise BadRequest(f"instructions are no emotion: {error}", param="instructions") from error
    except msgspec.DecodeError:
        named = None
    except BadRequest as error:
        raise BadRequest(f"instructions: {error.message}", param="instructions") from error
    return EmotionFields(text=text) if named is None else EmotionFields(vector=dict(named))


def _vector(given: dict[str, float] | list[float] | None) -> list[float]:
    """All eight, in their order; none at all where none are given."""
    if not given:
        return []
    if isinstance(given, list):
        return given
    if unknown := [name for name in given if name not in EMOTIONS]:
        raise ValueError(f"there is no {unknown[0][:40]!r}; there are {', '.join(EMOTIONS)}")
    return [given.get(name, 0.0) for name in EMOTIONS]
