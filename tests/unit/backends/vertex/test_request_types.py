"""Wrong types in ``raw``, in options and in passed-on fields of a job file: an error that names the field."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from mlengine.backends import Submission
from mlengine.backends.vertex import checks, network_checks, prices
from mlengine.backends.vertex.backend import VertexBackend
from mlengine.backends.vertex.options import VertexOptions
from mlengine.backends.vertex.request import custom_job
from mlengine.core.errors import BackendError, MlengineError
from mlengine.core.job_file import parse
from mlengine.core.spec import TrainingSpec

SPEC = parse.load(
    {
        "trainingInput": {
            "scaleTier": "BASIC",
            "pythonModule": "trainer.task",
            "packageUris": ["gs://bkt/trainer-1.0.tar.gz"],
            "region": "us-central1",
        }
    }
)
POOL = {
    "machineSpec": {
        "machineType": "n1-standard-4",
        "acceleratorType": "NVIDIA_TESLA_T4",
        "acceleratorCount": 1,
        "reservationAffinity": {
            "reservationAffinityType": "SPECIFIC_RESERVATION",
            "key": "compute.googleapis.com/reservation-name",
            "values": ["projects/p/zones/us-central1-a/reservations/r"],
        },
    },
    "replicaCount": "1",
    "containerSpec": {
        "imageUri": "python:3.11",
        "command": ["python3"],
        "args": ["-V"],
        "env": [{"name": "A", "value": "b"}],
    },
    "diskSpec": {"bootDiskType": "pd-ssd", "bootDiskSizeGb": 100},
    "nfsMounts": [{"server": "10.0.0.1", "path": "/share", "mountPoint": "data"}],
}
RAW = {
    "jobSpec": {
        "workerPoolSpecs": [POOL],
        "scheduling": {"timeout": "3600s", "strategy": "STANDARD", "disableRetries": True},
        "serviceAccount": "trainer@p.iam.gserviceaccount.com",
        "network": "projects/1/global/networks/n",
        "reservedIpRanges": ["r"],
        "enableWebAccess": True,
    },
    "labels": {"team": "vision"},
    "encryptionSpec": {"kmsKeyName": "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"},
}
OPTIONS: dict[str, Any] = {
    "network": "projects/1/global/networks/n",
    "reserved_ip_ranges": ["r"],
    "nfs_mounts": [{"server": "10.0.0.1", "path": "/share", "mount_point": "data"}],
    "psc_interface": {
        "network_attachment": "projects/p/regions/us-central1/networkAttachments/a",
        "dns_peering_configs": [{"domain": "a.example.", "target_project": "p", "target_network": "n"}],
    },
    "fallbacks": [{"region": "us-central1", "nfs_mounts": [{"server": "10.0.0.2"}], "reserved_ip_ranges": ["r"]}],
    "prices": {"n1-standard-4": 0.2},
    "env": {"A": "b"},
    "labels": {"team": "vision"},
}
VALUES: tuple[Any, ...] = (None, "", "x", 0, -1, 1.5, True, [], [None], ["x"], [{}], {}, {"a": None}, {1: "x"})


def submit(spec: TrainingSpec, **options: Any) -> dict[str, Any]:
    """Run all code that reads the options and the request before a job is created. Returns the request."""
    VertexBackend(project="p", region="us-central1", **options)
    typed = VertexOptions.of(options)
    body = dict(custom_job(Submission("a" * 40, "m_1", 1, "gs://bkt/m/m_1", spec), typed).body)
    checks.check("m_1", body)
    checks.check_region("m_1", body, "us-central1")
    prices.estimate(body, typed.prices)
    network_checks.notes(body)
    return body


def paths(data: Any, parent: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, item in items:
        yield (*parent, name)
        yield from paths(item, (*parent, name))


def replaced(data: Any, path: Sequence[str | int], value: Any) -> Any:
    changed = copy.deepcopy(data)
    place = changed
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return changed


def alone(path: Sequence[str | int], value: Any) -> Any:
    """Nested data with only this field."""
    for name in reversed(path):
        value = {name: value} if isinstance(name, str) else [value]
    return value


def outcome(spec: TrainingSpec, **options: Any) -> str:
    try:
        submit(spec, **options)
    except MlengineError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("path", list(paths(RAW)), ids=lambda path: ".".join(map(str, path)))
def test_no_value_in_raw_raises_an_unexpected_error(path: tuple[str | int, ...]) -> None:
    answers = [outcome(SPEC, raw=raw) for value in VALUES for raw in (alone(path, value), replaced(RAW, path, value))]
    assert any(answers)


@pytest.mark.parametrize("path", list(paths(RAW)), ids=lambda path: ".".join(map(str, path)))
def test_no_value_in_a_job_file_raises_an_unexpected_error(path: tuple[str | int, ...]) -> None:
    answers = []
    for value in VALUES:
        try:
            spec = parse.load(replaced(RAW, path, value))
        except MlengineError as error:
            answers.append(str(error))
        else:
            answers.append(outcome(spec))
    assert any(answers)


@pytest.mark.parametrize("path", list(paths(OPTIONS)), ids=lambda path: ".".join(map(str, path)))
def test_no_value_of_an_option_raises_an_unexpected_error(path: tuple[str | int, ...]) -> None:
    answers = [outcome(SPEC, **replaced(OPTIONS, path, value)) for value in VALUES]
    assert any(answers)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"jobSpec": []}, "raw.jobSpec must be a mapping, not []"),
        (
            {"jobSpec": {"workerPoolSpecs": [{"nfsMounts": ["10.0.0.1:/share"]}]}},
            "raw.jobSpec.workerPoolSpecs[0].nfsMounts[0] must be a mapping, not '10.0.0.1:/share'",
        ),
        ({"jobSpec": {"scheduling": {"timeout": 3600}}}, "raw.jobSpec.scheduling.timeout must be a string, not 3600"),
        ({"jobSpec": {"workerPoolSpecs": [{"replicaCount": 1.5}]}}, "replicaCount must be an integer, not 1.5"),
        ({"labels": {"team": 7}}, "raw.labels.team must be a string, not 7"),
        ({"jobSpec": {"workerPoolSpecs": []}}, "the request has no chief"),
        ({"jobSpec": {"workerPoolSpecs": [{"machineSpec": None}]}}, "workerPoolSpecs[0] has no machineType"),
        (
            {"jobSpec": {"workerPoolSpecs": [{"containerSpec": {"env": [{"value": "b"}] * 9}}]}},
            "a variable without a name",
        ),
        ({"labels": None}, "raw removes the labels, by which the job is found again"),
    ],
)
def test_the_error_names_the_field(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError) as caught:
        submit(SPEC, raw=raw)
    assert message in str(caught.value)
    assert caught.value.hint


def test_null_in_raw_removes_a_field() -> None:
    body = submit(SPEC, timeout_seconds=600, raw={"jobSpec": {"scheduling": None}})
    assert "scheduling" not in body["jobSpec"]
    body = submit(
        SPEC, raw={"jobSpec": {"workerPoolSpecs": [{"diskSpec": {"bootDiskType": None, "bootDiskSizeGb": 200}}]}}
    )
    assert body["jobSpec"]["workerPoolSpecs"][0]["diskSpec"] == {"bootDiskSizeGb": 200}


@pytest.mark.parametrize("empty", [None, ""])
def test_an_empty_option_counts_as_not_given(empty: str | None) -> None:
    names = ("reserved_ip_ranges", "nfs_mounts", "psc_interface", "fallbacks", "labels", "env", "raw", "prices", "spot")
    assert submit(SPEC, **dict.fromkeys(names, empty)) == submit(SPEC)
    assert VertexOptions.of({"machine_type": None}) == VertexOptions()


@pytest.mark.parametrize("value", [{"n1-standard-4": "0.2 USD"}, {"n1-standard-4": True}, {1: 0.2}, [0.2]])
def test_prices_must_map_names_to_numbers(value: Any) -> None:
    with pytest.raises(BackendError, match="the vertex setting prices must be"):
        submit(SPEC, prices=value)
