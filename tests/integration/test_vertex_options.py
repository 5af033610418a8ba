"""Tests options of a Vertex AI job with the emulator, which checks requests and responds with Google's messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlengine.backends import Submission
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.cli import main
from mlengine.core.errors import BackendError
from mlengine.core.job import JobHandle, JobState
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.storage.client import Storage
from mlengine.testing.backend import MemoryBackend
from mlengine.testing.emulator import RunningEmulator, running
from tests.support import local_jobs as local

pytestmark = pytest.mark.integration

REGION = "us-central1"
EXPERIMENT = f"projects/test-project/locations/{REGION}/metadataStores/default/contexts/mnist"
ALL = {
    "network": "projects/123456/global/networks/private",
    "reserved_ip_ranges": ["training"],
    "nfs_mounts": [{"server": "10.0.0.2", "path": "/data", "mount_point": "data"}],
    "experiment": EXPERIMENT,
    "experiment_run": f"{EXPERIMENT}-1",
    "web_access": True,
    "dashboard_access": True,
    "reservation": "any",
    "service_account": "trainer@test-project.iam.gserviceaccount.com",
}
INTERFACE = {
    "network_attachment": f"projects/test-project/regions/{REGION}/networkAttachments/training",
    "dns_peering_configs": [{"domain": "corp.", "target_project": "test-project", "target_network": "private"}],
}
POOLS = (Pool(Role.CHIEF, 1, "n1-standard-4"), Pool(Role.WORKER, 2, "n1-standard-4"))


@pytest.fixture
def memory() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
def service(memory: MemoryBackend, storage: Storage, bucket: str, tmp_path: Path) -> Iterator[RunningEmulator]:
    local.put(storage, bucket, local.sdist(""), "t-1.0.tar.gz")
    with running(tmp_path / "emulator", backend=memory, storage=storage) as started:
        yield started


Submit = Callable[..., tuple[VertexBackend, JobHandle]]


@pytest.fixture
def submit(service: RunningEmulator, bucket: str) -> Submit:
    def made(**options: Any) -> tuple[VertexBackend, JobHandle]:
        backend = VertexBackend(**service.settings, **options)
        spec = TrainingSpec("t.task", (f"{bucket}/packages/t-1.0.tar.gz",), pools=POOLS)
        return backend, backend.submit(Submission("ab" * 20, "mnist_1", 1, f"{bucket}/mnist/mnist_1", spec))

    return made


def body_of(service: RunningEmulator) -> dict[str, Any]:
    (record,) = service.server.engine.store.all()
    found: dict[str, Any] = record.body["jobSpec"]
    return found


def test_the_emulator_accepts_each_option(service: RunningEmulator, submit: Submit) -> None:
    submit(**ALL)
    spec = body_of(service)
    assert spec["network"] == "projects/123456/global/networks/private"
    assert spec["reservedIpRanges"] == ["training"]
    assert (spec["experiment"], spec["experimentRun"]) == (EXPERIMENT, f"{EXPERIMENT}-1")
    assert spec["enableDashboardAccess"] is spec["enableWebAccess"] is True
    for pool in spec["workerPoolSpecs"]:
        assert pool["nfsMounts"] == [{"server": "10.0.0.2", "path": "/data", "mountPoint": "data"}]
        assert pool["machineSpec"]["reservationAffinity"] == {"reservationAffinityType": "ANY_RESERVATION"}


def test_the_emulator_accepts_a_network_interface(service: RunningEmulator, submit: Submit) -> None:
    submit(psc_interface=INTERFACE)
    assert body_of(service)["pscInterfaceConfig"] == {
        "networkAttachment": f"projects/test-project/regions/{REGION}/networkAttachments/training",
        "dnsPeeringConfigs": [{"domain": "corp.", "targetProject": "test-project", "targetNetwork": "private"}],
    }


def test_a_resource_in_another_region_is_refused_before_the_submission(
    service: RunningEmulator, submit: Submit
) -> None:
    with pytest.raises(BackendError, match=f"the job runs in {REGION}, and experiment is in europe-west4"):
        submit(experiment=EXPERIMENT.replace(REGION, "europe-west4"))
    assert "CreateCustomJob" not in service.calls


def test_web_access_is_shown_while_the_job_runs(
    service: RunningEmulator,
    memory: MemoryBackend,
    submit: Submit,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    backend, handle = submit(web_access=True)
    assert backend.describe([handle])[0].links == {}, "a queued job has no shell"
    memory.jobs[0].state = JobState.RUNNING
    (status,) = backend.describe([handle])
    assert list(status.links) == ["chief-0", "worker-0", "worker-1"]
    assert all(
        url.endswith(f"-dot-{REGION}.aiplatform-training.googleusercontent.com") for url in status.links.values()
    )
    # The call for many jobs returns the links too.
    assert backend.describe([handle, handle, handle])[2].links == status.links
    for name, value in service.env.items():
        monkeypatch.setenv(name, value)
    assert main(["jobs", "status", handle.name, "--json", "--backend", "vertex"]) == 0
    assert json.loads(capsys.readouterr().out)["links"] == status.links
    assert main(["jobs", "status", handle.name, "--backend", "vertex"]) == 0
    assert f"chief-0: {status.links['chief-0']}" in capsys.readouterr().out
    memory.end(memory.jobs[0].handle.name, JobState.SUCCEEDED)
    assert backend.describe([handle])[0].links == {}
