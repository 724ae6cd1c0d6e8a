"""Arrivals: who asks which model for what, and when. Made from a scenario's traffic and a seed, or read from a record.

A record is JSON lines with `at` (seconds from the beginning), `model`, and, where known, `size`, `priority` and
`service_s`. The daemon's journal is read too: `journalctl -u audiod -o json | scripts/simulate --trace -`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import cycle
from random import Random
from typing import TextIO

import msgspec

from audioproto.errors import ConfigInvalid
from audioproto.types import Priority
from simulation.scenario import Model, Scenario, Sizes

DAY_S = 86400.0

_WANTED_A_MODEL = ("429", "499")
"""Of the statuses 4xx: refused for want of room, and left by the client. The others were refused for what they were."""


class Arrival(msgspec.Struct, frozen=True, omit_defaults=True, order=True):
    """One request. `at` is seconds from the beginning of the trace."""

    at: float
    model: str
    size: float = 0.0
    priority: Priority = Priority.INTERACTIVE
    service_s: float | None = None
    """How long serving it takes; None: what the scenario's model takes for the size, or for its mean size."""


class _JournalLine(msgspec.Struct):
    """What the daemon's line about a request has in the journal; journald gives all values as text."""

    AUDIOD_MODEL: str = ""
    AUDIOD_STATUS: str = ""
    AUDIOD_SECONDS: str = ""
    REALTIME: str = msgspec.field(default="", name="__REALTIME_TIMESTAMP")


def generate(scenario: Scenario, seed: int, host: int = 0) -> list[Arrival]:
    """The traffic of one host, in order of time. The same seed and host give the same."""
    makers = {"alternating": _alternating, "poisson": _poisson, "bursts": _bursts, "day": _day}
    arrivals = makers[scenario.traffic.kind](scenario, f"{seed}:{host}")
    return sorted(arrivals)


def service_s(scenario: Scenario, arrival: Arrival) -> float:
    """How long serving it takes."""
    if arrival.service_s is not None:
        return arrival.service_s
    model = scenario.models[arrival.model]
    return model.service_s(arrival.size) if arrival.size else model.mean_service_s


def _alternating(scenario: Scenario, seed: str) -> Iterator[Arrival]:
    models = cycle(scenario.models.items())
    random = Random(seed)
    gap_s = 1 / scenario.requests_per_s
    for number in range(math.floor(scenario.traffic.duration / gap_s)):
        name, model = next(models)
        yield _arrival(random, (number + 1) * gap_s, name, model)


def _poisson(scenario: Scenario, seed: str) -> Iterator[Arrival]:
    for name, model, random, rate in _streams(scenario, seed):
        for at in _times(random, rate, scenario.traffic.duration):
            yield _arrival(random, at, name, model)


def _bursts(scenario: Scenario, seed: str) -> Iterator[Arrival]:
    traffic = scenario.traffic
    for name, model, random, rate in _streams(scenario, seed):
        for start in _times(random, rate / traffic.burst, traffic.duration):
            for _ in range(traffic.burst):
                yield _arrival(random, start + random.uniform(0, traffic.burst_within), name, model)


def _day(scenario: Scenario, seed: str) -> Iterator[Arrival]:
    traffic = scenario.traffic
    hours, peak = traffic.hours, max(traffic.hours)
    mean = sum(hours) / len(hours)
    begin_s = Random(seed).uniform(0, DAY_S)
    for name, model, random, rate in _streams(scenario, seed):
        # Thinning (Lewis and Shedler 1979): as many as at the peak, of which the hour's share is kept.
        for at in _times(random, rate * peak / mean, traffic.duration):
            if random.random() * peak < hours[int((begin_s + at) % DAY_S / DAY_S * len(hours))]:
                yield _arrival(random, at, name, model)


def _streams(scenario: Scenario, seed: str) -> Iterator[tuple[str, Model, Random, float]]:
    """For each model its own chance, so that another model beside it changes nothing, and its requests a second."""
    shares = sum(model.share for model in scenario.models.values())
    for name, model in scenario.models.items():
        yield name, model, Random(f"{seed}:{name}"), scenario.requests_per_s * model.share / shares


def _times(random: Random, rate: float, until: float) -> Iterator[float]:
    if rate <= 0:
        return
    at = random.expovariate(rate)
    while at < until:
        yield at
        at += random.expovariate(rate)


def _arrival(random: Random, at: float, name: str, model: Model) -> Arrival:
    kind: Sizes = model.sizes[0]
    if len(model.sizes) > 1:
        kind = random.choices(model.sizes, [sizes.share for sizes in model.sizes])[0]
    size = kind.median * math.exp(random.gauss(0, kind.spread)) if kind.spread else kind.median
    return Arrival(at, name, min(size, kind.at_most), kind.priority)


# --- records ----------------------------------------------------------------------------------------------------------


def read(lines: Iterable[str], scenario: Scenario) -> list[Arrival]:
    """A record, or what `journalctl -o json` prints. Raises ConfigInvalid, with the line's number where it helps."""
    arrivals = []
    from_journal = False
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            if '"__REALTIME_TIMESTAMP"' in line:
                from_journal = True
                found = _of_journal(msgspec.json.decode(line, type=_JournalLine))
            else:
                found = msgspec.json.decode(line, type=Arrival)
        except (msgspec.DecodeError, ValueError) as error:
            raise ConfigInvalid(f"line {number} of the trace: {error}") from error
        if found is not None:
            arrivals.append(found)
    unknown = sorted({arrival.model for arrival in arrivals} - set(scenario.models))
    if unknown:
        raise ConfigInvalid(f"the trace asks for {', '.join(unknown)}, of which the scenario knows nothing")
    if not arrivals:
        raise ConfigInvalid("the trace holds no request")
    if from_journal:
        first = min(arrival.at for arrival in arrivals)
        arrivals = [msgspec.structs.replace(arrival, at=arrival.at - first) for arrival in arrivals]
    return sorted(arrivals)


def _of_journal(line: _JournalLine) -> Arrival | None:
    """When the request of a log line came, by Unix time: it is logged at its end. None where it asked for no model.

    Its size is not in the log, so that what it takes is the scenario's matter.
    """
    if not (line.AUDIOD_MODEL and line.AUDIOD_STATUS and line.AUDIOD_SECONDS):
        return None
    if line.AUDIOD_STATUS.startswith("4") and line.AUDIOD_STATUS not in _WANTED_A_MODEL:
        return None
    return Arrival(int(line.REALTIME) / 1e6 - float(line.AUDIOD_SECONDS), line.AUDIOD_MODEL)


def write(arrivals: Iterable[Arrival], file: TextIO) -> None:
    for arrival in arrivals:
        file.write(msgspec.json.encode(arrival).decode() + "\n")
