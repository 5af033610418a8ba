"""No operator pushes a number to XCom that Airflow cannot encode."""

from __future__ import annotations

import inspect
import json
import math
from importlib import import_module
from typing import Any, get_type_hints

import pytest
from airflow.sdk import BaseOperator

from mlengine.core.job import JobHandle
from mlengine.core.xcoms import finite
from mlengine.packaging.publish import PackagedTrainer
from mlengine.promotion.registries import Registered
from mlengine.provider import get_provider_info

NAN = math.nan
# The types in each operator's result. Results with a measured number must pass it through `finite`.
RESULTS: dict[str, tuple[type, ...]] = {
    "PackageTrainerOperator": (PackagedTrainer,),
    "PrepareJobDirOperator": (),
    "RegisterModelOperator": (Registered,),
    "ResolveDatasetOperator": (),
    "SubmitTrainingJobOperator": (JobHandle,),
    "TrainingJobSensor": (JobHandle,),
}
MEASURED = {"PublishModelOperator", "ValidateModelOperator", "RegisterModelOperator"}


def operators() -> dict[str, type[BaseOperator]]:
    info = get_provider_info()
    modules = [name for kind in ("operators", "sensors") for entry in info[kind] for name in entry["python-modules"]]
    classes = [one for module in modules for one in vars(import_module(module)).values() if inspect.isclass(one)]
    return {one.__name__: one for one in classes if issubclass(one, BaseOperator) and one.__module__ in modules}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": NAN, "b": [math.inf, 1.5], "c": (-math.inf,)}, {"a": None, "b": [None, 1.5], "c": [None]}),
        ({"accuracy": 0.97, "n": 3, "ok": True, "s": "nan"}, {"accuracy": 0.97, "n": 3, "ok": True, "s": "nan"}),
        ({"none": None}, {"none": None}),
    ],
)
def test_finite_replaces_nan_and_infinity_by_none(value: Any, expected: Any) -> None:
    assert finite(value) == expected
    json.dumps(finite(value), allow_nan=False)


def test_each_operator_is_covered_by_this_module() -> None:
    assert set(operators()) == set(RESULTS) | MEASURED


@pytest.mark.parametrize("name", sorted(set(RESULTS) - MEASURED))
def test_results_without_measurements_have_no_floating_point_number(name: str) -> None:
    for part in RESULTS[name]:
        assert float not in get_type_hints(part).values(), part
    assert "float" not in inspect.getsource(vars(operators()[name])["execute"])


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_results_with_measurements_pass_through_finite(name: str) -> None:
    assert "finite(" in inspect.getsource(vars(operators()[name])["execute"])
