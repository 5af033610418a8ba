"""Tests that Vertex AI's model registry follows the champion over HTTP, despite lost responses, errors and races."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials

from mlengine import cli
from mlengine.backends.vertex.client import RestClient
from mlengine.champions.history import Champion, current
from mlengine.cli.exit_codes import ExitCode
from mlengine.connections import forget_connections
from mlengine.core.errors import MlengineError, PublishError, RegistryError
from mlengine.emulator.projects import location_name
from mlengine.operators.register import RegisterModelOperator
from mlengine.promotion import registries
from mlengine.promotion.publish import rollback
from mlengine.promotion.registries import Registered, vertex
from mlengine.promotion.registries.follow import Registration, follow
from mlengine.promotion.registries.vertex import VertexRegistry
from mlengine.storage.client import Storage
from mlengine.testing.emulator import RunningEmulator, running
from tests.integration.test_champions import Bench

pytestmark = pytest.mark.integration
PARENT = "projects/test-project/locations/us-central1"
NAME = f"{PARENT}/models/mnist"
IMAGE = "europe-docker.pkg.dev/test-project/serving/mnist:1"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, gcs_server: Any) -> Iterator[RunningEmulator]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in gcs_server.env.items():
            patch.setenv(name, value)
        with running(tmp_path_factory.mktemp("service")) as started:
            yield started


def _googles_client(service: RunningEmulator) -> Any:
    from google.cloud.aiplatform_v1.services import model_service  # noqa: TID251 - the foreign client
    from google.cloud.aiplatform_v1.services.model_service.transports import rest  # noqa: TID251

    anonymous = AnonymousCredentials()  # type: ignore[no-untyped-call]
    host = service.url.removeprefix("http://")
    transport = rest.ModelServiceRestTransport(host=host, url_scheme="http", credentials=anonymous)
    return model_service.ModelServiceClient(transport=transport)


class Elsewhere:
    """An empty registry, and champions to register."""

    def __init__(self, service: RunningEmulator, bench: Bench, region: str) -> None:
        self.service, self.bench = service, bench
        self.settings = {**service.settings, "region": region, "image_uri": IMAGE}
        self.name = NAME.replace("us-central1", region)

    def publish(self, job_id: str) -> None:
        assert self.bench.publish(self.bench.job(job_id)).published

    def follow(self) -> Registration:
        return follow(self.bench.storage, self.bench.bucket, "mnist", [VertexRegistry(**self.settings)])

    def versions(self) -> dict[str, list[str]]:
        """The aliases of each version by number, as read by Google's own client."""
        found = _googles_client(self.service).list_model_versions(name=self.name)
        return {model.version_id: list(model.version_aliases) for model in found}


@pytest.fixture
def elsewhere(service: RunningEmulator, storage: Storage, bucket: str) -> Elsewhere:
    region = f"r{bucket.rsplit('-', 1)[1]}"  # a region that only this test uses, because the emulator is shared
    return Elsewhere(service, Bench(storage, bucket), region)


def test_the_alias_follows_the_champion(elsewhere: Elsewhere) -> None:
    elsewhere.publish("a")
    first = elsewhere.follow()
    assert first.registered == (Registered("vertex", elsewhere.name, "1", True),)
    assert elsewhere.follow().registered[0].created is False
    elsewhere.publish("b")
    assert elsewhere.follow().registered[0].version == "2"
    assert elsewhere.versions() == {"1": [], "2": ["champion", "default"]}
    rollback(elsewhere.bench.storage, elsewhere.bench.bucket, "mnist", by="anna", why="wrong on sevens")
    assert elsewhere.follow().registered == (Registered("vertex", elsewhere.name, "1", False),)
    assert elsewhere.versions() == {"1": ["champion", "default"], "2": []}


def test_a_lost_response_does_not_create_a_second_version(elsewhere: Elsewhere) -> None:
    elsewhere.publish("a")
    elsewhere.service.script("UploadModel", "lose")
    assert elsewhere.follow().registered[0].version == "1"
    assert list(elsewhere.versions()) == ["1"]


def test_a_refused_upload_keeps_the_champion_and_can_be_retried(elsewhere: Elsewhere) -> None:
    elsewhere.publish("a")
    elsewhere.service.script("UploadModel", "status", status="PERMISSION_DENIED", message="aiplatform.models.upload")
    with pytest.raises(RegistryError, match=r"rejected a: .*aiplatform\.models\.upload") as caught:
        elsewhere.follow()
    assert "roles/aiplatform.user" in caught.value.hint
    assert not caught.value.retryable
    champion = current(elsewhere.bench.storage, elsewhere.bench.bucket, "mnist")
    assert champion is not None
    assert champion.job_id == "a"
    assert elsewhere.follow().registered[0].created


class SlowUpload(RestClient):
    """Hides the end of an upload, and all versions, until ``done`` is set."""

    done = False
    number = 2
    creates = False  # whether the model is hidden too

    def call(self, method: str, url: str, **options: Any) -> dict[str, Any] | None:
        answer = super().call(method, url, **options)
        if answer is None or self.done:
            return answer
        if "/operations" in url:
            for operation in answer.get("operations", [answer]):
                if operation["name"].endswith(f"/{self.number}"):
                    operation.pop("done", None)
        if self.creates and method == "GET" and url.endswith("/mnist"):
            return None
        return {} if url.endswith(":listVersions") else answer


def test_a_retry_waits_for_an_upload_that_exceeded_the_time_limit(elsewhere: Elsewhere) -> None:
    elsewhere.publish("a")
    elsewhere.follow()
    elsewhere.publish("b")
    client = SlowUpload(AnonymousCredentials(), direct=True, sleep=lambda _: None)  # type: ignore[no-untyped-call]
    registry = VertexRegistry(**elsewhere.settings, upload_timeout_seconds="0.1", client=client)
    register = partial(follow, elsewhere.bench.storage, elsewhere.bench.bucket, "mnist", [registry])
    for _ in range(2):
        with pytest.raises(RegistryError, match=r"operations/2 was not done after 0\.1 s") as caught:
            register()
        assert caught.value.retryable
        assert "upload_timeout_seconds" in caught.value.hint
    client.sleep = lambda _: setattr(client, "done", True)
    assert register().registered == (Registered("vertex", elsewhere.name, "2", False),)
    assert elsewhere.versions() == {"1": [], "2": ["champion", "default"]}


def test_the_first_upload_of_a_model_is_waited_for_by_the_retry(elsewhere: Elsewhere) -> None:
    elsewhere.publish("a")
    client = SlowUpload(AnonymousCredentials(), direct=True, sleep=lambda _: None)  # type: ignore[no-untyped-call]
    client.number, client.creates = 1, True
    registry = VertexRegistry(**elsewhere.settings, upload_timeout_seconds="0.1", client=client)
    register = partial(follow, elsewhere.bench.storage, elsewhere.bench.bucket, "mnist", [registry])
    for _ in range(2):
        with pytest.raises(RegistryError, match=r"operations/1 was not done after 0\.1 s"):
            register()
    client.sleep = lambda _: setattr(client, "done", True)
    assert register().registered == (Registered("vertex", elsewhere.name, "1", False),)
    assert elsewhere.versions() == {"1": ["champion", "default"]}


def test_operations_that_cannot_be_listed_do_not_prevent_an_upload(elsewhere: Elsewhere) -> None:
    elsewhere.publish("a")
    elsewhere.follow()
    elsewhere.publish("b")
    elsewhere.service.script("ListOperations", "status", status="PERMISSION_DENIED")
    assert elsewhere.follow().registered[0].version == "2"


def test_every_registry_is_updated_even_if_one_fails(elsewhere: Elsewhere) -> None:
    elsewhere.publish("a")
    gone = VertexRegistry(**{**elsewhere.settings, "endpoint": "http://127.0.0.1:1"}, client=_impatient())
    good = VertexRegistry(**elsewhere.settings)
    with pytest.raises(RegistryError) as caught:
        follow(elsewhere.bench.storage, elsewhere.bench.bucket, "mnist", [gone, good])
    assert caught.value.retryable, "the error must be retryable, so that Airflow retries the task"
    assert elsewhere.versions() == {"1": ["champion", "default"]}


def _impatient() -> Any:
    return RestClient(AnonymousCredentials(), direct=True, deadline=0.5)  # type: ignore[no-untyped-call]


class ChangesItsMind:
    """Publishes another champion while one is being registered."""

    name = "changes"

    def __init__(self, bench: Bench) -> None:
        self.bench, self.registered = bench, list[str]()

    def register(self, champion: Champion) -> Registered:
        if not self.registered:
            assert self.bench.publish(self.bench.job("b")).published
        self.registered.append(champion.job_id)
        return Registered(self.name, champion.model, champion.job_id, True)


def test_a_champion_that_changes_during_registration_is_registered(elsewhere: Elsewhere) -> None:
    elsewhere.publish("a")
    registry = ChangesItsMind(elsewhere.bench)
    followed = follow(elsewhere.bench.storage, elsewhere.bench.bucket, "mnist", [registry])
    assert (registry.registered, followed.champion.job_id) == (["a", "b"], "b")


def test_the_task_returns_the_registered_champion(elsewhere: Elsewhere) -> None:
    forget_connections()
    elsewhere.publish("a")
    elsewhere.publish("b")
    wanted = [{"kind": "vertex", **elsewhere.settings}]
    job = f"{elsewhere.bench.bucket}/mnist/a"
    operator = RegisterModelOperator(task_id="register", job=job, registries=wanted, gcp_conn_id=None)
    assert operator.execute({}) == {
        "model": "mnist",
        "serial": 2,
        "job_id": "b",
        "registries": [{"registry": "vertex", "name": elsewhere.name, "version": "1", "created": True}],
    }
    without_champion = RegisterModelOperator(
        task_id="register", job=f"{elsewhere.bench.bucket}/other/j", registries=wanted, gcp_conn_id=None
    )
    with pytest.raises(PublishError, match="other has no champion"):
        without_champion.execute({})
    forget_connections()


def test_models_register_works_on_the_command_line(elsewhere: Elsewhere, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere.publish("a")
    options = [word for name, value in elsewhere.settings.items() for word in ("--set", f"{name}={value}")]
    command = ["models", "register", "mnist", "--registry", "vertex", *options, "--bucket", elsewhere.bench.bucket]
    assert cli.main(command) == 0
    assert f"a: registered as version 1 of {elsewhere.name} in vertex" in capsys.readouterr().out
    with pytest.raises(SystemExit) as refused:
        cli.main([*command[:4], "sagemaker", *command[5:]])
    assert refused.value.code == ExitCode.USAGE
    assert "the registries are mlflow, vertex" in capsys.readouterr().err


def test_an_upload_uses_the_service_account_and_the_encryption_key(elsewhere: Elsewhere) -> None:
    elsewhere.publish("a")
    region = elsewhere.settings["region"]
    key = f"projects/p/locations/{region}/keyRings/k/cryptoKeys/c"
    calls = len(elsewhere.service.calls)
    other = VertexRegistry(**elsewhere.settings, encryption_key=key.replace(region, "elsewhere"))
    with pytest.raises(RegistryError, match=f"is in {region}, but encryption_key is in elsewhere"):
        follow(elsewhere.bench.storage, elsewhere.bench.bucket, "mnist", [other])
    assert elsewhere.service.calls[calls:] == []
    account = "upload@test-project.iam.gserviceaccount.com"
    registry = VertexRegistry(**elsewhere.settings, encryption_key=key, service_account=account)
    follow(elsewhere.bench.storage, elsewhere.bench.bucket, "mnist", [registry])
    (model,) = _googles_client(elsewhere.service).list_model_versions(name=elsewhere.name)
    assert model.encryption_spec.kms_key_name == key
    assert model.container_spec.image_uri == IMAGE


def test_labels_in_raw_do_not_hide_a_version(elsewhere: Elsewhere) -> None:
    elsewhere.publish("a")
    elsewhere.settings |= {"raw": {"labels": {"team": "vision", "mlengine-key": "x"}}, "labels": '{"cost": "ml"}'}
    for created in (True, False):
        (registered,) = elsewhere.follow().registered
        assert (registered.version, registered.created) == ("1", created)
    (model,) = _googles_client(elsewhere.service).list_model_versions(name=elsewhere.name)
    assert {name: model.labels[name] for name in ("team", "cost")} == {"team": "vision", "cost": "ml"}


def test_a_model_created_concurrently_by_another_process_is_a_retryable_error(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere.publish("a")
    elsewhere.follow()
    elsewhere.publish("b")
    exists, answers = vertex._Model.exists, [False]

    with monkeypatch.context() as patch:
        patch.setattr(vertex._Model, "exists", lambda model: answers.pop() if answers else exists(model))
        with pytest.raises(RegistryError, match=r"another process created .* first") as caught:
            elsewhere.follow()
    assert caught.value.retryable
    elsewhere.follow()
    assert set(elsewhere.versions()) == {"1", "2"}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (5, "invalid model registry: 5"),
        (None, "invalid model registry: None"),
        ({"kind": "vertex", "image_uri": "x", "labels": "team"}, "labels is a string: 'team'"),
        ({"kind": "vertex", "image_uri": "x", "container": "8501"}, "container is not a mapping: 8501"),
        ({"kind": "vertex", "image_uri": "x", "raw": ["a"]}, "raw is not a mapping: "),
        ({"kind": "vertex", "raw": {"containerSpec": 1}}, "containerSpec of raw is not a mapping: 1"),
    ],
)
def test_settings_of_a_wrong_type_are_refused(wanted: Any, message: str) -> None:
    with pytest.raises(MlengineError, match=message):
        registries.connect(wanted)


def test_googles_client_can_upload_to_the_emulator(elsewhere: Elsewhere) -> None:
    """The emulator's responses are in the format that Google's client expects."""
    from google.api_core.exceptions import BadRequest
    from google.cloud.aiplatform_v1.types import Model  # noqa: TID251 - the foreign client

    client = _googles_client(elsewhere.service)
    parent = elsewhere.name.rsplit("/", 2)[0]
    model = Model(display_name="mnist", artifact_uri="gs://bkt/m", version_aliases=["champion"])
    with pytest.raises(BadRequest, match=r"model\.container_spec\.image_uri"):
        client.upload_model(request={"parent": parent, "model_id": "mnist", "model": model})
    model.container_spec.image_uri = IMAGE
    operation = client.upload_model(request={"parent": parent, "model_id": "mnist", "model": model})
    assert operation.operation.name.startswith(
        f"{location_name('test-project', elsewhere.settings['region'])}/models/mnist/"
    )
    assert client.get_model(name=f"{elsewhere.name}@champion").artifact_uri == "gs://bkt/m"
    assert registries.names() == ["mlflow", "vertex"]
