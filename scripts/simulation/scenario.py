"""What is simulated: devices, models with their times and memory, limits, and the traffic that comes. Read from TOML.

Holds data and small sums over it; every figure of a simulation comes from here, none from the code.
"""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import msgspec

from audiod import units
from audiod.config import Residency
from audiod.residency.events import Limits, Profile
from audiod.residency.footprint import Footprint
from audiod.units import ByteSize, Duration
from audioproto.errors import ConfigInvalid
from audioproto.types import Priority

SCENARIOS = Path(__file__).parent / "scenarios"

GOAL = "alternating"
"""The scenario of the goal in issue 4, and the one that is simulated where none is named."""


_DEFAULTS = Limits(devices={}, host_bytes=0)


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all tables of a scenario."""


class Sizes(Section, frozen=True):
    """A kind of request. Sizes are log-normal around `median`; `spread` is the deviation of the logarithm, 0 for none.

    A size is seconds of audio or characters, whatever the model's `unit` is a time for.
    """

    median: float = 1.0
    spread: float = 0.0
    at_most: float = math.inf
    share: float = 1.0
    """Of the model's requests, relative to its other kinds."""
    priority: Priority = Priority.INTERACTIVE

    @property
    def mean(self) -> float:
        """Of min(X, at_most) for log-normal X."""
        if not self.spread:
            return min(self.median, self.at_most)
        whole = self.median * math.exp(self.spread**2 / 2)
        if math.isinf(self.at_most):
            return whole
        cut = math.log(self.at_most / self.median) / self.spread
        normal = NormalDist()
        return whole * normal.cdf(cut - self.spread) + self.at_most * (1 - normal.cdf(cut))


class Model(Section, frozen=True):
    """One model: what it holds, how long its moves and its work take, and what is asked of it."""

    ready: ByteSize
    """Memory that its worker holds on the device at rest."""
    parked: ByteSize
    """Host memory that its zygote holds."""
    start: Duration
    """From unloaded to parked."""
    load: Duration
    """From parked to ready."""
    park: Duration
    """From ready to parked: the worker's end, and the proof that its memory is back."""
    stop: Duration
    request: Duration = Duration(0)
    """What serving takes whatever the size."""
    unit: Duration = Duration(0)
    """What it takes more for each unit of size."""
    work: ByteSize = ByteSize(0)
    """Memory beyond rest for each unit of size."""
    segment: Duration = Duration(0)
    """Work between two points where it can be paused; 0: it cannot."""
    device: str = "cuda:0"
    concurrency: int = 1
    pinned: bool = False
    keep_alive: Duration = Duration(300)
    park_keep_alive: Duration = Duration(3600)
    share: float = 1.0
    """Of all requests, relative to the other models."""
    sizes: tuple[Sizes, ...] = (Sizes(),)

    def service_s(self, size: float) -> float:
        return self.request + self.unit * size

    @property
    def mean_service_s(self) -> float:
        shares = sum(sizes.share for sizes in self.sizes)
        return sum(sizes.share / shares * self.service_s(sizes.mean) for sizes in self.sizes)


class Bounds(Section, frozen=True):
    """The limits of [residency] in audiod.toml that matter here, under the names that they have there."""

    max_switch_wait: Duration = Duration(_DEFAULTS.max_switch_wait_s)
    batch_patience: Duration = Duration(_DEFAULTS.batch_patience_s)
    queue_requests: int = _DEFAULTS.queue_requests
    queue_timeout: Duration = Residency().queue_timeout
    """After so long in the queue a client is sent away; "never": clients have all the time in the world."""

    @property
    def patience_s(self) -> float:
        return math.inf if self.queue_timeout == Duration.NEVER else float(self.queue_timeout)


class Traffic(Section, frozen=True):
    """What is asked, and when.

    `alternating`: one request for each model in turn, equally spaced. `poisson`: models ask independently. `bursts`: so
    do they, `burst` requests at a time within `burst_within`. `day`: as `poisson`, from some time of the day on, with
    the rate following `hours`.
    """

    kind: Literal["alternating", "poisson", "bursts", "day"] = "poisson"
    load: float = 0.5
    """Seconds of work that are asked for in a second, without loading and parking."""
    duration: Duration = Duration(3600)
    """Requests come for so long; what waits then is still served."""
    warm_up: Duration = Duration(300)
    """So much at the beginning is not measured."""
    burst: int = 8
    burst_within: Duration = Duration(1)
    hours: tuple[float, ...] = (1.0,)
    """Rates relative to each other, spread evenly over a day."""


class Scenario(Section, frozen=True):
    """The whole file."""

    devices: dict[str, ByteSize]
    """What models may hold on each."""
    park_budget: ByteSize
    models: dict[str, Model]
    limits: Bounds = Bounds()
    traffic: Traffic = Traffic()

    def scheduler_limits(self) -> Limits:
        return Limits(
            devices=dict(self.devices),
            host_bytes=self.park_budget,
            queue_requests=self.limits.queue_requests,
            max_switch_wait_s=self.limits.max_switch_wait,
            batch_patience_s=self.limits.batch_patience,
        )

    def profiles(self) -> list[Profile]:
        """New ones at each call: a scheduler learns into its own."""
        return [
            Profile(
                model=name,
                footprint=Footprint(model.ready, model.parked),
                device=model.device,
                keep_alive_s=model.keep_alive,
                park_keep_alive_s=model.park_keep_alive,
                pinned=model.pinned,
                concurrency=model.concurrency,
            )
            for name, model in self.models.items()
        ]

    @property
    def mean_service_s(self) -> float:
        shares = sum(model.share for model in self.models.values())
        return sum(model.share / shares * model.mean_service_s for model in self.models.values())

    @property
    def requests_per_s(self) -> float:
        """Of all models together, on average."""
        return self.traffic.load / self.mean_service_s

    def with_limits(self, **changes: Any) -> Scenario:
        return msgspec.structs.replace(self, limits=msgspec.structs.replace(self.limits, **changes))

    def with_traffic(self, **changes: Any) -> Scenario:
        return msgspec.structs.replace(self, traffic=msgspec.structs.replace(self.traffic, **changes))


def load(name: str, changes: dict[str, str] | None = None) -> Scenario:
    """Read a scenario of this package, or a TOML file. Raises ConfigInvalid.

    `changes` take the place of single values: "limits.max_switch_wait", or "max_switch_wait" alone for one of limits.
    """
    file = Path(name) if name.endswith(".toml") else SCENARIOS / f"{name}.toml"
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(sorted(path.stem for path in SCENARIOS.glob("*.toml")))
        raise ConfigInvalid(f"cannot read {file}: {error.strerror}; scenarios: {known}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{file} is not TOML: {error}") from error
    for path, value in (changes or {}).items():
        *tables, key = path.split(".") if "." in path else ("limits", path)
        table = data
        for step in tables:
            table = table.setdefault(step, {})
            if not isinstance(table, dict):
                raise ConfigInvalid(f"{path}: {step} is no table")
        table[key] = value
    try:
        scenario = msgspec.convert(data, Scenario, strict=False, dec_hook=units.decode)
    except msgspec.ValidationError as error:
        raise ConfigInvalid(f"{file}: {error}") from error
    for model, entry in scenario.models.items():
        if entry.device not in scenario.devices:
            raise ConfigInvalid(f"{file}: {model} is on {entry.device}, which [devices] does not have")
        if entry.mean_service_s <= 0:
            raise ConfigInvalid(f"{file}: requests for {model} take no time; give it `request` or `unit`")
    return scenario
