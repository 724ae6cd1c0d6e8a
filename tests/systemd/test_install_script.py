"""scripts/install under a real systemd: its units start the daemon, doctor finds it well, uninstall leaves no unit."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemons import TOP
from systemd.box import Box

PYTHON = "/usr/bin/python3"
"""The one that the box has, too: it is of the same release of Debian."""


@pytest.fixture(scope="module")
def machine(wheelhouse: Path, tree: Path) -> Iterator[Box]:
    """A box into which the checkout was installed from outside, as a packager would."""
    if subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip(f"{PYTHON} has no pip: run scripts/setup-system deb")
    machine = Box("script", tree, tree.parent / "script", {TOP: "/src"})
    install = [PYTHON, str(TOP / "scripts" / "install"), "--destdir", str(machine.upper)]
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheelhouse)}
    subprocess.run(install, check=True, timeout=280, env=os.environ | offline)
    machine.boot()
    try:
        yield machine
    finally:
        machine.kill()


def doctor(machine: Box) -> dict[str, list[str]]:
    """Verdicts by check."""
    answer = machine.run("audioctl", "doctor", "--json", check=False)
    verdicts: dict[str, list[str]] = {}
    for finding in json.loads(answer.stdout)["findings"]:
        verdicts.setdefault(finding["check"], []).append(finding["verdict"])
    assert answer.returncode == (1 if any("fail" in found for found in verdicts.values()) else 0)
    return verdicts


def test_the_units_of_the_prefix_run_the_daemon_and_go_without_a_trace(machine: Box) -> None:
    """One story, told in order: it takes a minute to begin."""
    machine.shell("systemd-sysusers && systemd-tmpfiles --create")
    down = doctor(machine)
    assert down["daemon"] == ["fail"]
    assert down["service"] == ["fail", "warn"], "it neither runs nor is it started at boot"
    assert down["config"] == ["ok"]

    machine.run("systemctl", "enable", "--now", "audiod")
    assert machine.show("audiod", "ExecStart").startswith("{ path=/usr/local/bin/audiod ;")
    up = doctor(machine)
    assert (up["daemon"], up["service"], up["socket"], up["http"]) == (["ok"], ["ok"], ["ok"], ["ok"])
    assert (up["user"], up["state"], up["media"]) == (["ok"], ["ok"], ["ok"])
    assert "fail" not in {verdict for found in up.values() for verdict in found}

    machine.run("systemctl", "kill", "--signal=KILL", "audiod")
    machine.shell("until audioctl version; do sleep 0.1; done", timeout_s=30)
    assert doctor(machine)["service"] == ["warn"], "it was restarted after a failure"

    machine.shell("chown -R root: /var/lib/audiod")
    assert "fail" in doctor(machine)["state"], "as after `sudo audiod install`"
    machine.shell("chown -R audiod: /var/lib/audiod")

    machine.run("useradd", "--create-home", "joe")
    said = machine.run("su", "joe", "-c", "audioctl doctor", check=False)
    assert said.returncode == 1
    assert "try: sudo usermod -aG audiod joe" in said.stdout

    machine.run("python3", "/src/scripts/install", "--uninstall")
    assert machine.shell("systemctl list-units --all --no-legend 'audiod*'").strip() == ""
    assert machine.shell("find /usr/local/bin /run/audiod -mindepth 1 2>/dev/null || true") == ""
    assert machine.shell("ls /etc/audiod").split() == ["api-keys", "audiod.toml", "models.d"]
    assert machine.shell("ls -d /var/lib/audiod").strip() == "/var/lib/audiod"
