"""The dashboard and the rules on a real Prometheus that has scraped a real day of a daemon, in short.

Loads, a switch under pressure, a park, an unload, errors, clients that leave, a worker that is killed.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import signal
import socket
import urllib.parse
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import imitations
import realtime
from daemons import AUDIO, TOP, Daemon, form, running, say, transcribe
from scraping import Prometheus, program, scraping, until

pytestmark = pytest.mark.prometheus

DASHBOARD = json.loads((TOP / "etc" / "grafana" / "audiod.json").read_text())
ROWS = ["Traffic", "Latency", "Residency", "Memory", "Queue", "Faults"]

MAY_REST_AT_ZERO = {
    "Not given back",
    "Media processes that failed",
    "Waiting",  # these two are seen only by a scrape that comes while somebody waits
    "Longest wait now",
}
"""Panels on which nothing but zero is right, or may be, after a day like this."""

WINDOW_S = 5


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Title of the panel and expression, of everything that the dashboard asks."""
    found = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
    annotations = [a for a in DASHBOARD["annotations"]["list"] if "expr" in a]
    return found + [(annotation["name"], annotation["expr"]) for annotation in annotations]


def filled_in(expression: str) -> str:
    """The expression as Grafana sends it, with everything chosen."""
    for name, value in (
        ("$__rate_interval", f"{WINDOW_S}s"),
        ("$__interval", f"{WINDOW_S}s"),
        ("$instance", ".*"),
        ("$model", ".*"),
    ):
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


@dataclass
class Day:
    prometheus: Prometheus
    start: float
    end: float


def long_recording() -> bytes:
    """A clip of 11 s four times over: work for seconds, on whatever machine."""
    made = io.BytesIO()
    with wave.open(str(AUDIO / "jfk.wav")) as clip, wave.open(made, "wb") as long:
        long.setparams(clip.getparams())
        long.writeframes(clip.readframes(clip.getnframes()) * 4)
    return made.getvalue()


def begin_transcription(daemon: Daemon) -> socket.socket:
    """Send a long recording and do not wait for the words; closing the socket is leaving."""
    body, content_type = form(long_recording(), model="whisper-base")
    address = urllib.parse.urlsplit(daemon.url)
    sock = socket.create_connection((address.hostname or "", address.port or 0))
    head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n"
    sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return sock


def samples(daemon: Daemon) -> dict[str, float]:
    """The daemon's own figures, by name and labels."""
    lines = daemon.get("/metrics")[1].decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


def leave(daemon: Daemon) -> None:
    """Two clients leave: the second while it waits behind the first, the first while it is served."""
    leases, queue = 'audiod_leases{model="whisper-base"}', 'audiod_queue_requests{model="whisper-base"}'
    cancelled = 'audiod_cancelled_requests_total{{model="whisper-base",stage="{}"}}'
    before = samples(daemon)
    first = begin_transcription(daemon)
    until(lambda: samples(daemon)[leases] == 1)
    second = begin_transcription(daemon)
    until(lambda: samples(daemon)[queue] == 1)
    for sock, stage in ((second, "queued"), (first, "running")):
        sock.close()
        name = cancelled.format(stage)
        until(lambda name=name: samples(daemon)[name] == before[name] + 1)  # type: ignore[misc]


def spend(daemon: Daemon) -> None:
    """What a day has to offer."""
    clip = (AUDIO / "librispeech-6930-75918-0000.wav").read_bytes()
    assert say(daemon, model="hibari", response_format="mp3")[0] == 200
    assert transcribe(daemon, clip)[0] == 200
    assert say(daemon, model="hibari", response_format="mp3")[0] == 200
    assert say(daemon, speed=9)[0] == 400
    assert say(daemon, model="nonesuch")[0] == 404
    assert imitations.speak(daemon, voice=imitations.data_url(imitations.tone(440)))[0] == 200
    assert daemon.get("/nonesuch")[0] == 404
    assert daemon.ctl("load", "whisper-base").returncode == 0
    leave(daemon)
    deaths = 'audiod_worker_deaths_total{model="whisper-base",reason="killed"}'
    before = samples(daemon)[deaths]
    assert daemon.ctl("load", "whisper-base").returncode == 0
    os.kill(daemon.model("whisper-base")["worker_pid"], signal.SIGKILL)
    until(lambda: samples(daemon)[deaths] == before + 1)
    assert transcribe(daemon, clip)[0] == 200
    with realtime.session(daemon, transcription=realtime.ENGLISH | {"delay": "xhigh"}) as client:
        client.append(realtime.SILENCE)
        client.commit()
        client.until("transcription.completed")
    assert daemon.ctl("park", "whisper-base").returncode == 0
    assert daemon.ctl("unload", "hibari").returncode == 0


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory, state_dir: Path, engines_made: Path) -> Iterator[Day]:
    """Room for one model at a time; the same twice, because the first of anything shows no rate."""
    if program("prometheus") is None:
        pytest.skip("no Prometheus here: scripts/setup-system prometheus")
    settings = '[residency]\nbudget = "310MiB"\nmax_switch_wait = "0s"\n'
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(running(tmp_path_factory.mktemp("daemon"), state_dir, settings, engines_made))
        prometheus = stack.enter_context(scraping(tmp_path_factory.mktemp("prometheus"), daemon.url))
        start = prometheus.catch_up()
        for _ in range(2):
            spend(daemon)
            prometheus.catch_up()
        end = prometheus.catch_up()
        yield Day(prometheus, start, end)


@pytest.mark.parametrize(("title", "expression"), queries())
def test_every_query_of_the_dashboard_parses_and_has_data(day: Day, title: str, expression: str) -> None:
    series = day.prometheus.over(filled_in(expression), day.start, day.end)
    if title == "Restarts":
        return  # a query that parses; the daemon was not restarted
    values = [value for one in series for _, value in one.values if not math.isnan(value)]
    assert values, f"{title}: no data"
    if title not in MAY_REST_AT_ZERO:
        assert max(values) > 0, f"{title}: nothing but zero"
    for one in series:
        assert "__name__" not in one.labels or one.labels["__name__"].startswith(("audiod_", "process_"))


def test_the_variables_of_the_dashboard_find_something(day: Day) -> None:
    """Grafana asks for `label_values(selector, label)` as series that match."""
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] != "query":
            continue
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert found
        matching = day.prometheus.ask("series", **{"match[]": filled_in(found[1])})
        assert {series[found[2]] for series in matching}, variable["name"]


def test_the_day_is_told_as_it_was(day: Day) -> None:
    def now(expression: str) -> float:
        value = day.prometheus.value(expression)
        assert value is not None, expression
        return value

    hibari = 'endpoint="/v1/audio/speech",model="hibari"'
    assert now(f'audiod_requests_total{{{hibari},status="200"}}') == 4
    assert now('audiod_request_errors_total{code="model_not_found"}') == 2
    assert now('sum(audiod_requests_total{status="499"})') == 4
    assert now('audiod_cancelled_requests_total{stage="queued",model="whisper-base"}') == 2
    assert now('audiod_cancelled_requests_total{stage="running",model="whisper-base"}') == 2
    assert now('audiod_worker_deaths_total{reason="killed",model="whisper-base"}') == 2
    assert now('sum(audiod_evictions_total{cause="pressure"})') >= 1
    assert now('audiod_evictions_total{cause="operator",model="hibari",to="unloaded"}') >= 1
    states = {
        s["metric"]["model"]: s["metric"]["state"]
        for s in day.prometheus.ask("query", query="audiod_model_state == 1")["result"]
    }
    assert states["whisper-base"] == "parked", states
    assert now('audiod_resident_bytes{model="whisper-base"}') == 0
    assert now('audiod_parked_bytes{model="whisper-base"}') > 1e6
    assert now('audiod_first_byte_seconds_count{model="hibari"}') == 4
    assert now('sum(audiod_switch_seconds_count{from="unloaded"})') >= 2
    assert now('audiod_audio_seconds_total{model="hibari"}') > 2, "four times Hello there."
    assert now('audiod_audio_seconds_total{model="whisper-base"}') == pytest.approx(4 * 3.505 + 2), "a clip, four times"
    assert now("sum(audiod_requests_in_flight)") == 1, "the scrape itself"
    assert now("audiod_ready") == 1


def test_every_rule_evaluates_and_the_right_alerts_are_quiet(day: Day) -> None:
    def evaluated() -> list[dict[str, Any]]:
        rules = [rule for group in day.prometheus.ask("rules")["groups"] for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else []

    rules = until(evaluated)
    assert [rule for rule in rules if rule["health"] != "ok"] == []
    firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
    # Two workers were killed: one more and it would be a loop.
    assert firing == set()
    records = [rule["name"] for rule in rules if rule["type"] == "recording"]
    for name in records:
        assert day.prometheus.over(name, day.start, day.end), f"{name} has no data"


# --- the file itself --------------------------------------------------------------------------------------------------


def test_the_dashboard_can_be_provisioned_anywhere() -> None:
    """No id of another Grafana's, no data source but the one that is chosen, every panel with its unit."""
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"] == "audiod"
    assert "__inputs" not in DASHBOARD
    variables = {variable["name"]: variable["type"] for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"] == "datasource"
    for panel in panels():
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"], panel["title"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_rows_are_in_their_order_and_no_panels_overlap() -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in DASHBOARD["panels"]]
    assert [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"] == ROWS
    taken: dict[tuple[int, int], str] = {}
    for title, place in places:
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{title} lies over {taken.get((x, y))}"
                taken[x, y] = title


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    """What nobody looks at need not be measured."""
    from audiod.metrics import METRICS

    rules = (TOP / "etc" / "prometheus" / "audiod.rules.yml").read_text()
    seen = rules + " ".join(expression for _, expression in queries())
    unseen = {metric.name for metric in METRICS if not re.search(rf"\b{metric.name}(_bucket|_sum|_count)?\b", seen)}
    assert unseen == {"audiod_draining"}, "that one says why audiod_ready is 0"
