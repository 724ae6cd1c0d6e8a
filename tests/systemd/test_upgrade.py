"""The life of an installation: upgraded while it works, switched off and on, removed, purged. In this order."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from audioproto import __version__
from systemd.conftest import listing
from systemd.service import UNITS, Service, Stream, speech, until

CONFIG = "/etc/audiod/audiod.toml"
EDIT = ("# queue_requests = 512", "queue_requests = 500")


def apt(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    return service.box.run("apt-get", "--yes", "--allow-downgrades", *arguments, timeout_s=300)


def invocations(service: Service) -> dict[str, str]:
    """What changes whenever a unit is started anew."""
    return {unit: service.box.show(unit, "InvocationID") for unit in UNITS}


def test_an_upgrade_and_a_rollback_over_the_working_service(
    service: Service, next_package: Path, measured: dict[str, str]
) -> None:
    box = service.box
    config = box.path(CONFIG)
    config.write_text(config.read_text().replace(*EDIT))
    shutil.copy(next_package, box.path("/root/audiod-next.deb"))
    began = invocations(service)
    with Stream(service) as stream:
        until(lambda: stream.spoken, "the first answer")
        apt(service, "install", "/root/audiod-next.deb")
        upgraded = stream.spoken
        until(lambda: stream.spoken > upgraded, "an answer after the upgrade")
    measured["upgrade under load"] = f"requests by outcome: {dict(stream.outcomes)}"
    # Told to come back, which every OpenAI SDK does by itself; nothing is refused, and nothing accepted is lost.
    assert set(stream.outcomes) <= {"spoken", "listed", "503"}
    assert service.status()["version"] == f"{__version__}+next"
    now = invocations(service)
    assert [unit for unit in UNITS if now[unit] != began[unit]] == ["audiod.service"]
    assert EDIT[1] in config.read_text()

    apt(service, "install", "/root/audiod.deb")
    assert service.status()["version"] == __version__
    assert service.speak().startswith(b"RIFF")
    assert EDIT[1] in config.read_text()


def test_maintainer_scripts_can_be_run_again(service: Service) -> None:
    """As dpkg does after an interruption: whatever is done is done, and what an operator has stopped stays so."""
    script = "/var/lib/dpkg/info/audiod"
    version, users = service.box.run("audiod", "--version").stdout.split()[1], service.box.shell("getent passwd")
    began = invocations(service)
    service.box.run(f"{script}.postinst", "configure", "")
    assert invocations(service) == began
    service.systemctl("stop", *UNITS)
    service.systemctl("disable", *UNITS)
    service.box.run(f"{script}.postinst", "configure", version)
    service.box.run(f"{script}.prerm", "upgrade", version)
    assert service.pid == 0
    assert service.box.shell("getent passwd") == users
    service.systemctl("enable", *UNITS)


def test_an_upgrade_that_is_given_up_leaves_it_working(service: Service) -> None:
    script = "/var/lib/dpkg/info/audiod"
    began = invocations(service)
    service.box.run(f"{script}.prerm", "upgrade", "0")
    assert service.request(*speech("This must wait."))[0] == 503
    service.box.run(f"{script}.postinst", "abort-upgrade", "0")
    assert service.speak().startswith(b"RIFF")
    assert invocations(service) == began


def test_it_is_there_again_after_a_reboot(service: Service, measured: dict[str, str]) -> None:
    down_s = service.box.shut_down()
    up_s = service.box.boot()
    took_s = until(service.active, "the service is active after the boot")
    measured["reboot"] = f"down {down_s:.1f} s, up {up_s:.1f} s, service active {took_s:.1f} s later"
    assert service.speak().startswith(b"RIFF")
    assert service.box.run("systemctl", "--failed", "--no-legend", "--plain").stdout == ""


def test_removing_keeps_configuration_and_state(service: Service) -> None:
    box = service.box
    state = box.shell("find /var/lib/audiod | sort")
    apt(service, "remove", "audiod")
    assert box.show("audiod.service", "LoadState") == "not-found"
    assert box.run("pgrep", "--euid", "audiod", check=False).stdout == ""
    assert box.shell("find /var/lib/audiod | sort") == state
    assert EDIT[1] in box.path(CONFIG).read_text()
    with pytest.raises(ConnectionRefusedError):
        service.request("GET", "/health/live")


def test_purging_leaves_nothing(installed: Service, before: str) -> None:
    box = installed.box
    box.shell("cp /var/lib/dpkg/info/audiod.postrm /root/postrm")
    apt(installed, "purge", "audiod")
    box.run("/root/postrm", "purge")
    left = sorted(set(listing(box).splitlines()) - set(before.splitlines()))
    assert [line for line in left if "audiod" in line] == []
    assert box.run("systemctl", "--failed", "--no-legend", "--plain").stdout == ""
    assert json.loads(box.shell("systemctl list-units --all --output=json 'audiod*'") or "[]") == []
