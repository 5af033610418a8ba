"""Starts the real stack of docker-compose.yaml with separate ports, passwords and volumes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from scripts import compose_env

from mlengine.testing.airflow_api import AirflowApi
from mlengine.testing.airflow_home import free_port

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "mlengine-test"
WELL_SECONDS = 420.0


def compose_command() -> list[str] | None:
    """``docker compose`` or the older ``docker-compose``; ``None`` if neither is installed or no engine answers."""
    if shutil.which("docker") is None or not _works(["docker", "info"]):
        return None
    return next((one for one in (["docker", "compose"], ["docker-compose"]) if _works([*one, "version"])), None)


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@dataclass
class ComposeStack:
    """One Docker Compose project. Its two env files are in ``folder``."""

    folder: Path
    command: Sequence[str]
    ports: Mapping[str, int] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def configure(self) -> None:
        self.ports = {name: free_port() for name in ("airflow_port", "tensorboard_port", "gcs_port")}
        compose_env.write(self.folder, self.ports)

    def set(self, **values: str) -> None:
        """Change ``.env`` as an operator would."""
        file = self.folder / ".env"
        lines = [line for line in file.read_text().splitlines() if line.partition("=")[0] not in values]
        file.write_text("\n".join([*lines, *(f"{name}={value}" for name, value in values.items()), ""]))

    @cached_property
    def values(self) -> dict[str, str]:
        lines = [line for line in (self.folder / ".env").read_text().splitlines() if line and not line.startswith("#")]
        return {name: "".join(shlex.split(value)) for name, _, value in (line.partition("=") for line in lines)}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['airflow_port']}"

    @cached_property
    def password(self) -> str:
        return str(json.loads(self.values["AIRFLOW_PASSWORDS"])["admin"])

    @cached_property
    def api(self) -> AirflowApi:
        return AirflowApi(self.url, "admin", self.password)

    def page(self, path: str) -> Any:
        """Request a resource of the page's API with a login, as the page in Airflow does."""
        login = {"username": "admin", "password": self.password}
        token = _json("POST", f"{self.url}/auth/token", login)["access_token"]
        return _json("GET", f"{self.url}/mlengine/api/{path}", token=token)

    def compose(self, *words: str, seconds: float = 900) -> str:
        """Run a Docker Compose command and return its output.

        :raises AssertionError: the command failed; the message has its output.
        """
        # Variables of the shell take precedence over an env file, so remove those of this process.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MLENGINE"))}
        done = subprocess.run(
            [*self.command, "--env-file", str(self.folder / ".env"), "-p", PROJECT, *words],
            cwd=ROOT,
            env={**kept, "MLENGINE_ENV_FILE": str(self.folder / "mlengine.env")},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def timed(self, name: str, action: Callable[[], object]) -> None:
        begun = time.monotonic()
        action()
        self.figures[name] = round(time.monotonic() - begun, 1)

    def run(self, service: str, *words: str) -> str:
        """The output of a command in a running service."""
        return self.compose("exec", "-T", service, *words, seconds=180)

    def containers(self) -> dict[str, dict[str, Any]]:
        """What the engine reports about the container of each service, including exited ones; the last of several."""
        return {_service(one): one for one in self._inspected()}

    def _inspected(self) -> list[dict[str, Any]]:
        ids = self.compose("ps", "-q", "-a").split() or []
        if not ids:
            return []
        # A container that is being replaced is not found; the output still has the others.
        done = subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True, check=False)
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def unwell(self) -> dict[str, str]:
        """The services that are neither healthy nor, if they are meant to exit, exited with code 0."""
        found = {}
        for container in self._inspected():
            state = container["State"]
            health = state.get("Health", {}).get("Status")
            if (health != "healthy") if health else (state["Status"] != "exited" or state["ExitCode"]):
                found[_service(container)] = health or f"{state['Status']} {state['ExitCode']}"
        return found

    def wait_until_well(self, *services: str, since: float | None = None, seconds: float = WELL_SECONDS) -> None:
        """Wait until the services are healthy, or all of them if none is named.

        :raises AssertionError: a service is still unhealthy after ``seconds``; the message has the end of its log.
        """
        begun = since or time.monotonic()
        while True:
            unwell = {name: why for name, why in self.unwell().items() if not services or name in services}
            if not unwell:
                return
            if time.monotonic() - begun > seconds:
                logs = self.compose("logs", "--tail", "30", *unwell)
                raise AssertionError(f"not well after {seconds:.0f} s: {unwell}\n{logs}")
            time.sleep(1)

    def up(self) -> None:
        self.compose("up", "-d", "--remove-orphans")

    def bring_up(self) -> None:
        self.up()
        self.wait_until_well()

    def down(self) -> None:
        self.compose("down", "-v", "--remove-orphans", "-t", "20")

    def restart(self, service: str) -> None:
        self.compose("restart", service)

    def image_sizes(self) -> dict[str, int]:
        """The size in MB of every image that the stack runs."""
        names = sorted({container["Config"]["Image"] for container in self.containers().values()})
        done = subprocess.run(
            ["docker", "image", "inspect", "--format", "{{.Size}}", *names], capture_output=True, text=True, check=True
        )
        return {name: int(size) // 10**6 for name, size in zip(names, done.stdout.split(), strict=True)}


def _service(container: dict[str, Any]) -> str:
    return str(container["Config"]["Labels"]["com.docker.compose.service"])


def _json(method: str, url: str, body: Mapping[str, Any] | None = None, token: str = "") -> Any:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        return json.loads(answer.read())
