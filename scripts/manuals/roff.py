"""Text in roff, man(7) macros: escapes that every page needs. Knows no page."""

from __future__ import annotations

_ESCAPES = (("\\", "\\e"), ("-", "\\-"), ("'", "\\(aq"), ('"', "\\(dq"), ("~", "\\(ti"), ("^", "\\(ha"), ("`", "\\(ga"))
"""The backslash first; the rest are characters that roff prints as something prettier, which nobody can paste."""


def escape(text: str) -> str:
    """Text that roff shows unchanged."""
    for character, name in _ESCAPES:
        text = text.replace(character, name)
    return f"\\&{text}" if text.startswith(".") else text


def sentence(comment: str) -> str:
    """A comment as a sentence of its own."""
    return f"{comment[:1].upper()}{comment[1:]}."
