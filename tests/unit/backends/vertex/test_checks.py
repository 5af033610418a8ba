"""Jobs that are rejected before submission: combinations that cannot work, and costs above the limit."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from mlengine.backends import Submission
from mlengine.backends.vertex import checks, prices
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.backends.vertex.request import Request
from mlengine.core import vertex_machines
from mlengine.core.errors import BackendError
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.emulator import messages


def prepare(pools: tuple[Pool, ...] = (Pool(Role.CHIEF, 1, "n1-standard-4"),), **options: Any) -> Request:
    spec = TrainingSpec("trainer.task", ("gs://bkt/t.tar.gz",), pools=pools, max_running_seconds=3600)
    return VertexBackend(**options).prepare(Submission("a" * 40, "j1", 1, "gs://bkt/m/j1", spec))


def gpu(machine: str, accelerator: str | None, count: int = 1) -> tuple[Pool, ...]:
    return (Pool(Role.CHIEF, 1, machine, accelerator, count),)


def machine_spec(**fields: Any) -> dict[str, Any]:
    """Fields that the job file does not have, set through the raw pass-through."""
    return {"raw": {"jobSpec": {"workerPoolSpecs": [{"machineSpec": fields}]}}}


RESERVATION = "projects/p/zones/us-central1-a/reservations/r"
EXPERIMENT = "projects/p/locations/r/metadataStores/default/contexts/e"
NETWORK = "projects/1/global/networks/n"
INTERFACE = {"network_attachment": "attachment"}
MOUNT = {"server": "10.0.0.2", "path": "/data", "mount_point": "data"}
PEERING = {"domain": "corp.", "target_project": "p", "target_network": "n"}
ACCOUNT = {"service_account": "me@p.iam.gserviceaccount.com"}


ONE = {
    "replicaCount": "1",
    "machineSpec": {"machineType": "n1-standard-4"},
    "containerSpec": {"imageUri": "i"},
}


RESERVATION = "projects/p/zones/us-central1-a/reservations/r"
SHORT_NAME = {"reservationAffinityType": "SPECIFIC_RESERVATION", "values": ["r"]}


@pytest.mark.parametrize(
    ("pools", "options", "message"),
    [
        (gpu("e2-standard-4", "NVIDIA_TESLA_T4"), {}, "cannot have an accelerator"),
        (gpu("n1-standard-4", "NVIDIA_L4"), {}, "cannot be attached"),
        (gpu("n1-standard-4", "NVIDIA_TESLA_T44"), {}, "has no accelerator NVIDIA_TESLA_T44"),
        (gpu("a2-highgpu-1g", "NVIDIA_TESLA_T4"), {}, "comes with NVIDIA_TESLA_A100"),
        (gpu("a2-highgpu-4g", "NVIDIA_TESLA_A100", 2), {}, "cannot have 2 of NVIDIA_TESLA_A100"),
        (gpu("n1-standard-4", "NVIDIA_TESLA_T4", 3), {}, "cannot have 3 of NVIDIA_TESLA_T4"),
        (gpu("n1-highmem-16", "NVIDIA_TESLA_V100", 1), {}, "cannot have 1 of NVIDIA_TESLA_V100"),
        (gpu("n1-standard-32", "NVIDIA_TESLA_V100", 1), {}, "cannot have 1 of NVIDIA_TESLA_V100"),
        (gpu("g2-standard-24", "NVIDIA_L4", 1), {}, "cannot have 1 of NVIDIA_L4"),
        (gpu("n1-standard-8", None, 0), machine_spec(acceleratorType="NVIDIA_TESLA_P100"), "since 2026-09-15"),
        (gpu("g2-standard-8", None, 0), machine_spec(acceleratorType=None), "needs its accelerators in the request"),
        (gpu("a4x-highgpu-4g", None, 0), {}, "needs a reservation"),
        (gpu("c3-standard-8", None, 0), {}, "does not offer c3-standard-8"),
        (gpu("n2d-standard-8", None, 0), {}, "does not offer n2d-standard-8"),
        (gpu("n1-standard-5", None, 0), {}, "does not offer n1-standard-5"),
        (gpu("ct5p-hightpu-4t", None, 0), {}, "does not offer ct5p-hightpu-4t"),
        (gpu("cloud-tpu", "TPU_V3", 32), {"spot": True}, "Spot is not offered for TPU pods"),
        (gpu("ct6e-standard-4t", None, 0), {**machine_spec(tpuTopology="4x4"), "spot": True}, "Spot is not offered"),
        ((), {"boot_disk_type": "pd-extreme"}, "bootDiskType: is 'pd-extreme'"),
        ((), {"boot_disk_gb": 64_001}, "bootDiskSizeGb: is 64001"),
        ((), {"boot_disk_gb": 99}, "bootDiskSizeGb: is 99"),
        (gpu("n1-standard-4", "NVIDIA_TESLA_T4"), {"flex_start": True}, "L4, A100"),
        (gpu("n1-standard-4", "TPU_V4_POD", 8), {}, "cannot have a TPU"),
        (gpu("cloud-tpu", "NVIDIA_TESLA_T4"), {}, "TPU_V2 or TPU_V3, not NVIDIA_TESLA_T4"),
        (gpu("cloud-tpu", "TPU_V3", 12), {}, "12 cores of TPU_V3"),
        (gpu("ct5lp-hightpu-4t", "NVIDIA_L4"), {}, "takes no accelerator"),
        (gpu("ct5lp-hightpu-8t", None, 0), machine_spec(tpuTopology="4x4"), "has no topology 4x4"),
        (gpu("n1-standard-4", None, 0), machine_spec(tpuTopology="2x2"), "has no tpuTopology"),
        (
            (Pool(Role.CHIEF, 1, "n1-standard-4"), Pool(Role.WORKER, 1, "cloud_tpu")),
            {},
            "one pool of one replica",
        ),
        (gpu("ct5lp-hightpu-4t", None, 0), {"flex_start": True}, "flex-start is for"),
        (gpu("g2-standard-4", "NVIDIA_L4"), {"flex_start": True, "timeout_seconds": 700_000}, "at most 7 days"),
        (
            (*gpu("g2-standard-4", "NVIDIA_L4"), Pool(Role.WORKER, 1, "g2-standard-8", "NVIDIA_L4", 1)),
            {"flex_start": True},
            "same machine in every pool",
        ),
        ((), {"spot": True, "reservation": RESERVATION}, "SPOT machines cannot come from a reservation"),
        ((), {"spot": True, "reservation": "any"}, "SPOT machines cannot come from a reservation"),
        ((), {"spot": True, "persistent_resource": "r"}, "persistent resource"),
        ((), {"reservation": RESERVATION, "persistent_resource": "r"}, "cannot come from a reservation"),
        ((), machine_spec(reservationAffinity=SHORT_NAME), "'r' is not the full name of a reservation"),
        ((), {"disable_retries": True, "restart_on_worker_restart": True}, "excludes"),
        ((), {"raw": {"jobSpec": {"scheduling": {"maxWaitDuration": "5s"}}}}, "flex-start only"),
        ((), {"tensorboard": "projects/p/locations/r/tensorboards/1"}, "needs a service account"),
        ((), {"raw": {"labels": {"Bad Label": "x"}}}, "not a label"),
        ((), {"raw": {"jobSpec": {"workerPoolSpecs": [{"replicaCount": "2"}]}}}, "exactly one replica"),
        (
            (),
            {"raw": {"jobSpec": {"workerPoolSpecs": [ONE, {**ONE, "replicaCount": 10**9}]}}},
            "replicaCount: is 1000",
        ),
        ((), {"env": {"A=B": "x"}}, "env: is not the name of an environment variable: 'A=B'"),
        ((), {"labels": {f"l{number}": "x" for number in range(65)}}, "labels: has 67 labels"),
        ((), {"timeout_seconds": -5}, "timeout in seconds: is -5"),
        ((), {"raw": {"jobSpec": {"scheduling": {"timeout": "2h"}}}}, "timeout: is not a duration: '2h'"),
        ((), {"flex_start": True, "max_wait_seconds": -1}, "maxWaitDuration in seconds: is -1"),
        ((), {"boot_disk_gb": 10}, "bootDiskSizeGb: is 10"),
        ((), {"experiment": "e"}, "experiment: is not the full name"),
        ((), {"experiment_run": f"{EXPERIMENT}-1"}, "needs its experiment"),
        ((), {"experiment": EXPERIMENT, "experiment_run": EXPERIMENT}, "is not a run of"),
        (
            (),
            {**ACCOUNT, "experiment": EXPERIMENT, "tensorboard": "projects/p/locations/r/tensorboards/1"},
            "TensorBoard instance of its own",
        ),
        ((), {"network": NETWORK, "psc_interface": INTERFACE}, "two ways to reach a network"),
        ((), {"network": "n"}, "network: is not the full name"),
        ((), {"reserved_ip_ranges": ["r"]}, "ranges of a peered network"),
        ((), {"reserved_ip_ranges": ["r"], "psc_interface": INTERFACE}, "ranges of a peered network"),
        ((), {"psc_interface": {"network_attachment": "projects/p/attachment"}}, "not a network attachment"),
        ((), {"psc_interface": {}, "raw": {"jobSpec": {"pscInterfaceConfig": {"x": 1}}}}, "not a network attachment"),
        ((), {"psc_interface": {**INTERFACE, "attachment": "a"}}, "has no field 'attachment'"),
        ((), {"psc_interface": {**INTERFACE, "dns_peering_configs": [{**PEERING, "domain": "corp"}]}}, "DNS peering"),
        ((), {"nfs_mounts": [MOUNT]}, "through a network of yours"),
        ((), {"network": NETWORK, "nfs_mounts": [{**MOUNT, "server": "nas.corp"}]}, "not an IP address: 'nas.corp'"),
        ((), {"network": NETWORK, "nfs_mounts": [{**MOUNT, "path": "data"}]}, "begin with a slash: 'data'"),
        ((), {"network": NETWORK, "nfs_mounts": [{**MOUNT, "mount_point": "/"}]}, "mount_point is empty"),
        ((), {"network": NETWORK, "nfs_mounts": [MOUNT, {**MOUNT, "path": "/x"}]}, "used twice"),
        ((), {"network": NETWORK, "nfs_mounts": [{"server": "10.0.0.2"}]}, "is not a mount"),
    ],
)
def test_an_invalid_request_is_refused_with_a_hint(
    pools: tuple[Pool, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(BackendError, match=message) as caught:
        prepare(pools or (Pool(Role.CHIEF, 1, "n1-standard-4"),), **options)
    assert caught.value.hint
    assert "j1" in caught.value.message


def test_a_valid_request_is_accepted() -> None:
    prepare(gpu("n1-standard-8", "NVIDIA_TESLA_T4"), spot=True)
    prepare(gpu("g2-standard-4", "NVIDIA_L4"), flex_start=True, max_wait_seconds=3600)
    prepare(gpu("n1-standard-8", "NVIDIA_TESLA_K80"))
    prepare(gpu("n1-highmem-8", "NVIDIA_TESLA_V100"))
    prepare(gpu("ct6e-standard-4t", None, 0), spot=True)
    prepare(gpu("a4x-highgpu-4g", None, 0), reservation=RESERVATION)
    prepare(boot_disk_gb=64_000, boot_disk_type="hyperdisk-balanced")
    # A machine type newer than the table: the service decides.
    prepare(gpu("z9-highgpu-8g", "NVIDIA_Z900", 8))
    prepare(gpu("n1-standard-8", "NVIDIA_Z900"))
    prepare(spot=True, reservation="none")
    prepare(network=NETWORK, reserved_ip_ranges=["r"], nfs_mounts=[MOUNT])
    prepare(psc_interface={**INTERFACE, "dns_peering_configs": [PEERING]}, nfs_mounts=[MOUNT])
    prepare(experiment=EXPERIMENT, experiment_run=f"{EXPERIMENT}-1", dashboard_access=True)


def test_a_private_network_and_the_default_image_get_a_note() -> None:
    networks: list[dict[str, Any]] = [{"network": NETWORK}, {"psc_interface": INTERFACE}]
    for options in networks:
        (note,) = (note for note in prepare(**options).notes if "Docker Hub" in note)
        assert "python:3.11-slim" in note
        assert "PIP_INDEX_URL" in note
    for options in ({}, {**networks[0], "image_uri": "europe-docker.pkg.dev/p/r/python:3.11"}):
        assert not any("Docker Hub" in note for note in prepare(**options).notes)


def test_a_reservation_needs_its_full_name() -> None:
    with pytest.raises(BackendError, match="not a reservation: 'r'"):
        prepare(reservation="r")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({**ACCOUNT, "tensorboard": "projects/p/locations/europe-west4/tensorboards/1"}, "tensorboard"),
        ({"experiment": EXPERIMENT.replace("/r/", "/europe-west4/")}, "experiment"),
        ({"encryption_key": "projects/p/locations/europe-west4/keyRings/k/cryptoKeys/c"}, "encryption_key"),
        (
            {"psc_interface": {"network_attachment": "projects/p/regions/europe-west4/networkAttachments/a"}},
            "psc_interface",
        ),
        ({"reservation": RESERVATION.replace("us-central1", "europe-west4")}, "reservation"),
    ],
)
def test_a_resource_of_another_region_is_refused(options: dict[str, Any], name: str) -> None:
    body = prepare(**options).body
    checks.check_region("j1", body, "europe-west4")
    with pytest.raises(BackendError, match=f"runs in us-central1, and {name}") as caught:
        checks.check_region("j1", body, "us-central1")
    assert "europe-west4" in caught.value.message


def test_a_machine_s_own_accelerators_are_requested_and_noted() -> None:
    request = prepare(gpu("a2-highgpu-2g", None, 0))
    machine = request.body["jobSpec"]["workerPoolSpecs"][0]["machineSpec"]
    assert (machine["acceleratorType"], machine["acceleratorCount"]) == ("NVIDIA_TESLA_A100", 2)
    assert any("comes with 2 NVIDIA_TESLA_A100" in note for note in request.notes)


def test_a_machine_that_is_not_offered_gets_a_similar_one_as_a_hint() -> None:
    with pytest.raises(BackendError) as caught:
        prepare(gpu("n2d-standard-8", None, 0))
    assert "n2-standard-8" in caught.value.hint


@pytest.mark.parametrize(
    ("pools", "options", "machine", "prices_of", "usd"),
    [
        (
            gpu("cloud_tpu", None, 0),
            {},
            {"machineType": "cloud-tpu", "acceleratorType": "TPU_V2"},
            {"TPU_V2": 0.5},
            8 * 0.5,
        ),
        (
            gpu("standard", "TPU_V5_LITEPOD", 4),
            {},
            {"machineType": "ct5lp-hightpu-4t", "tpuTopology": "2x2"},
            {"ct5lp-hightpu-4t": 5.0},
            5.0,
        ),
        (
            gpu("standard", "TPU_V5_LITEPOD", 16),
            {},
            {"machineType": "ct5lp-hightpu-4t", "tpuTopology": "4x4"},
            {"ct5lp-hightpu-4t": 5.0},
            20.0,
        ),
        (
            gpu("ct6e-standard-4t", None, 0),
            machine_spec(tpuTopology="2x4"),
            {"tpuTopology": "2x4"},
            {"ct6e-standard-4t": 10.0},
            20.0,
        ),
    ],
)
def test_a_tpu_must_be_the_only_machine(
    pools: tuple[Pool, ...], options: dict[str, Any], machine: dict[str, str], prices_of: dict[str, float], usd: float
) -> None:
    request = prepare(pools, **options)
    (pool,) = request.body["jobSpec"]["workerPoolSpecs"]
    assert machine.items() <= pool["machineSpec"].items()
    messages.read_custom_job(request.body)
    assert prices.estimate(request.body, prices_of).usd == pytest.approx(usd)


def test_prices_have_a_date_and_a_source_or_there_are_none() -> None:
    source = vertex_machines.price_source()
    assert source.page.startswith("https://cloud.google.com/")
    assert date.fromisoformat(source.read)
    text = str(prices.estimate(prepare().body, {}))
    assert text == f"at most 0.22 USD: 0.22 USD an hour for up to 1 h (list prices of us-central1, read {source.read})"
    unpriced = prices.estimate(prepare(gpu("tpu7x-standard-4t", None, 0)).body, {})
    assert unpriced.unpriced == ("tpu7x-standard-4t",)
    assert str(unpriced).startswith("no cost estimate: no price is known for tpu7x-standard-4t")
    partly = prices.estimate(prepare(gpu("n1-standard-4", "NVIDIA_TESLA_T4")).body, {})
    assert "0.22 USD, without NVIDIA_TESLA_T4, for which no price is known: 0.22 USD an hour" in str(partly)


def test_the_estimate_is_machines_times_the_time_limit() -> None:
    standard_1 = (
        Pool(Role.CHIEF, 1, "n1-highcpu-16"),
        Pool(Role.WORKER, 4, "n1-highcpu-16"),
        Pool(Role.PS, 3, "n1-standard-4"),
    )
    found = prices.estimate(prepare(standard_1).body, {"n1-highcpu-16": 0.65})
    assert found.hours == 1
    assert found.usd == pytest.approx(5 * 0.65 + 3 * 0.218499, rel=1e-4)
    assert found.unpriced == ()
    with_gpu = prices.estimate(prepare(gpu("n1-standard-4", "NVIDIA_TESLA_T4", 2)).body, {"NVIDIA_TESLA_T4": 1.0})
    assert with_gpu.usd == pytest.approx(0.218499 + 2.0, rel=1e-4)
    own = prices.estimate(prepare(gpu("g2-standard-8", None, 0)).body, {"g2-standard-8": 1.0, "NVIDIA_L4": 9.0})
    assert own.usd == 1.0, "the price of such a machine must include its accelerators"
    assert "your own prices" in str(own)


def test_the_cost_cap_refuses_a_job_with_a_hint() -> None:
    with pytest.raises(BackendError, match=r"may cost at most 0\.22 USD") as caught:
        prepare(cost_cap_usd=0.1)
    assert "cost_cap_usd" in caught.value.hint
    prepare(cost_cap_usd=0.3)
    with pytest.raises(BackendError, match="no price for x9-standard-4"):
        prepare((Pool(Role.CHIEF, 1, "x9-standard-4"),), cost_cap_usd=1)
    prepare((Pool(Role.CHIEF, 1, "x9-standard-4"),), cost_cap_usd=1, prices={"x9-standard-4": 0.5})


def test_without_a_time_limit_that_of_the_service_applies() -> None:
    spec = TrainingSpec("t", ("gs://bkt/t.tar.gz",), pools=(Pool(Role.CHIEF, 1, "n1-standard-4"),))
    request = VertexBackend().prepare(Submission("a" * 40, "j", 1, "gs://bkt/m/j", spec))
    assert "up to 168 h" in request.notes[-1]


def test_a_job_without_a_time_limit_exceeds_every_cap() -> None:
    with pytest.raises(BackendError, match=r"may cost any amount: .* USD an hour, without a time limit"):
        prepare(raw={"jobSpec": {"scheduling": {"timeout": "0s"}}}, cost_cap_usd=1e9)


def test_an_unknown_accelerator_or_machine_is_accepted_with_a_note() -> None:
    new = gpu("z9-highgpu-8g", "NVIDIA_B900")
    notes = "\n".join(prepare(new).notes)
    assert "the machine type z9-highgpu-8g is not known here, and not checked" in notes
    assert "the accelerator NVIDIA_B900 is not known here, and not checked; similar: NVIDIA_B200" in notes
    attached = gpu("n1-standard-8", "NVIDIA_TESLA_T44")
    with pytest.raises(BackendError) as caught:
        prepare(attached)
    assert "did you mean NVIDIA_TESLA_T4 or" in caught.value.hint
    assert "accelerator_checks=false" in caught.value.hint
    notes = "\n".join(prepare(attached, accelerator_checks=False).notes)
    assert "NVIDIA_TESLA_T44 is not known here" in notes
    assert "NVIDIA_Z900 is not known here" in "\n".join(prepare(gpu("n1-standard-8", "NVIDIA_Z900")).notes)
    assert "not known here" not in "\n".join(prepare(gpu("n1-standard-8", "NVIDIA_TESLA_T4")).notes)


@pytest.mark.parametrize(
    ("region", "hint"),
    [
        ("us_central1", "only: us-central1"),
        ("US-Central1", "only: us-central1"),
        ("us-central1-a", "write us-central1"),
    ],
)
def test_an_invalid_region_is_refused_before_the_submission(region: str, hint: str) -> None:
    spec = TrainingSpec(
        "trainer.task", ("gs://bkt/t.tar.gz",), pools=(Pool(Role.CHIEF, 1, "n1-standard-4"),), region=region
    )
    for backend in (VertexBackend(), VertexBackend(region=region)):
        with pytest.raises(BackendError, match=f"not a region: '{region}'") as caught:
            backend.show(Submission("a" * 40, "j1", 1, "gs://bkt/m/j1", spec))
        assert caught.value.hint.endswith(hint)
    VertexBackend(region="us-central1").show(Submission("a" * 40, "j1", 1, "gs://bkt/m/j1", spec))


def test_a_region_of_the_setting_or_the_connection_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the credentials of the connection: a dry run needs none."""
    extra = '{"region": "europe-west4-b", "keyfile_dict": "none"}'
    monkeypatch.setenv("AIRFLOW_CONN_VERTEX", f'{{"conn_type": "google_cloud_platform", "extra": {extra}}}')
    with pytest.raises(BackendError, match="'europe-west4-b' is a zone"):
        prepare(gcp_conn_id="vertex")
    monkeypatch.setenv("AIRFLOW__MLENGINE__VERTEX_REGION", "us_central1")
    with pytest.raises(BackendError, match="not a region: 'us_central1'"):
        prepare()
    prepare(region="us-central1")
    monkeypatch.setenv("AIRFLOW__MLENGINE__VERTEX_REGION", "us-central1")
    with pytest.raises(BackendError, match="the job runs in us-central1, and psc_interface is in europe-west4"):
        prepare(psc_interface={"network_attachment": "projects/p/regions/europe-west4/networkAttachments/a"})
