"""The daemon's Prometheus metrics: names, units and label sets, all bounded, in this one place.

Only records and renders; it asks nobody anything, except the scheduler's state when a scrape comes. A label's value is
a route, a status, a word of ours, or the name of a model that is configured; never what a client has sent.
"""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import prometheus_client.openmetrics.exposition as openmetrics
from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from audiod.media.audio_memory import AudioMemory
from audiod.residency import budget
from audiod.residency.events import (
    HOST,
    Announce,
    Cancelled,
    Cause,
    Event,
    Grant,
    Instruction,
    LoadFailed,
    Reject,
    Released,
    Requested,
    StartFailed,
    WorkerDied,
    WorkerStopped,
    ZygoteDied,
    ZygoteStopped,
)
from audiod.residency.scheduler import Scheduler
from audioproto import __version__
from audioproto.control import Work
from audioproto.errors import ModelNotFound, all_errors
from audioproto.types import Death
from audioproto.types import Residency as S
from audioproto.worker import Phase

OPENMETRICS = "application/openmetrics-text"

MEDIA_TASKS = ("decode", "encode", "listen")
MEDIA_FAILURES = ("crashed", "lost", "start_failed", "timeout")

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

_TRANSITIONS = {
    (S.STARTING, S.PARKED): "start",
    (S.LOADING, S.READY): "load",
    (S.PARKING, S.PARKED): "park",
    (S.STOPPING, S.UNLOADED): "unload",
}
"""Transitions whose duration is worth a histogram."""

_EVICTABLE = (S.PARKED, S.READY, S.DRAINING)
_EVICTED_TO = {S.PARKING: "parked", S.PARKED: "parked", S.STOPPING: "unloaded", S.UNLOADED: "unloaded"}
_EVICTED_TO |= {S.FAILED: "unloaded"}
"""Where a model that was up goes, by the next state: straight down where its process had died."""

_EVICTION_CAUSES = tuple(cause for cause in Cause if cause is not Cause.WANTED)
_DEATHS = (*Death, "start_failed", "load_failed")
STAGES = ("uploading", "decoding", "queued", "running", "aligning", "translating", "sending")
"""How far a request had come whose client left: it or the daemon was at its body, its audio, or its answer."""

LIVE_STEPS = ("waiting", "engine", "committed")
"""Of a hearing: until the model is there, in the engine; of a word: from its last audio until it is final and sent."""


@dataclass(frozen=True, slots=True)
class Described:
    """One metric, as a row of the table in etc/prometheus/README.md."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


METRICS = (
    # the daemon
    Described("audiod_build_info", "gauge", ("version", "python"), "Always 1; the labels say what runs."),
    Described("audiod_ready", "gauge", (), "1 while new work is welcome: all preloads done, no drain, no stop."),
    Described("audiod_draining", "gauge", (), "1 while a drain is on."),
    # traffic
    Described(
        "audiod_requests_total",
        "counter",
        ("endpoint", "model", "status"),
        "HTTP requests answered; status 499: the client left first.",
    ),
    Described(
        "audiod_request_seconds", "histogram", ("endpoint", "model"), "Time from a request to the end of its answer."
    ),
    Described("audiod_requests_in_flight", "gauge", ("endpoint",), "HTTP requests being answered."),
    Described(
        "audiod_request_errors_total", "counter", ("code",), "Requests answered with an error, or cut off by one."
    ),
    Described(
        "audiod_cancelled_requests_total",
        "counter",
        ("model", "stage"),
        "Requests whose client left before their answer was out.",
    ),
    Described(
        "audiod_first_byte_seconds",
        "histogram",
        ("model",),
        "Time from a speech request to the first byte of its audio.",
    ),
    Described("audiod_audio_seconds_total", "counter", ("model",), "Length of the audio transcribed or spoken."),
    Described("audiod_engine_seconds_total", "counter", ("model",), "Time that the engine took for that audio."),
    Described(
        "audiod_realtime_turn_seconds",
        "histogram",
        ("model",),
        "Time from the end of what was said in a Realtime session to its transcript.",
    ),
    Described(
        "audiod_live_seconds",
        "histogram",
        ("model", "step"),
        "Where the time goes from speech to the words of live turns.",
    ),
    Described("audiod_phase_seconds", "histogram", ("model", "phase"), "Time that a phase of speaking took."),
    Described(
        "audiod_phase_peak_bytes", "gauge", ("model", "phase"), "Most device memory in use in the last such phase."
    ),
    # queue
    Described("audiod_queue_requests", "gauge", ("model",), "Requests waiting for the model."),
    Described("audiod_queue_limit_requests", "gauge", (), "Requests that may wait, for all models together."),
    Described(
        "audiod_queue_oldest_seconds", "gauge", ("model",), "How long the longest-waiting request has waited so far."
    ),
    Described("audiod_queue_wait_seconds", "histogram", ("model",), "How long requests waited that got the model."),
    Described("audiod_leases", "gauge", ("model",), "Requests that the model is serving."),
    # residency
    Described(
        "audiod_model_state", "gauge", ("model", "state"), "1 for the state that the model is in, 0 for the others."
    ),
    Described(
        "audiod_transition_seconds",
        "histogram",
        ("model", "transition"),
        "How long starts, loads, parks and unloads took.",
    ),
    Described(
        "audiod_switch_seconds",
        "histogram",
        ("model", "from"),
        "Time from the first request for a model that is not ready until it is.",
    ),
    Described(
        "audiod_evictions_total",
        "counter",
        ("model", "cause", "to"),
        "Times that the model left the device, or the host.",
    ),
    Described(
        "audiod_worker_deaths_total",
        "counter",
        ("model", "reason"),
        "Processes of the model that died, or could not come up.",
    ),
    # memory
    Described("audiod_device_bytes", "gauge", ("device",), "Memory of the device in all, as last measured."),
    Described(
        "audiod_device_others_bytes", "gauge", ("device",), "Memory there that other programs held when last measured."
    ),
    Described("audiod_budget_bytes", "gauge", ("device",), "Memory that all loaded models together may hold."),
    Described(
        "audiod_resident_bytes",
        "gauge",
        ("device", "model"),
        "Memory that the model holds there, or has been promised.",
    ),
    Described("audiod_park_budget_bytes", "gauge", (), "Host memory that the zygotes of all models together may hold."),
    Described(
        "audiod_parked_bytes", "gauge", ("model",), "Host memory that the model's zygote holds, or has been promised."
    ),
    Described(
        "audiod_reclaim_residue_bytes", "gauge", ("model",), "Memory that its last park or unload did not give back."
    ),
    Described(
        "audiod_audio_memory_bytes", "gauge", (), "Audio held for requests: uploads, decoded or not, unsent speech."
    ),
    Described("audiod_audio_memory_limit_bytes", "gauge", (), "Audio that may be held for requests."),
    # media
    Described("audiod_media_failures_total", "counter", ("task", "reason"), "Media processes that failed at work."),
)


class _Snapshot(Collector):
    """Metrics that were read from the scheduler's state, on the event loop, for the scrape at hand."""

    def __init__(self) -> None:
        self.families: Sequence[Metric] = ()

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from self.families


class Metrics:
    """All metrics of one daemon, in a registry of their own."""

    def __init__(self) -> None:
        # Twice as many series, for a time that nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._described = {metric.name: metric for metric in METRICS}
        self._requests = self._counter("audiod_requests_total")
        self._seconds = self._histogram("audiod_request_seconds")
        self._in_flight = self._gauge("audiod_requests_in_flight")
        self._errors = self._counter("audiod_request_errors_total")
        self._cancelled = self._counter("audiod_cancelled_requests_total")
        self._first_byte = self._histogram("audiod_first_byte_seconds")
        self._audio = self._counter("audiod_audio_seconds_total")
        self._engine = self._counter("audiod_engine_seconds_total")
        self._turns = self._histogram("audiod_realtime_turn_seconds")
        self._live = self._histogram("audiod_live_seconds")
        self._phases = self._histogram("audiod_phase_seconds")
        self._phase_peaks = self._gauge("audiod_phase_peak_bytes")
        self._queue_wait = self._histogram("audiod_queue_wait_seconds")
        self._transitions = self._histogram("audiod_transition_seconds")
        self._switches = self._histogram("audiod_switch_seconds")
        self._evictions = self._counter("audiod_evictions_total")
        self._deaths = self._counter("audiod_worker_deaths_total")
        self._residue = self._gauge("audiod_reclaim_residue_bytes")
        self._media = self._counter("audiod_media_failures_total")
        self._gauge("audiod_build_info").labels(__version__, platform.python_version()).set(1)
        self._snapshot = _Snapshot()
        self.registry.register(self._snapshot)
        ProcessCollector(registry=self.registry)
        self._waiting: dict[int, tuple[str, float]] = {}
        self._running: dict[int, tuple[str, float]] = {}
        self._entered: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._known: set[str] = set()
        self.work: defaultdict[str, Work] = defaultdict(Work)
        """By model: what audioctl makes rates of, which cannot read a registry."""
        # A counter that appears with its first event shows no increase to Prometheus: so it is there before, with 0.
        for code in all_errors():
            self._errors.labels(code)
        self._cancelled.labels("", "uploading")
        for task in MEDIA_TASKS:
            for reason in MEDIA_FAILURES:
                self._media.labels(task, reason)

    def _counter(self, name: str) -> Counter:
        return Counter(name, self._described[name].help, self._described[name].labels, registry=self.registry)

    def _gauge(self, name: str) -> Gauge:
        return Gauge(name, self._described[name].help, self._described[name].labels, registry=self.registry)

    def _histogram(self, name: str) -> Histogram:
        metric = self._described[name]
        return Histogram(name, metric.help, metric.labels, buckets=_SECONDS, registry=self.registry)

    # --- what HTTP and media tell -----------------------------------------------------------------------------------

    def begin_request(self, endpoint: str) -> None:
        self._in_flight.labels(endpoint).inc()

    def end_request(self, endpoint: str, model: str, status: int, took_s: float) -> None:
        self._in_flight.labels(endpoint).dec()
        self._requests.labels(endpoint, model, str(status)).inc()
        self._seconds.labels(endpoint, model).observe(took_s)

    def observe_cancelled(self, model: str, stage: str) -> None:
        """A client left at a stage that residency knows nothing of; `model` is empty where it was not known yet."""
        self._cancelled.labels(model, stage).inc()

    def observe_error(self, code: str) -> None:
        self._errors.labels(code).inc()

    def observe_first_byte(self, model: str, took_s: float) -> None:
        self._first_byte.labels(model).observe(took_s)

    def observe_audio(self, model: str, audio_s: float, engine_s: float) -> None:
        self._audio.labels(model).inc(audio_s)
        self._engine.labels(model).inc(engine_s)
        self.work[model].audio_s += audio_s

    def observe_phase(self, model: str, phase: Phase) -> None:
        self._phases.labels(model, phase.name).observe(phase.seconds)
        if phase.peak_bytes:
            self._phase_peaks.labels(model, phase.name).set(phase.peak_bytes)

    def observe_turn(self, model: str, took_s: float) -> None:
        self._turns.labels(model).observe(took_s)

    def observe_live(self, model: str, step: str, took_s: float) -> None:
        """`step` is of LIVE_STEPS."""
        self._live.labels(model, step).observe(took_s)

    def observe_media_failure(self, task: str, reason: str) -> None:
        """`task` is of MEDIA_TASKS, `reason` of MEDIA_FAILURES."""
        self._media.labels(task, reason).inc()

    def watch(self, memory: AudioMemory) -> None:
        """Show `memory` in every scrape from now on."""
        self._gauge("audiod_audio_memory_bytes").set_function(lambda: memory.held_bytes)
        self._gauge("audiod_audio_memory_limit_bytes").set_function(lambda: memory.limit_bytes)

    # --- what the manager tells -------------------------------------------------------------------------------------

    def observe_step(self, event: Event, instructions: Sequence[Instruction], now: float) -> None:
        """An event of residency, and what is done about it; `now` is of the manager's clock."""
        match event:
            case Requested(request, model):
                self._waiting[request] = (model, now)  # a name that is unknown is refused below, in the same step
            case Cancelled(request):
                if waited := self._waiting.pop(request, None):
                    self._cancelled.labels(waited[0], "queued").inc()
            case Released(request, abandoned):
                if ran := self._running.pop(request, None):
                    self._ended(*ran, now, abandoned=abandoned)
            case StartFailed(model):
                self._deaths.labels(model, "start_failed").inc()
            case LoadFailed(model):
                self._deaths.labels(model, "load_failed").inc()
            case WorkerDied(model, _, death) | ZygoteDied(model, _, death):
                self._deaths.labels(model, death).inc()
            case WorkerStopped(model, residue_bytes) | ZygoteStopped(model, residue_bytes):
                self._residue.labels(model).set(residue_bytes)
        for instruction in instructions:
            match instruction:
                case Grant(request, model):
                    self._running[request] = (model, now)
                    _, since = self._waiting.pop(request)
                    self._queue_wait.labels(model).observe(now - since)
                    self.work[model].granted += 1
                    self.work[model].waited_s += now - since
                case Reject(request, error):
                    model, _ = self._waiting.pop(request)
                    if not isinstance(error, ModelNotFound):
                        self.work[model].refused += 1
                case Announce():
                    self._announced(instruction, now)

    def _ended(self, model: str, since: float, now: float, *, abandoned: bool) -> None:
        self.work[model].worked_s += now - since
        if abandoned:
            self._cancelled.labels(model, "running").inc()
        else:
            self.work[model].served += 1

    def _announced(self, announce: Announce, now: float) -> None:
        model, previous, state = announce.model, announce.previous, announce.state
        lasted_s = now - self._entered.get(model, now)
        self._entered[model] = now
        if name := _TRANSITIONS.get((previous, state)):
            self._transitions.labels(model, name).observe(lasted_s)
        if previous in _EVICTABLE and (to := _EVICTED_TO.get(state)):
            self._evictions.labels(model, announce.cause, to).inc()
        if state is S.STARTING:
            self._started[model] = now
        if state is S.READY and previous is S.LOADING:
            self.work[model].loads += 1
        if (previous, state) == (S.LOADING, S.READY) and announce.wanted_since is not None:
            cold = self._started.get(model, now) >= announce.wanted_since
            self._switches.labels(model, "unloaded" if cold else "parked").observe(now - announce.wanted_since)

    # --- scrapes ----------------------------------------------------------------------------------------------------

    def look(self, scheduler: Scheduler, now: float, *, ready: bool) -> None:
        """Take the gauges from the state as it is now. On the event loop, whose state it is."""
        for model in scheduler.models.keys() - self._known:
            self._make_known(model)
        families: list[Metric] = []

        def gauge(name: str) -> GaugeMetricFamily:
            family = GaugeMetricFamily(name, self._described[name].help, labels=self._described[name].labels)
            families.append(family)
            return family

        gauge("audiod_ready").add_metric([], ready and not scheduler.draining)
        gauge("audiod_draining").add_metric([], scheduler.draining)
        gauge("audiod_queue_limit_requests").add_metric([], scheduler.limits.queue_requests)
        totals, others = gauge("audiod_device_bytes"), gauge("audiod_device_others_bytes")
        for device, measured in scheduler.placement.measured.items():
            totals.add_metric([device], measured.total_bytes)
            others.add_metric([device], measured.others_bytes)
        budgets = gauge("audiod_budget_bytes")
        for device, device_bytes in scheduler.limits.devices.items():
            budgets.add_metric([device], device_bytes)
        gauge("audiod_park_budget_bytes").add_metric([], scheduler.limits.host_bytes)
        states, leases = gauge("audiod_model_state"), gauge("audiod_leases")
        queue, oldest = gauge("audiod_queue_requests"), gauge("audiod_queue_oldest_seconds")
        resident, parked = gauge("audiod_resident_bytes"), gauge("audiod_parked_bytes")
        for model, state in scheduler.models.items():
            for value in S:
                states.add_metric([model, value], state.state is value)
            leases.add_metric([model], len(state.leases))
            queue.add_metric([model], len(state.queue))
            came_at = state.queue.oldest_came_at
            oldest.add_metric([model], 0.0 if came_at is None else now - came_at)
            resident.add_metric([state.device, model], budget.holds(state, state.device))
            parked.add_metric([model], budget.holds(state, HOST))
        self._snapshot.families = families

    def _make_known(self, model: str) -> None:
        """Let the model's counters begin with 0."""
        self._known.add(model)
        for counter in (self._audio, self._engine, self._residue):
            counter.labels(model)
        for stage in STAGES:
            self._cancelled.labels(model, stage)
        for reason in _DEATHS:
            self._deaths.labels(model, reason)
        for cause in _EVICTION_CAUSES:
            for to in ("parked", "unloaded"):
                self._evictions.labels(model, cause, to)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The body, and its content type: OpenMetrics where `accept` names it, else Prometheus's text format.

        May take a moment: not for the event loop.
        """
        if any(kind.split(";")[0].strip() == OPENMETRICS for kind in accept.split(",")):
            body: bytes = openmetrics.generate_latest(self.registry)  # type: ignore[no-untyped-call]
            return body, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4
