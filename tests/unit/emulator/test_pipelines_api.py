"""Training pipelines with an in-memory backend: states, models, lists, cancellation, restarts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlengine.core.errors import EmulatorApiError, EmulatorError
from mlengine.core.job import FailureCause, JobState
from mlengine.emulator.engine import Engine
from mlengine.emulator.faults import FaultScript
from mlengine.emulator.http import Request, as_dict
from mlengine.emulator.projects import location_name
from mlengine.emulator.routes import Routes
from mlengine.testing.backend import MemoryBackend
from tests.support.memory_storage import MemoryStorage
from tests.unit.emulator.test_pipeline_checks import MODEL, pipeline

PARENT = "/v1/projects/p/locations/us-central1"
NAME = location_name("p", "us-central1")
FILE = "gs://bkt/out/model/model.json"


class Client:
    """A client that calls the emulator's methods directly."""

    def __init__(self, folder: Path) -> None:
        self.backend, self.storage = MemoryBackend(), MemoryStorage()
        self.folder = folder
        self.restart()

    def restart(self) -> None:
        self.engine = Engine(self.backend, self.folder)
        storage: Any = self.storage
        self.routes = Routes(self.engine, storage, "gs://bkt", FaultScript())

    def __call__(self, verb: str, path: str, body: Any = None, **query: str) -> dict[str, Any]:
        path = path if path.startswith("/") else f"/v1/{path}" if path.startswith("projects/") else f"{PARENT}/{path}"
        route, parts = self.routes.find(verb, path)
        return as_dict(route.handler(Request(parts, query, json.dumps(body or {}).encode())))

    def create(self, **more: Any) -> str:
        return str(self("POST", "trainingPipelines", pipeline(**more))["name"])

    def get(self, name: str) -> dict[str, Any]:
        return self("GET", name)

    def run(self, state: JobState, cause: FailureCause | None = None) -> None:
        """Move the newest job to a state."""
        self.backend.end(self.backend.jobs[-1].handle.name, state, cause)


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


def test_a_pipeline_creates_a_job_and_has_its_states(client: Client) -> None:
    made = client("POST", "trainingPipelines", pipeline())
    assert made["name"].startswith(f"{NAME}/trainingPipelines/")
    assert made["state"] == "PIPELINE_STATE_QUEUED"
    job = client.get(made["trainingTaskMetadata"]["backingCustomJob"])
    assert job["name"].startswith(f"{NAME}/customJobs/")
    assert job["displayName"] == "p-custom-job"
    client.backend.jobs[0].state = JobState.PREPARING
    assert client.get(made["name"])["state"] == "PIPELINE_STATE_PENDING"
    client.run(JobState.RUNNING)
    running = client.get(made["name"])
    assert running["state"] == "PIPELINE_STATE_RUNNING"
    assert "startTime" in running
    assert "endTime" not in running
    client.run(JobState.SUCCEEDED)
    ended = client.get(made["name"])
    assert ended["state"] == "PIPELINE_STATE_SUCCEEDED"
    assert ended["endTime"]
    assert "modelToUpload" not in ended


def test_a_pipeline_has_the_error_of_its_job(client: Client) -> None:
    name = client.create(modelToUpload=MODEL)
    client.get(name)
    client.run(JobState.FAILED, FailureCause.TRAINER)
    ended = client.get(name)
    assert ended["state"] == "PIPELINE_STATE_FAILED"
    assert ended["error"] == client.get(ended["trainingTaskMetadata"]["backingCustomJob"])["error"]
    assert "name" not in ended["modelToUpload"]


def test_the_model_is_uploaded_when_the_job_has_succeeded(client: Client) -> None:
    client.storage.objects[FILE] = b"{}"
    key = {"kmsKeyName": "projects/p/locations/us-central1/keyRings/k/cryptoKeys/c"}
    model = {**MODEL, "labels": {"team": "a"}}
    name = client.create(modelToUpload=model, modelId="digits", encryptionSpec=key)
    client.get(name)
    client.run(JobState.RUNNING)
    assert "name" not in client.get(name)["modelToUpload"]
    client.run(JobState.SUCCEEDED)
    ended = client.get(name)
    assert ended["state"] == "PIPELINE_STATE_SUCCEEDED"
    uploaded = ended["modelToUpload"]
    assert (uploaded["name"], uploaded["versionId"]) == (f"{NAME}/models/digits", "1")
    model = client.get(uploaded["name"])
    assert model["artifactUri"] == "gs://bkt/out/model"
    assert model["trainingPipeline"] == name
    assert model["labels"] == {"team": "a"}
    assert model["encryptionSpec"] == key
    assert client.get(name) == ended, "a second request must not upload the model again"

    second = client.create(modelToUpload=MODEL, parentModel="projects/p/locations/us-central1/models/digits")
    client.get(second)
    client.run(JobState.SUCCEEDED)
    assert client.get(second)["modelToUpload"]["versionId"] == "2"


@pytest.mark.parametrize(
    ("image", "file", "message"),
    [
        ("eu.gcr.io/own/server:1", None, "is empty"),
        ("us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest", FILE, "[saved_model.pb, saved_model.pbtxt]"),
        ("europe-docker.pkg.dev/vertex-ai/prediction/pytorch-gpu.2-4:latest", FILE, "exactly one of: [model.mar]"),
        ("us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-5:latest", FILE, "[model.pkl, model.joblib]"),
    ],
)
def test_a_pipeline_whose_model_has_no_files_fails(client: Client, image: str, file: str | None, message: str) -> None:
    if file:
        client.storage.objects[file] = b"{}"
    name = client.create(modelToUpload={**MODEL, "containerSpec": {"imageUri": image}})
    client.get(name)
    client.run(JobState.SUCCEEDED)
    ended = client.get(name)
    assert ended["state"] == "PIPELINE_STATE_FAILED"
    assert ended["error"]["code"] == 9
    assert message in ended["error"]["message"]
    assert client.get(ended["trainingTaskMetadata"]["backingCustomJob"])["state"] == "JOB_STATE_SUCCEEDED"


def test_an_existing_model_id_fails_the_pipeline(client: Client) -> None:
    client.storage.objects[FILE] = b"{}"
    states = []
    for _ in range(2):
        name = client.create(modelToUpload=MODEL, modelId="digits")
        client.get(name)
        client.run(JobState.SUCCEEDED)
        states.append(client.get(name)["state"])
    assert states == ["PIPELINE_STATE_SUCCEEDED", "PIPELINE_STATE_FAILED"]


def test_lists_have_filters_pages_and_masks(client: Client) -> None:
    names = [client.create(displayName=f"p{number}", labels={"n": str(number)}) for number in range(3)]
    for name in names:
        client.get(name)
    client.run(JobState.SUCCEEDED)

    def found(text: str) -> list[str]:
        return [item["name"] for item in client("GET", "trainingPipelines", filter=text)["trainingPipelines"]]

    assert found("") == names[::-1]
    assert found('state="PIPELINE_STATE_SUCCEEDED"') == [names[2]]
    assert found('display_name="p1" OR labels.n=0') == [names[1], names[0]]
    assert found('NOT display_name="p1"') == [names[2], names[0]]
    assert found('training_task_definition:"*custom_task_1.0.0.yaml"') == names[::-1]
    first = client("GET", "trainingPipelines", pageSize="2", readMask="name,labels")
    assert [item["name"] for item in first["trainingPipelines"]] == [names[2], names[1]]
    assert set(first["trainingPipelines"][0]) == {"name", "labels"}
    rest = client("GET", "trainingPipelines", pageSize="2", pageToken=first["nextPageToken"])
    assert [item["name"] for item in rest["trainingPipelines"]] == [names[0]]
    assert "nextPageToken" not in rest
    for wrong in ("update_time>1", "name=x", "start_time>1"):
        with pytest.raises(EmulatorApiError, match="Invalid filter"):
            found(wrong)
    with pytest.raises(EmulatorApiError, match='Unknown name "orderBy"'):
        client("GET", "trainingPipelines", orderBy="create_time")


def test_a_pipeline_is_cancelled_with_its_job(client: Client) -> None:
    name = client.create()
    client.get(name)
    with pytest.raises(EmulatorApiError, match="is in state PIPELINE_STATE_QUEUED and cannot be deleted"):
        client("DELETE", name)
    client("POST", f"{name}:cancel")
    ended = client.get(name)
    assert ended["state"] == "PIPELINE_STATE_CANCELLED"
    assert ended["error"]["code"] == 1
    assert client.get(ended["trainingTaskMetadata"]["backingCustomJob"])["state"] == "JOB_STATE_CANCELLED"
    words = f'The TrainingPipeline "{name}" is in state PIPELINE_STATE_CANCELLED and cannot be canceled.'
    with pytest.raises(EmulatorApiError) as caught:
        client("POST", f"{name}:cancel")
    assert (caught.value.message, caught.value.status) == (words, "FAILED_PRECONDITION")


def test_deleting_a_pipeline_keeps_its_job(client: Client) -> None:
    name = client.create()
    job = client.get(name)["trainingTaskMetadata"]["backingCustomJob"]
    client.run(JobState.SUCCEEDED)
    operation = client("DELETE", name)
    assert operation["done"]
    assert client.get(operation["name"]) == operation
    assert client("GET", "trainingPipelines") == {}, "empty fields must be left out"
    assert client.get(job)["state"] == "JOB_STATE_SUCCEEDED"
    for verb, path in (("GET", name), ("DELETE", name), ("POST", f"{name}:cancel")):
        with pytest.raises(EmulatorApiError) as caught:
            client(verb, path)
        assert caught.value.status == "NOT_FOUND"


@pytest.mark.parametrize("uploaded", [True, False])
def test_pipelines_survive_a_restart(client: Client, uploaded: bool) -> None:
    client.storage.objects[FILE] = b"{}"
    name = client.create(modelToUpload=MODEL)
    client.get(name)
    client.run(JobState.SUCCEEDED)
    before = client.get(name) if uploaded else None
    client.restart()
    after = client.get(name)
    assert after["state"] == "PIPELINE_STATE_SUCCEEDED"
    assert before is None or after == before


def test_a_model_is_uploaded_once_although_the_emulator_was_restarted(client: Client) -> None:
    client.storage.objects[FILE] = b"{}"
    name = client.create(modelToUpload=MODEL)
    client.get(name)
    client.run(JobState.SUCCEEDED)
    uploaded = client.get(name)["modelToUpload"]
    (path,) = (client.folder / "pipelines").glob("*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "model": None, "ended": None}))
    client.restart()
    assert client.get(name)["modelToUpload"] == uploaded
    assert len(list((client.folder / "models").glob("*.json"))) == 1


def test_a_damaged_record_is_an_error(client: Client) -> None:
    client.create()
    (path,) = (client.folder / "pipelines").glob("*.json")
    path.write_text("{")
    with pytest.raises(EmulatorError, match="cannot read the record of a training pipeline"):
        client.restart()


def test_the_model_is_uploaded_without_a_request(client: Client) -> None:
    client.storage.objects[FILE] = b"{}"
    name = client.create(modelToUpload=MODEL, modelId="digits")
    client.get(name)
    client.run(JobState.SUCCEEDED)
    for call in client.engine.after_poll:
        call()
    assert client.get(f"{NAME}/models/digits")["versionId"] == "1"
