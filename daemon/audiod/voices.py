"""Stored voices and the consents they were made by: on disk, one record and at most one recording each.

Only whole records are ever seen, whatever moment the power fails at. What engines keep of a voice is theirs, but goes
with it. Knows no HTTP and looks at no audio; what comes here was decoded and checked. Blocks on the disk, so that
everything that writes is called in a thread.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from audiod import durable
from audiod.units import ByteSize
from audioproto.errors import StoreFailed, StoreFull
from audioproto.types import VoiceKind

logger = logging.getLogger(__name__)

AUDIO_RATE_HZ = 48_000
"""Of stored recordings (mono, 16 bit). No speech is lost, and engines get their 24 or 16 kHz by a whole number."""

_RANDOM_BYTES = 8
_TIME_DIGITS = 16


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What voices and consents have in common, as it is on disk."""

    id: str
    name: str
    language: str = ""
    """A BCP 47 tag."""
    audio_bytes: int = 0
    """Size of the recording's file; 0 where there is none."""
    duration_s: float = 0.0

    @property
    def created_at(self) -> int:
        """Unix time in seconds."""
        return int(self.id.partition("_")[2][:_TIME_DIGITS], 16) // 10**9


class StoredVoice(Record, frozen=True, omit_defaults=True, kw_only=True):
    """A voice that somebody has stored here."""

    kind: VoiceKind
    consent: str = ""
    """Id of the consent that it was made by. It is kept here when the consent itself is deleted."""
    transcript: str = ""
    """What is said in the recording, where that was told."""
    prompt: str = ""
    model: str = ""
    script_hint: str = ""


class Consent(Record, frozen=True, omit_defaults=True):
    """Somebody's spoken consent to a voice of theirs being made."""


R = TypeVar("R", bound=Record)


class Shelf(Generic[R]):
    """Records of one kind, in one directory: `ID.json`, and `ID.wav` beside it. The newest come first.

    An id is a time and chance, never anything that a client says; it names the files. Reading is safe from any thread.
    """

    def __init__(self, directory: Path, prefix: str, kind: type[R]) -> None:
        """Read all of them; what is broken is reported and left alone, what was never finished is removed."""
        self._directory = directory
        self._prefix = prefix
        self._shape = re.compile(rf"{prefix}_[0-9a-f]{{{_TIME_DIGITS + 2 * _RANDOM_BYTES}}}")
        self._decoder = msgspec.json.Decoder(kind)
        self._last_ns = 0
        self.broken: list[str] = []
        """Files that could not be read, each with the reason."""
        self.records: Mapping[str, R] = dict(self._read())

    def _read(self) -> Iterator[tuple[str, R]]:
        try:
            files = {file.name: file for file in self._directory.iterdir()}
        except FileNotFoundError:
            return
        except OSError as error:
            self._report(f"{self._directory}: {error.strerror}")
            return
        for name, file in sorted(files.items(), reverse=True):
            if not self._shape.fullmatch(name.lstrip(".").partition(".")[0]):
                continue
            if name.startswith(".") or (file.suffix == ".wav" and file.with_suffix(".json").name not in files):
                with contextlib.suppress(OSError):
                    file.unlink()  # the daemon ended before it was a record, or after it had ceased to be one
            elif file.suffix == ".json" and (record := self._read_one(file)) is not None:
                yield record.id, record

    def _read_one(self, file: Path) -> R | None:
        try:
            record = self._decoder.decode(file.read_bytes())
            if record.id != file.stem:
                raise ValueError(f"it says that it is {record.id!r}")
            if record.audio_bytes and (found := self.audio_file(record.id).stat().st_size) != record.audio_bytes:
                raise ValueError(f"its recording has {found} bytes, not {record.audio_bytes}")
        except (OSError, ValueError) as error:  # msgspec's are ValueErrors
            self._report(f"{file}: {error}")
            return None
        return record

    def _report(self, what: str) -> None:
        self.broken.append(what)
        logger.error("a stored voice or consent is left out: %s", what)

    def audio_file(self, identity: str) -> Path:
        """Where the recording of a record is, if it has one."""
        return self._directory / f"{identity}.wav"

    def new_id(self) -> str:
        """Later than all before, even where the clock was set back."""
        newest = max((int(found.partition("_")[2][:_TIME_DIGITS], 16) for found in self.records), default=0)
        self._last_ns = max(time.time_ns(), self._last_ns + 1, newest + 1)
        return f"{self._prefix}_{self._last_ns:0{_TIME_DIGITS}x}{secrets.token_hex(_RANDOM_BYTES)}"

    def put(self, record: R, audio: bytes = b"") -> None:
        """Keep a new record, or another one under the same id. Raises OSError, and then nothing has changed."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        recording = self.audio_file(record.id)
        try:
            if audio:
                durable.replace(recording, audio)
            durable.replace(self._directory / f"{record.id}.json", msgspec.json.encode(record))
        except OSError:
            for file in (self._directory / f"{record.id}.json", recording) if audio else ():
                with contextlib.suppress(OSError):
                    file.unlink()
            raise
        self.records = {**self.records, record.id: record}

    def remove(self, identity: str) -> bool:
        """Whether there was one. Raises OSError, and then there still is."""
        if identity not in self.records:
            return False
        file = self._directory / f"{identity}.json"
        leaving = file.with_name(f".{file.name}")
        file.replace(leaving)  # what is named so is gone with the next start, whatever comes between
        try:
            self.audio_file(identity).unlink(missing_ok=True)
            leaving.unlink()
        except OSError:
            with contextlib.suppress(OSError):
                leaving.replace(file)
            raise
        self.records = {found: record for found, record in self.records.items() if found != identity}
        with contextlib.suppress(OSError):
            durable.sync_directory(self._directory)
        return True

    def newest_first(self) -> list[R]:
        return sorted(self.records.values(), key=lambda record: record.id, reverse=True)

    def page(self, after: str, limit: int) -> tuple[list[R], bool]:
        """At most `limit` records older than the id `after`, or the newest where it is "", and whether more follow.

        `after` may have been deleted in the meantime. Raises ValueError where it is no id of this shelf.
        """
        if after and not self._shape.fullmatch(after):
            raise ValueError(f"{after[:100]!r} is no id of this list")
        rest = [record for record in self.newest_first() if not after or record.id < after]
        return rest[:limit], len(rest) > limit


class VoiceStore:
    """All stored voices and consents, below one directory. `limit` of each; `disk_bytes` for all recordings."""

    def __init__(self, directory: Path, limit: int, disk_bytes: int) -> None:
        """Reads the disk."""
        self.limit = limit
        self.disk_bytes = disk_bytes
        self.voices = Shelf(directory / "samples", "voice", StoredVoice)
        self.consents = Shelf(directory / "consents", "cons", Consent)
        self._made = directory / "made"
        self._writing = threading.Lock()
        self._remove_leftovers()

    def find(self, voice: str) -> StoredVoice | None:
        """The voice of that id or, case aside, the newest of that name."""
        if found := self.voices.records.get(voice):
            return found
        name = voice.casefold()
        named = (one for one in self.voices.records.values() if one.name.casefold() == name)
        return max(named, key=lambda one: one.id, default=None)

    def kind_of(self, voice: str) -> VoiceKind | None:
        """How the stored voice of that id or name was made; None where there is none."""
        found = self.find(voice)
        return None if found is None else found.kind

    @property
    def broken(self) -> list[str]:
        """What was found on disk at the start and cannot be read, with the reasons."""
        return [*self.voices.broken, *self.consents.broken]

    def require_room(self, shelf: Shelf[R], audio_bytes: int = 0) -> None:
        """Raises StoreFull where one more record with so much audio does not fit."""
        if len(shelf.records) >= self.limit:
            raise StoreFull(f"{self.limit} are stored, which is as many as may be", hint="delete one first")
        held = sum(one.audio_bytes for kind in (self.voices, self.consents) for one in kind.records.values())
        if held + audio_bytes > self.disk_bytes:
            raise StoreFull(
                f"stored recordings have {ByteSize(held)}; all may have {ByteSize(self.disk_bytes)}",
                hint="delete one first",
            )

    def add(self, shelf: Shelf[R], make: Callable[[str], R], audio: bytes = b"") -> R:
        """Keep what `make` gives for a new id. Raises StoreFull and StoreFailed."""
        with self._writing, _failing_clearly():
            self.require_room(shelf, len(audio))
            record = make(shelf.new_id())
            shelf.put(record, audio)
            return record

    def rename(self, shelf: Shelf[R], identity: str, name: str) -> R | None:
        """Give a record another name; None where there is none. Raises StoreFailed."""
        with self._writing, _failing_clearly():
            if (record := shelf.records.get(identity)) is None:
                return None
            renamed = msgspec.structs.replace(record, name=name)
            shelf.put(renamed)
            return renamed

    def remove(self, shelf: Shelf[R], identity: str) -> bool:
        """Whether there was one; what engines have made of it goes before it, and what they make meanwhile after it.

        Raises StoreFailed, and then there still is one.
        """
        with self._writing, _failing_clearly():
            if identity in shelf.records:
                for file in self._made_of(identity):
                    file.unlink(missing_ok=True)
            removed = shelf.remove(identity)
        if removed:
            self.remove_made(identity)
        return removed

    def remove_made(self, identity: str) -> None:
        """Remove what engines have made of a voice that is gone. What cannot be removed now is at the next start."""
        self._unlink(self._made_of(identity))

    def _made_of(self, identity: str) -> Iterator[Path]:
        """Of `made/MODEL/VOICE.SUFFIX`, and of hidden ones, which engines were about to write."""
        return (file for file in self._made.glob("*/*") if _voice_of(file) == identity)

    def _remove_leftovers(self) -> None:
        """The daemon ended before all of a voice was gone, or an engine before it had written all of its own."""
        made = self._made.glob("*/*")
        self._unlink(file for file in made if file.name.startswith(".") or _voice_of(file) not in self.voices.records)

    def _unlink(self, files: Iterable[Path]) -> None:
        for file in files:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                logger.error("what was made of a voice cannot be removed: %s", error)


def _voice_of(made: Path) -> str:
    return made.name.lstrip(".").partition(".")[0]


@contextlib.contextmanager
def _failing_clearly() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        logger.error("voices cannot be stored: %s", error)
        raise StoreFailed(f"the voices on disk cannot be changed: {error.strerror}", hint="audioctl doctor") from error
