"""The Debian package as a file, and as it is just installed: before any model is there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from audioproto import __version__
from daemons import TOP
from systemd.conftest import Package
from systemd.service import UNITS, Service

ALL_UNITS = (*UNITS, "audiod-pull@.service", "audiod-runtime@.service")
MOST_EXPOSED = 2.0


def field(package: Package, name: str) -> str:
    return subprocess.run(
        ["dpkg-deb", "--field", package.path, name], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_lintian_has_nothing_to_say(package: Package, lintian: subprocess.Popen[str]) -> None:
    said, _ = lintian.communicate(timeout=600)
    assert (lintian.returncode, said) == (0, "")


def test_every_lintian_override_has_its_reason() -> None:
    lines = (TOP / "packaging/debian/audiod.lintian-overrides").read_text().splitlines()
    reason = ""
    for line in lines:
        if line.startswith("audiod: "):
            assert reason, f"no reason above {line!r}"
        else:
            reason = line


def test_it_is_the_version_of_the_code(package: Package) -> None:
    assert field(package, "Version") == __version__
    assert package.path.name.startswith(f"audiod_{__version__}_")


def test_it_is_bound_to_the_python_that_it_was_built_for(package: Package, installed: Service) -> None:
    python = Path(installed.box.shell("readlink --canonicalize /usr/lib/audiod/venv/bin/python").strip())
    assert python.parent == Path("/usr/bin")
    assert re.fullmatch(r"python3\.\d+", python.name)
    assert python.name in field(package, "Depends").split(", ")


def test_a_build_that_fails_says_why_and_leaves_nothing(package: Package, tmp_path: Path) -> None:
    for name in ("empty", "scratch"):
        (tmp_path / name).mkdir()
    built = subprocess.run(
        [TOP / "scripts/build-deb", "--wheelhouse", tmp_path / "empty", "--output", tmp_path / "output"],
        env=os.environ | {"TMPDIR": str(tmp_path / "scratch")},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 1
    assert "dpkg-buildpackage failed" in built.stderr
    assert not (tmp_path / "output").exists()
    assert list((tmp_path / "scratch").iterdir()) == []
    assert [path.name for path in package.path.parent.iterdir()] == [package.path.name]


def test_installing_starts_it_and_its_sockets(installed: Service) -> None:
    assert installed.active()
    assert installed.request("GET", "/health/ready")[0] == 200
    for unit in UNITS:
        assert installed.box.run("systemctl", "is-enabled", unit).stdout.strip() == "enabled"
    assert "models installed" in installed.box.show("audiod.service", "StatusText")


def test_its_files_belong_to_whom_they_should(installed: Service) -> None:
    owners = installed.box.shell(
        "stat --format '%A %U:%G %n' /etc/audiod/api-keys /etc/audiod/audiod.toml /run/audiod/control.sock"
        " /var/lib/audiod /usr/lib/audiod/venv"
    )
    assert owners.splitlines() == [
        "-rw------- root:root /etc/audiod/api-keys",
        "-rw-r--r-- root:root /etc/audiod/audiod.toml",
        "srw-rw---- root:audiod /run/audiod/control.sock",
        "drwxr-xr-x audiod:audiod /var/lib/audiod",
        "drwxr-xr-x root:root /usr/lib/audiod/venv",
    ]


def test_its_units_are_right(installed: Service) -> None:
    names = [name.replace("@", "@hibari") for name in ALL_UNITS]
    said = installed.box.run("systemd-analyze", "verify", "--man=no", *names)
    assert said.stdout + said.stderr == ""


def test_it_is_hardly_exposed(installed: Service, measured: dict[str, str]) -> None:
    for unit in ("audiod.service", "audiod-pull@hibari.service", "audiod-runtime@hibari.service"):
        limit = f"--threshold={MOST_EXPOSED * 10:.0f}"
        said = installed.box.run("systemd-analyze", "security", "--no-pager", limit, unit).stdout
        found = re.search(r"exposure level for \S+: ([\d.]+)", said)
        assert found, said
        assert float(found[1]) <= MOST_EXPOSED
        measured[f"exposure of {unit}"] = found[1]


def test_the_service_may_open_the_gpu_and_no_other_device(installed: Service) -> None:
    # Device nodes as the driver makes them; there is no driver: "no such device" is what the kernel says to those who
    # may open one.
    box = installed.box
    box.shell("mknod -m 666 /dev/nvidiactl c 195 255; mknod -m 666 /dev/kmsg0 c 1 11")
    allowed = [word for word in box.show("audiod.service", "DeviceAllow").splitlines() if word]
    policy = [
        f"DevicePolicy={box.show('audiod.service', 'DevicePolicy')}",
        *(f"DeviceAllow={line}" for line in allowed),
    ]
    options = [option for setting in policy for option in ("--property", setting)]

    def opening(device: str) -> str:
        program = f"open({device!r})"
        tried = box.run("systemd-run", "--quiet", "--wait", "--pipe", *options, "python3", "-c", program, check=False)
        return tried.stderr.strip().rpartition("\n")[2]

    assert "No such device or address" in opening("/dev/nvidiactl")
    assert "Operation not permitted" in opening("/dev/kmsg0")


def test_commands_manual_pages_and_completions_are_where_they_are_looked_for(installed: Service) -> None:
    box = installed.box
    assert box.run("audioctl", "version").stdout.count(__version__) >= 1
    assert __version__ in box.run("audiod", "--version").stdout
    files = box.run("dpkg", "--listfiles", "audiod").stdout.split()
    for path in (
        "/usr/share/man/man1/audioctl.1.gz",
        "/usr/share/man/man8/audiod.8.gz",
        "/usr/share/man/man5/audiod.toml.5.gz",
        "/usr/share/man/man5/audiod-models.5.gz",
        "/usr/share/bash-completion/completions/audioctl",
        "/usr/share/zsh/vendor-completions/_audioctl",
        "/usr/share/fish/vendor_completions.d/audioctl.fish",
    ):
        assert path in files
    programs = {Path(path).name for path in files if Path(path).match("venv/bin/*")}
    assert {name for name in programs if not name.startswith("python3.")} == {"audioctl", "audiod", "python", "python3"}
