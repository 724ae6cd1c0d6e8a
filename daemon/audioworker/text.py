"""Makes written text speakable: reduces markup to its words, drops what no voice can say, spaces out long numbers.

Pure and language-neutral; where sentences end is audioproto/sentences.py's, pronunciation the engines' own affair.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterator

from audioproto.sentences import HAN, KANA, halves

LONGEST_WORD = 50
"""Letters of one unbroken run that are spoken; the longest word in English dictionaries has 45. Six hundred times the
letter A once made 91 s of audio."""

_LETTER = "A-Za-z\u00c0-\u024f"
_FULL_WIDTH = {0xFEE0 + code: code for code in range(0x30, 0x7B) if chr(code).isalnum()}

# Every repetition below is bounded or stops at its own opening mark, so that no text takes quadratic time.
_UNSPOKEN_HTML = re.compile(r"<!--.{0,1000}?-->|<(script|style)\b[^<>]{0,200}>.{0,3000}?</\1\s*>", re.DOTALL | re.I)
_AUTOLINK = re.compile(r"<((?:https?|mailto):[^<>\s]{1,2000})>")
_TAG = re.compile(
    r"</?([A-Za-z][\w:-]{0,30})(?:\s{1,9}[\w:-]{1,50}\s?=\s?(?:\"[^\"<>]{0,500}\"|'[^'<>]{0,500}'|[^\s\"'<>]{1,500})){0,20}"
    r"\s{0,9}/?>"
)
_LINE_TAGS = frozenset(("br", "p", "div", "li", "ul", "ol", "tr", "table", "h1", "h2", "h3", "h4", "h5", "h6"))
_LINK = re.compile(r"!?\[([^\[\]]{0,1000})\]\((?:[^()\s]|\([^()\s]{0,200}\)|[ \t]){0,2000}\)")
_FOOTNOTE = re.compile(r"\[\^[^\[\]\s]{1,50}\]:?")
_FENCE = re.compile(r"^[ \t]{0,9}(?:```|~~~)[^\n`]{0,100}$", re.M)
_RULE = re.compile(r"^[ \t]{0,9}(?:[-*_=+][ \t]{0,3}){3,200}$", re.M)
_TABLE_RULE = re.compile(r"^[ \t]{0,9}\|?[ \t:|-]{0,200}-{3}[ \t:|-]{0,200}$", re.M)
_TABLE_EDGE = re.compile(r"^[ \t]{0,9}\|[ \t]{0,9}|[ \t]{0,9}\|[ \t]{0,9}$", re.M)
_TABLE_CELL = re.compile(r"[ \t]{1,9}\|[ \t]{1,9}")
_LINE_MARK = re.compile(r"^[ \t]{0,20}(?:(?:#{1,6}|>{1,5}|[-*+•‣▪◦])[ \t]{1,9}){1,3}(?:\[[ xX]\][ \t]{1,9})?", re.M)
_CODE = re.compile(r"(`{1,2})([^`\n]{1,1000})\1")
_STRONG = re.compile(r"(\*\*|__|~~)(?=[^\s*_~])([^\n]{0,500}?[^\s*_~\\])\1")
_STAR = re.compile(r"(?<![A-Za-z0-9*\\])\*(?=[^\s*])([^*\n]{0,500}?[^\s*\\])\*(?![A-Za-z0-9*])")
_UNDERLINE = re.compile(r"(?<![\w\\])_(?=[^\s_])([^_\n]{0,500}?[^\s_\\])_(?!\w)")
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+.!>~|-])")

# Emoji and pictures (Unicode 16, emoji-data.txt), with the arrows, keycaps, box and technical signs around them. Arrows
# matter: Kokoro's alphabet uses four of them as tone marks.
_PICTURES = re.compile(
    "[\u2190-\u21ff\u2300-\u23ff\u2500-\u27bf\u2b00-\u2bff\u20e3\u3030\u303d\u3297\u3299\ufe00-\ufe0f"
    "\U0001f000-\U0001faff]+"
)
_SOFT_WRAP = re.compile(r"(?<=[^\n]{39}[^\s.!?…:;])[ \t]{0,9}\n(?=[a-z])")
_BLANK = re.compile(r"[^\S\n]+")
_LONG_WORD = re.compile(rf"([{_LETTER}0-9]{{{LONGEST_WORD}}})[{_LETTER}0-9]+")
_NUMBERS = re.compile(r"[0-9]+(?:,[0-9]+)*")
_MOST_DIGITS, _MOST_GROUPED_DIGITS = 12, 15
"""Longer numbers are spelled out: 13 digits in a row are an identifier, and past trillions there are no names."""
_REPEATED = re.compile(r"([^\w\s])\1{3,}")


def clean(text: str) -> str:
    """`text` as it should be spoken, one paragraph, heading or list item a line, each with an end mark.

    Markdown and HTML are reduced to their words, emoji, arrows and invisible characters dropped, entities resolved,
    letters without end cut at LONGEST_WORD, numbers too long for a name spaced out into digits, and lines that only a
    mail program or an editor has broken joined again.
    """
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).translate(_FULL_WIDTH)
    text = _without_markup(text)
    text = _PICTURES.sub(" ", text)
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co"))
    text = _NUMBERS.sub(lambda run: _speakable_number(run[0]), text)
    text = _LONG_WORD.sub(r"\1", text)
    text = _REPEATED.sub(r"\1\1\1", text)
    lines = (_BLANK.sub(" ", line).strip() for line in text.split("\n"))
    return "\n".join(_ended(line) for line in lines if line)


def _without_markup(text: str) -> str:
    text = _SOFT_WRAP.sub(" ", text)
    text = _UNSPOKEN_HTML.sub(" ", text)
    text = _AUTOLINK.sub(r"\1", text)
    text = _TAG.sub(lambda tag: "\n" if tag[1].lower() in _LINE_TAGS else "", text)
    for layout in (_FENCE, _RULE, _TABLE_RULE, _TABLE_EDGE, _FOOTNOTE):
        text = layout.sub("", text)
    text = _TABLE_CELL.sub(", ", text)
    text = _LINE_MARK.sub("", text)
    text = _LINK.sub(r"\1", text)
    text = _CODE.sub(r"\2", text)
    text = _STRONG.sub(r"\2", text)
    text = _STAR.sub(r"\1", text)
    text = _UNDERLINE.sub(r"\1", text)
    # Last, so that &lt;b&gt; and \* stay what their author made of them.
    return html.unescape(_ESCAPE.sub(r"\1", text))


def _speakable_number(digits: str) -> str:
    """`digits`, with commas or without, as they are where a name can be read for them, else digit by digit."""
    groups = digits.split(",")
    if not all(len(group) == 3 for group in groups[1:]):  # a list, and not thousands
        return ", ".join(map(_speakable_number, groups))
    plain = "".join(groups)
    longest = _MOST_DIGITS if len(groups) == 1 else _MOST_GROUPED_DIGITS
    return digits if len(plain) <= longest else " ".join(plain[:LONGEST_WORD])


def _ended(line: str) -> str:
    """The line with an end mark: without one a voice stops as if it were interrupted."""
    if unicodedata.category(line[-1])[0] == "P":
        return line
    return line + ("。" if re.search(f"[{HAN}{KANA}]", line) else ".")


def encoded(sentence: str, encode: Callable[[str], list[int]], most: int) -> Iterator[list[int]]:
    """`encode(sentence)`, or that of its halves in turn as long as one comes out longer than `most`."""
    codes = encode(sentence)
    if len(codes) <= most or len(sentence) < 2:
        yield codes[:most]
    else:
        for half in halves(sentence):
            yield from encoded(half, encode, most)


def only_punctuation(text: str) -> bool:
    """Whether `text` has punctuation but no letter and no digit, like "." or "…！": a pause, and not an error."""
    kinds = {unicodedata.category(character)[0] for character in text}
    return "P" in kinds and not kinds & {"L", "N"}
