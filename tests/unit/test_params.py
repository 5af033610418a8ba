"""The fields that forms share: labels, defaults that work, and their effect on the job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.sdk import Param
from airflow.sdk.exceptions import ParamValidationError

from mlengine import backends, params
from mlengine.assets import dataset_asset
from mlengine.core.errors import DatasetError, MlengineError
from mlengine.core.job_file.tiers import TIERS
from mlengine.datasets.version_hints import note_versions


@pytest.mark.parametrize("name", ["CUSTOM", "basic"])
def test_a_tier_without_a_fixed_cluster_is_refused(name: str) -> None:
    with pytest.raises(MlengineError, match=f"'{name}' is not a scale tier with a fixed cluster"):
        params.scale_tier(("BASIC", name))


@pytest.mark.parametrize("param", [params.backend(), params.scale_tier(tuple(TIERS))])
def test_every_choice_has_a_label(param: Param) -> None:
    labels = param.schema["values_display"]
    assert {None if name == "None" else name for name in labels} == set(param.schema["enum"])
    assert all(len(label) > 4 for label in labels.values())
    assert param.resolve() is None


def test_a_tier_shows_its_replica_counts() -> None:
    assert params.scale_tier().schema["values_display"]["STANDARD_1"] == (
        "STANDARD_1: 1 chief, 4 workers, 3 parameter servers"
    )


def test_a_registered_backend_can_be_chosen() -> None:
    backends.register("moon", "moon:Moon")
    assert params.backend().resolve("moon") == "moon"
    with pytest.raises(ParamValidationError, match="mars"):
        params.backend().resolve("mars")


@pytest.mark.parametrize("make", [params.dataset_version, dataset_asset])
def test_an_invalid_dataset_name_is_refused(make: Callable[[str], object]) -> None:
    """A DAG whose schedule is the asset of a dataset that cannot exist would never run."""
    with pytest.raises(DatasetError, match="invalid dataset name: 'MNIST'"):
        make("MNIST")


def test_known_versions_are_suggested_and_others_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW__MLENGINE__PARAM_HINTS_DIR", str(tmp_path))
    assert "examples" not in params.dataset_version("mnist").schema
    note_versions("mnist", ["2026-10-01", "2026-11-01"])
    param = params.dataset_version("mnist")
    assert param.schema["examples"] == ["2026-11-01", "2026-10-01"]
    assert param.resolve("v12") == "v12"
    with pytest.raises(ParamValidationError):
        param.resolve("../secrets")
