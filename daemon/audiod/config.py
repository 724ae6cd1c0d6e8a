"""The configuration: TOML into frozen structs, with AUDIOD_* overrides. An unknown key is an error with its path.

Reads and checks; starts nothing. Every key is shown, with its default, in etc/audiod.toml, and a test compares them.
"""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from audiod import units
from audiod.models.install import Places
from audiod.runtimes.build import Settings
from audiod.units import Addresses, ByteSize, DeviceName, Duration
from audioproto.control import DEFAULT_SOCKET
from audioproto.errors import ConfigInvalid


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all sections."""


class Server(Section, frozen=True):
    """[server]: the HTTP API."""

    host: str = "127.0.0.1"
    port: int = 8000
    upload_limit: ByteSize = ByteSize(50 * 10**6)
    """Largest upload; beyond it 413."""
    upload_stall: Duration = Duration(30)
    """How long a client may stop sending in the middle of its request; beyond it 408."""
    answer_stall: Duration = Duration(300)
    """How long a client may take nothing of its answer, as a paused player does; then it is cut off."""
    audio_memory: ByteSize = ByteSize(0)
    """Memory for the audio of all requests: uploads, what is decoded of them, speech not yet sent. 0 is a share."""
    batch_after: Duration = Duration(120)
    """Longer recordings have the priority `batch`, unless their request says otherwise."""
    input_characters: int = 4096
    """Longest text to speak, as OpenAI's."""
    api_keys_file: str = ""
    """Empty: the credential `api-keys` where systemd has one for us. AUDIOD_API_KEYS may have more keys."""
    open: bool = False
    """Whether to serve other hosts where there are no keys at all."""
    open_names: bool = True
    """Whether the names of models and embedded voices are told to whoever asks without a key."""
    cors_origins: list[str] = []
    """Origins, such as `http://localhost:3000`, whose pages may use the API in a browser; `*` is all."""
    stop_timeout: Duration = Duration(300)
    """How long running requests may take to end when the daemon is stopped."""


class Control(Section, frozen=True):
    """[control]: the Unix socket that audioctl speaks to."""

    socket: str = DEFAULT_SOCKET
    group: str = "audiod"
    """Members may operate; everyone else who can open the socket may read. Ignored where there is no such group."""


class Storage(Section, frozen=True):
    """[storage]: where things are kept. Empty means a folder of that name in `state_dir`."""

    state_dir: str = "/var/lib/audiod"
    runtimes_dir: str = ""
    models_dir: str = ""
    cache_dir: str = ""


class Residency(Section, frozen=True):
    """[residency]: who is in memory, and for how long."""

    device: DeviceName = "auto"
    """Where models are loaded that do not say; `auto` is the first GPU, or the CPU where there is none."""
    budget: ByteSize = ByteSize(0)
    """Host memory for models loaded to the CPU; 0 is half of the host's."""
    vram_budget: ByteSize = ByteSize(0)
    """Memory of each GPU for loaded models; 0 is all of it."""
    vram_reserve: ByteSize = ByteSize(256 * 2**20)
    """Memory of each GPU that always stays free, as far as other programs leave it."""
    park_budget: ByteSize = ByteSize(0)
    """Host memory for parked models; 0 is a quarter of the host's."""
    keep_alive: Duration = Duration(300)
    park_keep_alive: Duration = Duration(3600)
    queue_requests: int = 512
    queue_timeout: Duration = Duration(60)
    max_switch_wait: Duration = Duration(25)
    batch_patience: Duration = Duration(30)
    """How much later than it came a batch request counts as come."""
    recycle: bool = False
    """Whether a model that grows is parked when idle, to begin anew."""
    start_timeout: Duration = Duration(120)
    """How long a model that starts or loads may stand still: report no progress, and log nothing."""
    abort_grace: Duration = Duration(10)
    """How long a request that nobody waits for any more may run on until its worker is replaced."""
    threads: int = 0
    """CPU threads for a model that does not say; 0 is one for each core the daemon may use."""


class Media(Section, frozen=True):
    """[media]: the processes that decode and encode audio."""

    max_audio: Duration = Duration(7200)
    decode_timeout: Duration = Duration(60)
    processes: int = 8
    idle: Duration = Duration(60)


class Realtime(Section, frozen=True):
    """[realtime]: WebSockets that hear people speak."""

    sessions: int = 32
    """At a time; each that has sent audio has a process that listens to it."""
    session_limit: Duration = Duration(3600)
    """The longest session, as OpenAI's; what has been said by then is still transcribed."""
    delay: Literal["", "minimal", "low", "medium", "high", "xhigh"] = ""
    """The `delay` that sessions begin with: if any, turns are heard while they are spoken."""
    live_interval: Duration = Duration(1)
    """New audio between two hearings of a live turn at the delay `minimal`; each step up is one interval more."""


class Translate(Section, frozen=True):
    """[translate]: the OpenAI-compatible chat endpoint that translates what the model that listens cannot."""

    base_url: str = ""
    """With its `/v1`. Empty: there is none."""
    model: str = ""
    """As the endpoint calls it."""
    key_file: str = ""
    """Holds the endpoint's API key. Empty: the credential `translate-key` where systemd has one for us, else none."""
    timeout: Duration = Duration(60)
    """Longest wait for the translation of one piece, of up to 20 cues, its repetitions included."""


class Voices(Section, frozen=True):
    """[voices]: the voices that clients store, and their consents."""

    limit: int = 200
    """Most of each."""
    disk: ByteSize = ByteSize(10**9)
    """Most that all recordings take."""


class Logging(Section, frozen=True):
    """[logging]"""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json", "journal"] = "auto"


class Runtimes(Section, frozen=True):
    """[runtimes]: the environments of engines' libraries."""

    torch: str = "auto"
    """Which build of torch they get, by its tag; `auto` is the newest that fits GPUs and driver."""


class Mirrors(Section, frozen=True):
    """[mirrors]: where things come from, each tried in order. npm packages come from where npm is set to."""

    preset: Literal["", "cn"] = ""
    """A set of mirrors for a country, in place of the defaults below."""
    index: Addresses = Addresses()
    """Package indexes, before the one that pip is set to."""
    torch_index: Addresses = Addresses(("https://download.pytorch.org/whl",))
    """Indexes of torch's builds, each below its tag; only for the build that no package index has."""
    hub: Addresses = Addresses(("https://huggingface.co",))
    """Model hubs that speak its protocol; empty forbids their use."""
    modelscope: Addresses = Addresses(("https://www.modelscope.cn",))
    """The same for ModelScope."""

    @property
    def chosen(self) -> Mirrors:
        """These, with the preset's in place of every default."""
        default = Mirrors()
        instead = {
            key: value for key, value in PRESETS[self.preset].items() if getattr(self, key) == getattr(default, key)
        }
        return msgspec.structs.replace(self, **instead)


PRESETS: dict[str, dict[str, Addresses]] = {
    "": {},
    "cn": {
        "index": Addresses(("https://pypi.tuna.tsinghua.edu.cn/simple", "https://mirrors.aliyun.com/pypi/simple")),
        "torch_index": Addresses(("https://mirror.nju.edu.cn/pytorch/whl", "https://download.pytorch.org/whl")),
        "hub": Addresses(("https://hf-mirror.com", "https://huggingface.co")),
    },
}
"""For mainland China: Tsinghua's and Alibaba's mirrors of the package index, Nanjing's of torch, and hf-mirror."""


DEFAULT_ALIASES = {
    "whisper-1": ["whisper-base"],
    "gpt-4o-transcribe": ["whisper-base"],
    "gpt-4o-mini-transcribe": ["whisper-base"],
    "tts-1": ["hibari", "kokoro-82m", "indextts-2", "indextts-2.5"],
    "tts-1-hd": ["hibari", "kokoro-82m", "indextts-2", "indextts-2.5"],
    "gpt-4o-mini-tts": ["hibari", "kokoro-82m", "indextts-2", "indextts-2.5"],
}
"""OpenAI's names, so that a client works with nothing but another base URL."""


class Config(Section, frozen=True):
    """The whole file. `aliases` maps a name that clients use to models, tried in order."""

    server: Server = Server()
    control: Control = Control()
    storage: Storage = Storage()
    residency: Residency = Residency()
    media: Media = Media()
    realtime: Realtime = Realtime()
    voices: Voices = Voices()
    translate: Translate = Translate()
    logging: Logging = Logging()
    runtimes: Runtimes = Runtimes()
    mirrors: Mirrors = Mirrors()
    aliases: dict[str, list[str]] = msgspec.field(default_factory=lambda: dict(DEFAULT_ALIASES))
    file: str = ""
    """Where it was read from; not a key."""

    @property
    def state_dir(self) -> Path:
        return Path(self.storage.state_dir).absolute()

    @property
    def runtimes_dir(self) -> Path:
        return Path(self.storage.runtimes_dir or self.state_dir / "runtimes").absolute()

    @property
    def models_dir(self) -> Path:
        return Path(self.storage.models_dir or self.state_dir / "models").absolute()

    @property
    def cache_dir(self) -> Path:
        return Path(self.storage.cache_dir or self.state_dir / "cache").absolute()

    @property
    def catalogue_dir(self) -> Path:
        """models.d beside the configuration file, else the one that came with the program."""
        beside = Path(self.file).parent / "models.d"
        return beside if self.file and beside.is_dir() else share_dir() / "etc" / "models.d"

    @property
    def places(self) -> Places:
        """The directories that installing works in."""
        locks_dir = share_dir() / "packaging" / "locks"
        mirrors = self.mirrors.chosen
        settings = Settings(mirrors.index, mirrors.torch_index, self.runtimes.torch, self.residency.device)
        made_dir = self.state_dir / "voices" / "made"
        return Places(
            locks_dir, self.runtimes_dir, self.models_dir, mirrors.hub, mirrors.modelscope, settings, made_dir
        )


SHORT_NAMES = {
    "AUDIOD_HOST": ("server", "host"),
    "AUDIOD_PORT": ("server", "port"),
    "AUDIOD_SOCKET": ("control", "socket"),
    "AUDIOD_STATE_DIR": ("storage", "state_dir"),
}
"""Beside these, every key of a section has AUDIOD_<SECTION>_<KEY>."""

_NOT_KEYS = {"AUDIOD_CONFIG", "AUDIOD_URL", "AUDIOD_API_KEY", "AUDIOD_API_KEYS"}

_CREDENTIALS = {("server", "api_keys_file"): "api-keys", ("translate", "key_file"): "translate-key"}


@functools.cache
def share_dir() -> Path:
    """Where etc/ and packaging/locks/ are: inside the installed package, or the top of a checkout.

    Looks once, when the daemon starts, so that the event loop may ask.
    """
    packaged = Path(__file__).parent / "share"
    return packaged if packaged.is_dir() else Path(__file__).parents[2]


def load(file: Path | None, environment: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> Config:
    """Read `file` (None: defaults only), then the environment, then `overrides` (named like the environment).

    Raises ConfigInvalid naming the file and the key's path.
    """
    data: dict[str, Any] = {}
    if file is not None:
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigInvalid(f"cannot read {file}: {error.strerror}", hint="audiod --help") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigInvalid(f"{file} is not TOML: {error}") from error
    if "file" in data:
        raise ConfigInvalid(f"{file}: Object contains unknown field `file`")
    # What systemd has made for the unit (StateDirectory=, LoadCredential=, ...), where the file says nothing.
    given = {
        ("storage", "state_dir"): environment.get("STATE_DIRECTORY", ""),
        ("storage", "cache_dir"): environment.get("CACHE_DIRECTORY", ""),
        **{place: _credential(environment, name) for place, name in _CREDENTIALS.items()},
    }
    for (section, key), value in given.items():
        if value and isinstance(data.setdefault(section, {}), dict):
            data[section].setdefault(key, value)
    for name, value in {**environment, **(overrides or {})}.items():
        if name.startswith("AUDIOD_") and name not in _NOT_KEYS:
            section, key = _key_of(name)
            data.setdefault(section, {})[key] = _listed(value) if _is_list(section, key) else value
    try:
        config = msgspec.convert(data, Config, strict=False, dec_hook=units.decode)
    except msgspec.ValidationError as error:
        raise ConfigInvalid(f"{file or 'configuration'}: {error}", hint=f"audiod check-config {file or ''}") from error
    return msgspec.structs.replace(config, file=str(file) if file else "")


def _credential(environment: Mapping[str, str], name: str) -> str:
    directory = environment.get("CREDENTIALS_DIRECTORY", "")
    file = Path(directory, name)
    return str(file) if directory and file.exists() else ""


def _key_of(variable: str) -> tuple[str, str]:
    if variable in SHORT_NAMES:
        return SHORT_NAMES[variable]
    for section in Config.__struct_fields__:
        kind = getattr(Config, "__annotations__", {}).get(section, "")
        prefix = f"AUDIOD_{section.upper()}_"
        if variable.startswith(prefix) and isinstance(kind, str) and kind in globals():
            key = variable.removeprefix(prefix).lower()
            if key in globals()[kind].__struct_fields__:
                return section, key
    raise ConfigInvalid(f"{variable} in the environment is no setting of audiod", hint="man audiod.toml")


def _is_list(section: str, key: str) -> bool:
    return isinstance(getattr(getattr(Config(), section), key), list)


def _listed(value: str) -> list[str]:
    """A list in the environment: its items with commas between them."""
    return [item.strip() for item in value.split(",") if item.strip()]


def default_file(environment: Mapping[str, str]) -> Path | None:
    """AUDIOD_CONFIG, else /etc/audiod/audiod.toml where there is one, else none."""
    if named := environment.get("AUDIOD_CONFIG"):
        return Path(named)
    installed = Path("/etc/audiod/audiod.toml")
    return installed if installed.exists() else None


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
