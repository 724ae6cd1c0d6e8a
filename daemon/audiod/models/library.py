"""The models as a request sees them: by id or alias, installed or not, and which one speaks a given text.

Pure choices over the catalogue; whether files are there is models/install.py's and runtimes/build.py's to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from audiod.models import install
from audiod.models.catalogue import ModelEntry
from audioproto.errors import ModelNotFound, ModelNotInstalled, UnsupportedTask, VoiceNotFound, VoiceNotSpoken
from audioproto.sentences import ARABIC, HAN
from audioproto.types import Task, VoiceKind

OPENAI_VOICES = frozenset(
    "alloy ash ballad coral echo fable onyx nova sage shimmer verse marin cedar".split()  # noqa: SIM905
)
"""Answered by every speech model, with its default voice where it has no better one."""

_ADD_VOICE = "audioctl voices add NAME FILE --consent FILE --language TAG"

_SCRIPTS = {
    "han": re.compile(f"[{HAN}]"),
    "latin": re.compile(r"[A-Za-z\u00c0-\u024f]"),
    "arabic": re.compile(f"[{ARABIC}]"),
}


def scripts_of(text: str) -> frozenset[str]:
    """The scripts in `text`, of those that models declare."""
    return frozenset(name for name, letters in _SCRIPTS.items() if letters.search(text))


class Library:
    """The catalogue with its aliases. `look` says what a model lacks to be used, or "".

    `stored` says what kind of stored voice an id or a name is of, if any. What `look` said is remembered, because it
    reads the disk; `look_again` after something was installed.
    """

    def __init__(
        self,
        entries: Mapping[str, ModelEntry],
        aliases: Mapping[str, list[str]],
        look: Callable[[ModelEntry], str],
        stored: Callable[[str], VoiceKind | None] = lambda voice: None,
    ) -> None:
        self.entries = dict(entries)
        self.aliases = {alias: [m for m in models if m in entries] for alias, models in aliases.items()}
        self._look = look
        self._stored = stored
        self._missing: dict[str, str] = {}
        self.look_again()

    def look_again(self) -> None:
        """See anew what is installed. Reads the disk: not for the event loop."""
        self._missing = {model: self._look(entry) for model, entry in self.entries.items()}

    def missing(self, entry: ModelEntry) -> str:
        """What the model lacks, in a few words; empty when it can be used."""
        return self._missing[entry.id]

    def entry(self, model: str) -> ModelEntry:
        """The entry with that id; an alias may stand for several, so it is refused. Raises ModelNotFound."""
        if entry := self.entries.get(model):
            return entry
        meant = f": {model} is an alias of {', '.join(self.aliases[model])}" if self.aliases.get(model) else ""
        raise ModelNotFound(f"there is no model {model!r}{meant}", hint="audioctl models", param="model")

    def require_installed(self, model: str) -> ModelEntry:
        """The entry, if it can be used. Raises ModelNotFound, ModelNotInstalled with the command that installs it."""
        entry = self.entry(model)
        if missing := self.missing(entry):
            raise install.not_installed(entry, missing)
        return entry

    def usable(self, task: Task | None = None) -> Iterator[ModelEntry]:
        """Installed models, of one task if given."""
        for entry in self.entries.values():
            if (task is None or entry.task is task) and not self.missing(entry):
                yield entry

    def usable_names(self) -> list[str]:
        """Ids of installed models, and aliases that lead to one."""
        ids = [entry.id for entry in self.usable()]
        return ids + [alias for alias, models in self.aliases.items() if any(model in ids for model in models)]

    def named(self, name: str) -> ModelEntry:
        """The model that an id or alias leads to, an installed one if it can be. Raises ModelNotFound."""
        models = self._candidates(name)
        return next((entry for entry in models if not self.missing(entry)), models[0])

    def aliases_of(self, model: str) -> list[str]:
        return [alias for alias, models in self.aliases.items() if model in models]

    def transcriber(self, name: str) -> ModelEntry:
        """The model to transcribe with. Raises ModelNotFound, ModelNotInstalled, UnsupportedTask."""
        entry = self.named(name)
        if entry.task is not Task.TRANSCRIBE:
            raise UnsupportedTask(f"{name} does not transcribe", param="model")
        return self.require_installed(entry.id)

    def aligner(self) -> ModelEntry:
        """The model that finds words in speech, an installed one if there is any. Raises ModelNotInstalled."""
        entry = next(self.usable(Task.ALIGN), None)
        if entry is None:
            known = [entry for entry in self.entries.values() if entry.task is Task.ALIGN]
            raise ModelNotInstalled(
                "no model that aligns words with speech is installed",
                hint=install.remedy(known[0], self.missing(known[0]))
                if known
                else 'add one to models.d, with task = "align"',
            )
        return entry

    def speaker(
        self, name: str, voice: str, text: str, *, emotion: bool = False, language: str = ""
    ) -> tuple[ModelEntry, str]:
        """The model to speak `text` with, and its voice ("" lets the engine choose by the text).

        An alias leads to the first of its models that has the voice asked for, speaks the `language` where one is named
        and the text's scripts, takes an `emotion` where one is asked for, and is installed. Raises ModelNotFound,
        ModelNotInstalled, UnsupportedTask, VoiceNotFound, VoiceNotSpoken.
        """
        entry = self._fittest(name, lambda entry: self._has_voice(entry, voice), text, emotion, language)
        return entry, self._voice(entry, voice, scripts_of(text))

    def imitator(self, name: str, text: str, *, emotion: bool = False, language: str = "") -> ModelEntry:
        """The model to speak `text` with the voice of a recording, chosen in the same way. Raises the same."""
        entry = self._fittest(name, lambda entry: entry.clones, text, emotion, language)
        if not entry.clones:
            raise self._not_spoken(entry, "the voice of a recording")
        return entry

    def speakers_that(self, can: Callable[[ModelEntry], bool]) -> tuple[str, str]:
        """The usable speech models that can, in words; and, where there are none, the command that installs one."""
        if able := [entry.id for entry in self.usable(Task.SPEAK) if can(entry)]:
            return ", ".join(able), ""
        known = (entry for entry in self.entries.values() if entry.task is Task.SPEAK and can(entry))
        first = next(known, None)
        return "none", "" if first is None else install.remedy(first, self.missing(first))

    def _fittest(
        self, name: str, able: Callable[[ModelEntry], bool], text: str, emotion: bool, language: str
    ) -> ModelEntry:
        candidates = self._candidates(name)
        if any(entry.task is not Task.SPEAK for entry in candidates):
            raise UnsupportedTask(f"{name} does not speak", param="model")
        needed = scripts_of(text)

        def fitness(entry: ModelEntry) -> tuple[bool, int, bool, bool]:
            unspoken = bool(language) and not entry.knows(language)
            unread = len(needed - set(entry.scripts))
            return unspoken, unread, emotion and not entry.emotions, bool(self.missing(entry))

        best = min([entry for entry in candidates if able(entry)] or candidates, key=fitness)
        return self.require_installed(best.id)

    def _candidates(self, name: str) -> list[ModelEntry]:
        """Those of an alias that are there; and those that come with audiod, to be named as what is lacking."""
        if name in self.entries:
            return [self.entries[name]]
        if models := [self.entries[model] for model in self.aliases.get(name, ())]:
            return [entry for entry in models if entry.embedded or not self.missing(entry)] or models
        raise ModelNotFound(f"there is no model {name!r}", hint="audioctl models", param="model")

    def _has_voice(self, entry: ModelEntry, voice: str) -> bool:
        if any(own.id == voice for own in entry.voices):
            return True
        if self._is_default(entry, voice):
            return True
        return entry.clones and self._stored(voice) is not None

    def _is_default(self, entry: ModelEntry, voice: str) -> bool:
        """Whether a voice of the model's own stands for `voice`. A model that only imitates has none."""
        is_any = not voice or voice in OPENAI_VOICES or voice in entry.voice_aliases
        return is_any and bool(entry.voices or not entry.clones)

    def _voice(self, entry: ModelEntry, voice: str, scripts: frozenset[str]) -> str:
        if any(own.id == voice for own in entry.voices):
            return voice
        if self._is_default(entry, voice):
            # OpenAI's voices are English speakers; for Chinese text the engine's own choice speaks better.
            return "" if "han" in scripts else entry.voice_aliases.get(voice, "")
        match self._stored(voice):
            case VoiceKind.AUDIO_SAMPLE:
                if entry.clones:
                    return voice
                raise self._not_spoken(entry, "a stored voice")
            case VoiceKind.PROMPT:
                raise VoiceNotSpoken(f"{voice} was made of a prompt; no model here speaks with those", param="voice")
        if entry.clones and not entry.voices:
            asked = f"there is no stored voice {voice[:100]!r}" if voice else "say whose it is to be"
            message = f"{entry.id} has no voice of its own, and {asked}"
            raise VoiceNotFound(message, hint=_ADD_VOICE, param="voice")
        raise VoiceNotFound(f"{entry.id} has no voice {voice[:100]!r}", hint="GET /v1/audio/voices", param="voice")

    def _not_spoken(self, entry: ModelEntry, what: str) -> VoiceNotSpoken:
        able, hint = self.speakers_that(lambda other: other.clones)
        message = f"{entry.id} cannot speak with {what}; of the installed models can: {able}"
        return VoiceNotSpoken(message, param="voice", hint=hint)
