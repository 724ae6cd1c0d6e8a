"""audiod-models(5), from the structs that the files of models.d are read into, and from the engines' own docstrings.

A key without a word of explanation is an error here, so that the page cannot lack one.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec

from audiod.models import catalogue
from audiod.models.catalogue import ModelEntry, Part, WheelFile
from audiod.units import Duration
from audioproto import __version__
from audioproto.types import LicenceNotice, Voice
from manuals.roff import escape

_INTRODUCTION = """\
Each
.I *.toml
of the directory
.I models.d
beside
.BR audiod.toml (5)
describes one model: how it is called, the engine and the runtime that it works with, where its weights come from, and
what it takes of the host.
.B audioctl reload
puts a changed one in force. A key that audiod does not know is an error.
.PP
Only
.BR id ,
.BR engine ,
.B runtime
and
.B task
have to be there. Sizes are written like 350MiB or 3.5GB, times like 90s, 5m, 1h30m or never. Sizes are what is assumed
until a model has run; from then on what was measured counts."""

_NOT_KEYS = ("changed",)

_TABLES: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("[[licence_notices]]", LicenceNotice),
    ("[[voices]]", Voice),
    ("[[weights]]", Part),
)

_SOURCES: tuple[type[msgspec.Struct], ...] = get_args(catalogue.Source)

_MEANT_BY_THEIR_STRUCT = (LicenceNotice, Voice, WheelFile, *_SOURCES)
"""Whose docstring explains the keys, one and all."""


def manual(top: Path) -> str:
    """The page; `top` is the project's directory."""
    parts = [
        '.\\" Written by scripts/man; do not edit.',
        f'.TH AUDIOD-MODELS 5 "" "audiod {__version__}" "audiod"',
        ".SH NAME",
        "audiod-models \\- the models that audiod serves",
        ".SH DESCRIPTION",
        _INTRODUCTION,
        ".SH KEYS",
        *_keys(ModelEntry),
    ]
    for heading, kind in _TABLES:
        parts += [f".SH {escape(heading)}", escape(_said_of(kind)), *_keys(kind)]
    parts += [".SH [[weights.sources]]", "Where the files come from. What a source tells depends on its", ".BR kind :"]
    for kind in _SOURCES:
        parts += [f".SS kind = \\(dq{kind.__struct_config__.tag}\\(dq", escape(_said_of(kind)), *_keys(kind)]
    parts += [".SS [weights.sources.files.FILE]", "Of wheels:", escape(_said_of(WheelFile)), *_keys(WheelFile)]
    parts += [".SH [options]", "What there is depends on the engine; in brackets are defaults."]
    for engine, options in engine_options(top).items():
        parts += [".TP", f".B {escape(engine)}", escape(options)]
    parts += [".SH SEE ALSO", ".BR audiod.toml (5),", ".BR audiod (8),", ".BR audioctl (1)"]
    return "\n".join(parts) + "\n"


def engine_options(top: Path) -> dict[str, str]:
    """What each engine says of its options, in the docstring of its class; engines are not imported."""
    found = {}
    for file in sorted((top / "daemon/audioworker/engines").glob("[a-z]*.py")):
        options = _options_of("Engine", file, top / "daemon")
        if options is None:
            raise ValueError(f"{file}: Engine's docstring says neither `Options: ...` nor `No options.`")
        found[file.stem] = "None." if options.startswith("No") else _one_line(options.removeprefix("Options: "))
    return found


def _options_of(name: str, file: Path, packages: Path) -> str | None:
    """What the docstring of a class in that file says of options, or else that of a class it is derived from."""
    tree = ast.parse(file.read_text())
    made = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    said = (ast.get_docstring(made) or "").split("\n\n")
    for paragraph in said:
        if paragraph.startswith(("Options:", "No options.")):
            return paragraph
    bases = {base.id for base in made.bases if isinstance(base, ast.Name)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and bases & {each.name for each in node.names}:
            base = next(each.name for each in node.names if each.name in bases)
            return _options_of(base, (packages / node.module.replace(".", "/")).with_suffix(".py"), packages)
    return None


def _keys(kind: type[msgspec.Struct]) -> Iterator[str]:
    fields = [field for field in msgspec.structs.fields(kind) if field.name not in _NOT_KEYS]
    if kind in _MEANT_BY_THEIR_STRUCT:
        shown = (
            f"{field.encode_name} (default {_default(field)})" if _default(field) else field.encode_name
            for field in fields
        )
        yield from (".PP", f"Keys: {escape(', '.join(shown))}.")
        return
    meanings = _meanings(kind)
    for field in fields:
        if not meanings.get(field.name):
            raise ValueError(f"{kind.__name__}.{field.name} has no docstring")
        yield from (".TP", f".B {escape(field.encode_name)}", escape(meanings[field.name]))
        if default := _default(field):
            yield f"Default: {escape(default)}"


def _default(field: msgspec.structs.FieldInfo) -> str:
    """As TOML has it; empty where there is none, or none that could be written."""
    value = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case dict() | list():
            return "[]" if isinstance(value, list) else "{}"
        case Duration():
            return f'"{value * 1000:g}ms"'
        case int():
            return str(int(value))
    return ""


def _meanings(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The docstrings below the fields of a struct."""
    body = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: _text(after)
        for field, after in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }


def _text(node: ast.stmt) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return _one_line(node.value.value)
    return ""


def _said_of(kind: type[msgspec.Struct]) -> str:
    """Its docstring, with that of what it has its keys from."""
    has_keys = [base for base in kind.__mro__ if "__annotations__" in vars(base) and base.__doc__]
    return " ".join(
        _one_line(base.__doc__ or "") for base in dict.fromkeys((kind, *has_keys)) if base is not msgspec.Struct
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
