"""A model that has no room on its device as a whole, in a real daemon: counted by its least, told by every verb."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemons import TOP, Daemon, say
from watching import events_of

MIB = 2**20


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[Daemon]:
    """Of 400 MiB; `staged` would take 600, or 300 at least, and `larger` 500 at least."""
    daemon = Daemon(tmp_path_factory.mktemp("staged"), state_dir, '[residency]\nbudget = "400MiB"\n')
    shipped = (TOP / "etc/models.d/hibari.toml").read_text()
    for name, least in (("staged", "300MiB"), ("larger", "500MiB")):
        text = shipped.replace('id = "hibari"', f'id = "{name}"')
        text = re.sub(r"^ready_bytes = .*$", f'ready_bytes = "600MiB"\nstaged_bytes = "{least}"', text, flags=re.M)
        (daemon.directory / f"models.d/{name}.toml").write_text(text)
    daemon.start()
    yield daemon
    daemon.stop()
    daemon.check_log()


def test_what_fits_by_its_least_is_loaded_and_said_to_be_staged(daemon: Daemon) -> None:
    why = daemon.ctl("why", "staged").stdout
    assert "it must be loaded to cpu, staged, for as a whole it has no room there" in why
    assert "300 MiB of 400 MiB that are free" in why
    status, body = say(daemon, model="staged")
    assert status == 200, body
    model = daemon.model("staged")
    assert model["needs"]["staged_bytes"] == 300 * MIB
    assert model["device_bytes"] >= 300 * MIB, "however little it holds"
    shown = " ".join(daemon.ctl("status").stdout.split())
    assert "staged is staged: 300 MiB of cpu are set aside for what it needs there at a time" in shown
    told = daemon.ctl("doctor").stdout
    assert re.search(r"needs 300 MiB loaded \(staged\), .* parked", " ".join(told.split()))


def test_what_fits_neither_way_is_refused_with_what_it_needs_at_least(daemon: Daemon) -> None:
    status, body = say(daemon, model="larger")
    assert status == 507
    assert "larger needs 500 MiB on cpu; the budget is 400 MiB" in json.loads(body)["error"]["message"]


def test_a_larger_budget_has_it_loaded_as_a_whole(daemon: Daemon) -> None:
    daemon.config.write_text(daemon.config.read_text().replace("400MiB", "700MiB"))
    assert daemon.ctl("reload").returncode == 0
    status, body = say(daemon, model="staged")
    assert status == 200, body
    model = daemon.model("staged")
    assert model["needs"]["staged_bytes"] == 0
    assert "more or less of the device" in daemon.ctl("why", "staged", "--all").stdout


def test_what_is_pinned_comes_back_after_a_reload_that_ends_its_processes(daemon: Daemon) -> None:
    file = daemon.directory / "models.d/staged.toml"
    file.write_text("pinned = true\n" + file.read_text())
    assert say(daemon, model="staged")[0] == 200
    with events_of(daemon) as events:
        daemon.config.write_text(re.sub('budget = ".*"', 'budget = "400MiB"', daemon.config.read_text()))
        assert daemon.ctl("reload").returncode == 0
        assert next(event for event in events if event["kind"] == "state" and event["state"] == "unloaded")
        assert next(event for event in events if event["kind"] == "state" and event["state"] == "ready")
    assert daemon.model("staged")["needs"]["staged_bytes"] == 300 * MIB
