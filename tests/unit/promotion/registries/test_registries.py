"""The requests to registries, validated with Google's message classes; and the selection of a registry."""

from __future__ import annotations

from dataclasses import replace

import pytest
from google.cloud.aiplatform_v1.types import model_service  # noqa: TID251 - the reference, in tests only
from google.protobuf import json_format

from mlengine.champions.history import Action, Champion
from mlengine.core.errors import RegistryError
from mlengine.promotion import registries
from mlengine.promotion.registries.vertex import VertexRegistry

CHAMPION = Champion(
    model="mnist",
    serial=7,
    action=Action.PUBLISHED,
    job_id="mnist_2026_11_01_0dc1c776",
    job_dir="gs://bkt/mnist/mnist_2026_11_01_0dc1c776",
    model_uri="gs://bkt/mnist/mnist_2026_11_01_0dc1c776/model",
    verdict="accepted",
    metric="accuracy",
    metric_value=0.9812,
    by="a dag run",
    why="All checks passed.",
    at="2026-11-23T12:00:00+00:00",
    fingerprint="f00",
    dataset={"name": "mnist", "version": "2026-11-01"},
)


def test_the_request_is_a_valid_message() -> None:
    registry = VertexRegistry(
        image_uri="europe-docker.pkg.dev/p/r/serving:1",
        container={"ports": [{"containerPort": 8501}], "predictRoute": "/v1/models/m:predict"},
        service_account="upload@p.iam.gserviceaccount.com",
        encryption_key="projects/p/locations/r/keyRings/k/cryptoKeys/c",
        labels={"team": "vision"},
        raw={"metadataSchemaUri": "gs://bkt/schema.yaml"},
    )
    for parent_model in (None, "projects/p/locations/r/models/mnist"):
        body = registry.request(CHAMPION, parent_model=parent_model)
        message = model_service.UploadModelRequest.pb(model_service.UploadModelRequest())
        json_format.ParseDict(body, message)
        assert (message.parent_model or None, message.model_id) == (parent_model, "" if parent_model else "mnist")
        assert message.service_account == "upload@p.iam.gserviceaccount.com"
        model = message.model
        assert model.encryption_spec.kms_key_name.endswith("/c")
        assert (model.artifact_uri, list(model.version_aliases)) == (CHAMPION.model_uri, ["champion"])
        assert (model.container_spec.image_uri[-9:], model.container_spec.ports[0].container_port) == (
            "serving:1",
            8501,
        )
        assert dict(model.labels) == {
            "team": "vision",
            "mlengine-job": "mnist_2026_11_01_0dc1c776",
            "mlengine-key": registries.champion_key(CHAMPION),
        }
        assert "0.9812" in model.version_description
        assert model.metadata_schema_uri == "gs://bkt/schema.yaml"


def test_a_container_image_is_required() -> None:
    with pytest.raises(RegistryError, match="no container image") as caught:
        registries.connect({"kind": "vertex", "region": "r", "container": {"predictRoute": "/p"}})
    assert "Artifact Registry" in caught.value.hint
    for more in ({"image_uri": "i"}, {"container": {"imageUri": "i"}}, {"raw": {"containerSpec": {"imageUri": "i"}}}):
        registries.connect({"kind": "vertex", **more})


def test_the_key_identifies_the_model_and_not_the_entry() -> None:
    key = registries.champion_key(CHAMPION)
    assert key == registries.champion_key(replace(CHAMPION, serial=9, restores=7, by="anna", why="rolled back"))
    assert key != registries.champion_key(replace(CHAMPION, fingerprint="f01"))
    assert len(key) <= 63  # a label's limit


@pytest.mark.parametrize("wanted", ["sagemaker", {}, {"kind": "vertex", "regoin": "x"}, {"kind": "mlflow", "url": "x"}])
def test_an_unknown_registry_or_setting_is_refused(wanted: object) -> None:
    with pytest.raises(RegistryError) as caught:
        registries.connect(wanted)  # type: ignore[arg-type]
    assert caught.value.hint
