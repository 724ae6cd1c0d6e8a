"""What /metrics says: valid, in both formats, every metric in the table, and no series that a client could make."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from audiod.metrics import METRICS
from daemons import Daemon
from scraping import SHIPPED

Promtool = Callable[..., subprocess.CompletedProcess[str]]

MADE_UP = 1000


def scrape(daemon: Daemon) -> str:
    status, body = daemon.get("/metrics")
    assert status == 200
    return body.decode()


def series(text: str) -> set[str]:
    """Names with labels, without values."""
    return {line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")}


@pytest.fixture(scope="module", autouse=True)
def used(daemon: Daemon) -> None:
    """Something to show: a model that has spoken."""
    body = {"model": "hibari", "input": "Hello there.", "voice": "alloy", "response_format": "wav"}
    status, _ = daemon.request("POST", "/v1/audio/speech", json.dumps(body).encode(), Content_Type="application/json")
    assert status == 200


@pytest.mark.prometheus
def test_promtool_finds_nothing_to_say(daemon: Daemon, promtool: Promtool) -> None:
    checked = promtool("check", "metrics", text=scrape(daemon))
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_openmetrics_for_whoever_asks_has_the_same_series(daemon: Daemon) -> None:
    scrape(daemon)  # itself a request, which is counted from then on
    text = scrape(daemon)
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(daemon.url).netloc, timeout=30)
    # What Prometheus 2.42 sends.
    accepted = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain"
    connection.request("GET", "/metrics", headers={"Accept": accepted})
    answer = connection.getresponse()
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    openmetrics = answer.read().decode()
    connection.close()
    assert openmetrics.endswith("# EOF\n")
    families = (parse_text(text), parse_openmetrics(openmetrics))  # type: ignore[no-untyped-call]
    samples = [
        {(sample.name, frozenset(sample.labels.items())) for family in of_one for sample in family.samples}
        for of_one in families
    ]
    assert samples[0] == samples[1]


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain", "application/openmetrics-textual", "\xff;=,;"])
def test_anyone_else_has_the_text_format(daemon: Daemon, accept: str) -> None:
    status, body = daemon.request("GET", "/metrics", Accept=accept)
    assert status == 200
    assert b"# EOF" not in body
    assert b"# TYPE audiod_requests_total counter\n" in body


def refusals(kind: str, number: int) -> Iterator[tuple[str, str, bytes, str]]:
    """Requests with something made up in every place where a client can say something."""
    word = f"made-up-{kind}-{number}"
    speech = {"model": "hibari", "input": "Hello.", "voice": "alloy"}
    for more in ({"model": word}, {"voice": word}, {"response_format": word}):
        yield "POST", "/v1/audio/speech", json.dumps(speech | more).encode(), "application/json"
    form = f'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n{word}\r\n'
    form += '--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nx\r\n--b--\r\n'
    yield "POST", "/v1/audio/transcriptions", form.encode(), "multipart/form-data; boundary=b"
    yield "GET", f"/v1/models/{word}/{word}", b"", ""
    yield "GET", f"/{word}", b"", ""
    yield "GET", f"/v1/audio/{word}?model={word}", b"", ""
    yield "DELETE", f"/v1/models/{word}", b"", ""


def test_a_thousand_made_up_models_paths_and_voices_make_no_series(daemon: Daemon) -> None:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(daemon.url).netloc, timeout=30)

    def refused(kind: str, number: int) -> int:
        count = 0
        for method, path, body, content_type in refusals(kind, number):
            connection.request(method, path, body, {"Content-Type": content_type} if content_type else {})
            answer = connection.getresponse()
            answer.read()
            assert 400 <= answer.status < 500, (method, path, answer.status)
            count += 1
        return count

    refused("first", 0)
    before = series(scrape(daemon))
    sent = number = 0
    while sent < MADE_UP:
        number += 1
        sent += refused("more", number)
    connection.close()
    text = scrape(daemon)
    assert series(text) == before
    assert "made-up" not in text


def test_the_table_in_the_readme_is_that_of_the_code() -> None:
    rows = [f"| `{m.name}` | {m.kind} | {', '.join(m.labels) or '-'} | {m.help} |" for m in METRICS]
    written = re.findall(r"^\| `audiod_.*$", (SHIPPED / "README.md").read_text(), re.MULTILINE)
    assert written == rows, "etc/prometheus/README.md should have:\n" + "\n".join(rows)


def test_the_readme_explains_every_label_and_its_words(daemon: Daemon) -> None:
    section = (SHIPPED / "README.md").read_text().split("| label | values |")[1]
    explained = dict(re.findall(r"^\| ([\w, ]+) \| (.*) \|$", section, re.MULTILINE))
    names = {name for labels in explained for name in labels.split(", ")}
    assert names == {name for metric in METRICS for name in metric.labels}
    for family in parse_text(scrape(daemon)):
        for sample in family.samples:
            for label in sample.labels.keys() & {
                "stage",
                "state",
                "transition",
                "from",
                "cause",
                "to",
                "reason",
                "task",
            }:
                assert f"`{sample.labels[label]}`" in explained[label], sample


def test_every_metric_of_the_table_is_shown_and_no_other(daemon: Daemon) -> None:
    shown = dict(re.findall(r"^# TYPE (audiod_\w+) (\w+)$", scrape(daemon), re.MULTILINE))
    assert shown == {metric.name: metric.kind for metric in METRICS}


def test_the_labels_are_those_of_the_table(daemon: Daemon) -> None:
    labels = {metric.name: set(metric.labels) for metric in METRICS}
    for family in parse_text(scrape(daemon)):
        if not family.name.startswith("audiod_"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels[name], sample


def test_the_process_shows_itself_by_the_usual_names(daemon: Daemon) -> None:
    text = scrape(daemon)
    for name in ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"):
        assert f"\nprocess_{name} " in text
    assert "python_gc" not in text
