"""Tests the real profile `ray` of docker-compose.yaml: a head, two workers, and a job with replicas on both workers.

Not part of the usual suite: ``make test-compose``. Airflow is not started: the head submits the job, as its container
has the image and the settings of Airflow.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import local_jobs
from tests.support.compose_stack import ComposeStack, compose_command

COMMAND = compose_command()
pytestmark = [
    pytest.mark.skipif(COMMAND is None, reason="no Docker engine answers, or there is no Docker Compose"),
    pytest.mark.timeout(3600),
]
SERVICES = ("gcs", "ray-head", "ray-worker")

# Submits a chief and two workers, waits for the end, and prints state and log as JSON.
SUBMIT = """
import base64, json, sys, time, uuid
from mlengine.backends import Submission, get_backend
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.storage.client import Storage

storage = Storage()
storage.client.create_bucket("compose-ray")
package = "gs://compose-ray/tiny-1.0-py3-none-any.whl"
storage.write(package, base64.b64decode(sys.argv[1]))
pools = (Pool(Role.CHIEF, 1), Pool(Role.WORKER, 2))
ray = {"placement": "SPREAD", "resources": {"CPU": 1}}
arguments = ("--chief", "say('TF', config['cluster'])")
spec = TrainingSpec("tiny.task", (package,), arguments, pools=pools, ray=ray)
backend = get_backend("ray")
handle = backend.submit(Submission(uuid.uuid4().hex, "job", 1, "gs://compose-ray/mnist/job", spec))
until = time.monotonic() + 600
while not (status := backend.describe([handle])[0]).state.terminal and time.monotonic() < until:
    time.sleep(0.5)
lines = [(line.replica, line.text) for line in backend.logs(handle, {}).lines]
print(json.dumps({"state": status.state, "detail": status.detail, "lines": lines}))
"""


@pytest.fixture(scope="module")
def ray_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    assert COMMAND is not None
    started = ComposeStack(tmp_path_factory.mktemp("compose"), COMMAND)
    started.configure()
    started.set(COMPOSE_PROFILES="local,ray", RAY_WORKER_CPUS="2")
    settings = started.folder / "mlengine.env"
    text = settings.read_text().replace("BACKEND=vertex", "BACKEND=ray", 1)
    settings.write_text(text.replace("#AIRFLOW__MLENGINE__RAY_ADDRESS", "AIRFLOW__MLENGINE__RAY_ADDRESS"))
    started.down()  # remove what a killed test has left
    try:
        started.compose("build", "init", seconds=1800)
        started.compose("up", "-d", *SERVICES)
        started.wait_until_well()
        yield started
    finally:
        started.down()


def test_replicas_run_on_both_workers(ray_stack: ComposeStack) -> None:
    package = base64.b64encode(local_jobs.wheel(local_jobs.ACTOR)).decode()
    output = ray_stack.compose("exec", "-T", "ray-head", "python3", "-c", SUBMIT, package, seconds=700)
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert found["state"] == "SUCCEEDED", found
    shown = next(text for replica, text in found["lines"] if replica == "chief-0" and text.startswith("TF "))
    cluster = json.loads(shown.removeprefix("TF ").replace("'", '"'))
    hosts = {address.rpartition(":")[0] for addresses in cluster.values() for address in addresses}
    assert len(hosts) == 2, "the replicas are on the two workers, and none is on the head"


def test_the_cluster_is_published_nowhere_and_knows_no_secret(ray_stack: ComposeStack) -> None:
    secrets = [value for name, value in ray_stack.values.items() if name.endswith(("_KEY", "_SECRET", "_PASSWORD"))]
    assert len(secrets) >= 5
    for service in ("ray-head", "ray-worker"):
        container = ray_stack.containers()[service]
        assert not container["HostConfig"]["PortBindings"]
        assert not [value for value in secrets if value in "\n".join(container["Config"]["Env"])]
