"""The daemon's Prometheus metrics: names, units and label sets, all bounded, in this one place.

Only records and renders; it asks nobody anything, except the scheduler's state when a scrape comes.
"""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import generate_latest

from audiod.residency.events import Announce
from audiod.residency.scheduler import Scheduler
from audioproto import __version__
from audioproto.types import Residency

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

_TRANSITIONS = {
    (Residency.STARTING, Residency.PARKED): "start",
    (Residency.LOADING, Residency.READY): "load",
    (Residency.PARKING, Residency.PARKED): "park",
    (Residency.STOPPING, Residency.UNLOADED): "stop",
}
"""Transitions whose duration is worth a histogram."""


class Metrics:
    """All metrics of one daemon, in a registry of their own."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        Info("audiod_build", "Version of the daemon.", registry=self.registry).info({"version": __version__})
        self._requests = Counter(
            "audiod_requests", "HTTP requests.", ["endpoint", "model", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "audiod_request_seconds",
            "Time to the end of the answer.",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._transitions = Histogram(
            "audiod_transition_seconds",
            "Time that a model took to change its residency.",
            ["model", "transition"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._audio = Counter("audiod_audio_seconds", "Audio transcribed or spoken.", ["model"], registry=self.registry)
        self._engine = Counter("audiod_engine_seconds", "Time in engines on it.", ["model"], registry=self.registry)
        self._deaths = Counter(
            "audiod_failures", "Times a model failed to start, load or stay up.", ["model"], registry=self.registry
        )
        self._state = Gauge(
            "audiod_model_state",
            "1 for the residency that the model is in.",
            ["model", "state"],
            registry=self.registry,
        )
        self._bytes = Gauge(
            "audiod_model_bytes", "Memory reserved for the model.", ["model", "resource"], registry=self.registry
        )
        self._queue = Gauge("audiod_queue_requests", "Requests waiting for a model.", ["model"], registry=self.registry)
        self._leases = Gauge("audiod_leases", "Requests being served.", ["model"], registry=self.registry)
        self._budget = Gauge("audiod_budget_bytes", "The budget.", ["resource"], registry=self.registry)

    def observe_request(self, endpoint: str, model: str, status: int, took_s: float) -> None:
        self._requests.labels(endpoint, model, str(status)).inc()
        self._seconds.labels(endpoint).observe(took_s)

    def observe_audio(self, model: str, audio_s: float, engine_s: float) -> None:
        self._audio.labels(model).inc(audio_s)
        self._engine.labels(model).inc(engine_s)

    def observe_transition(self, announce: Announce, lasted_s: float) -> None:
        """`lasted_s` is how long the state before the transition lasted."""
        if name := _TRANSITIONS.get((announce.previous, announce.state)):
            self._transitions.labels(announce.model, name).observe(lasted_s)
        if announce.state is Residency.FAILED:
            self._deaths.labels(announce.model).inc()

    def observe_models(self, scheduler: Scheduler) -> None:
        """Take the gauges from the state as it is now."""
        self._budget.labels("device").set(scheduler.limits.device_bytes)
        self._budget.labels("host").set(scheduler.limits.host_bytes)
        for model in scheduler.models.values():
            for state in Residency:
                self._state.labels(model.model, state).set(model.state is state)
            self._bytes.labels(model.model, "device").set(model.ready_bytes if model.on_device else 0)
            self._queue.labels(model.model).set(len(model.waiters))
            self._leases.labels(model.model).set(len(model.leases))

    def render(self) -> bytes:
        """Prometheus text format. May take a moment; not for the event loop."""
        return generate_latest(self.registry)
