"""A Ray cluster of one node for tests: ``ray start --head`` in its own session, on free ports."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlengine.runtime.processes import Process
from mlengine.testing.airflow_home import free_port

_START_SECONDS = 180.0
_END_SECONDS = 5.0
# Without parts of Ray that no test uses and that take CPU time: the autoscaler (the set of nodes is fixed), the log
# monitor, and usage statistics.
HEAD_OPTIONS = ("--no-monitor",)
NODE_OPTIONS = ("--object-store-memory=80000000", "--disable-usage-stats", "--include-log-monitor=false")
# No processes for tasks are started in advance: the actors of a job need processes with its runtime environment. No
# metrics are collected.
_LESS_WORK = {
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_enable_metrics_collection": "0",
}


@dataclass
class RayCluster:
    """A running cluster.

    :param folder: where Ray keeps its own files, such as logs.
    :param gcs_port: the port that nodes connect to when they join, 6379 by default.
    """

    address: str
    folder: Path
    process: subprocess.Popen[bytes]
    gcs_port: int

    def processes(self) -> list[Process]:
        """The processes of the cluster itself: all processes in the session that ``ray start`` created."""
        found = []
        for path in Path("/proc").glob("[1-9]*"):
            with contextlib.suppress(OSError, ValueError):
                if os.getsid(int(path.name)) == self.process.pid and (one := Process.of(int(path.name))) is not None:
                    found.append(one)
        return found

    def kill(self) -> None:
        """Send SIGKILL to all of the cluster's processes, as if its machine had lost power."""
        for one in self.processes():
            one.signal(signal.SIGKILL)
        self.process.wait()


def node_environment(env: Mapping[str, str], scripts: Path = Path(sys.executable).parent) -> dict[str, str]:
    """The environment of a node's processes: this process's without variables of Ray and Airflow, plus ``env``.

    :param scripts: the folder of the interpreter that has Ray.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AIRFLOW"))}
    own["PATH"] = f"{scripts}:{own['PATH']}"
    # By default, a file that any ray.init() on this machine has written enables token authentication:
    # ~/.ray/auth_token.
    own["RAY_AUTH_MODE"] = "disabled"
    # By default Ray waits 60 s for a node: too short on a busy machine.
    own["RAY_DASHBOARD_STARTUP_TIMEOUT_S"] = f"{_START_SECONDS:.0f}"
    own["RAY_raylet_start_wait_time_s"] = f"{_START_SECONDS:.0f}"
    # With this variable, every process of the node would compile its imports again.
    own.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**own, **_LESS_WORK, **env, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}


@contextlib.contextmanager
def running(
    env: Mapping[str, str], *, cpus: int = 4, token: str = "", python: Path = Path(sys.executable)
) -> Iterator[RayCluster]:
    """Start a cluster. At the end, none of its processes is left.

    :param env: variables to add to the environment of its processes, such as where the bucket is.
    :param token: the token that requests must send; empty for none.
    :param python: the interpreter of the environment that has Ray.
    """
    ports = {
        name: free_port()
        for name in ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    }
    # The names of Ray's sockets are long, and the path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    scripts = python.parent
    own = node_environment(env, scripts)
    if token:
        own |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    command = [
        str(scripts / "ray"), "start", "--head", f"--num-cpus={cpus}", f"--temp-dir={folder}",
        "--dashboard-host=127.0.0.1", *HEAD_OPTIONS, *NODE_OPTIONS,
        *(f"--{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    cluster = RayCluster(f"http://127.0.0.1:{ports['dashboard-port']}", folder, process, ports["port"])
    try:
        _wait(cluster, token)
        yield cluster
    finally:
        for one in cluster.processes():
            one.signal(signal.SIGTERM)
        deadline = time.monotonic() + _END_SECONDS
        while cluster.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        cluster.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(cluster: RayCluster, token: str) -> None:
    """Wait until the dashboard answers and the head node is listed."""
    deadline = time.monotonic() + _START_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"{cluster.address}/api/v0/nodes?detail=1"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    while time.monotonic() < deadline:
        if cluster.process.poll():
            break
        with contextlib.suppress(OSError, ValueError), opener.open(request, timeout=5) as answer:
            if json.load(answer)["data"]["result"]["result"]:
                return
        time.sleep(0.3)
    raise AssertionError(f"Ray did not start:\n{(cluster.folder / 'start.log').read_text()[-3000:]}")
