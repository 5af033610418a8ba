"""Custom classes and functions in a Keras file."""

from __future__ import annotations

import json
import sys
import zipfile
from fractions import Fraction
from math import hypot
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlengine.validation.scoring.predictors.keras import KerasModel, _custom_objects

LAYER: dict[str, Any] = {"module": "keras.layers", "class_name": "Dense", "config": {}, "registered_name": None}


def stored(folder: Path, *layers: dict[str, Any], **more: Any) -> str:
    config = {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "registered_name": "Functional",
        "config": {"layers": [LAYER, *layers]},
        **more,
    }
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    return str(folder / "model.keras")


def test_custom_objects_are_imported_by_the_names_in_the_file(tmp_path: Path) -> None:
    layer = {"module": "fractions", "class_name": "Fraction", "registered_name": "mine>Fraction", "config": {}}
    activation = {"module": "math", "class_name": "function", "config": "hypot", "registered_name": "hypot"}
    path = stored(tmp_path, layer, {**LAYER, "config": {"activation": activation}})
    assert _custom_objects(path) == {"mine>Fraction": Fraction, "hypot": hypot}


def test_losses_and_other_descriptions_are_not_imported(tmp_path: Path) -> None:
    loss = {"module": "no_such", "class_name": "function", "config": "loss", "registered_name": "loss"}
    spec: dict[str, Any] = {"class_name": "__typespec__", "module": "no_such", "config": [], "registered_name": None}
    path = stored(tmp_path, {**LAYER, "config": {"spec": spec}}, compile_config={"loss": loss})
    assert _custom_objects(path) == {}


@pytest.mark.parametrize("module", [None, "__main__"])
def test_a_class_of_the_main_module_is_refused_with_advice(module: str | None, tmp_path: Path) -> None:
    path = stored(tmp_path, {"module": module, "class_name": "Log", "registered_name": "mine>Log", "config": {}})
    with pytest.raises(ValueError, match="the model needs Log, which is defined in the module that the trainer runs"):
        _custom_objects(path)


def test_a_missing_module_is_named(tmp_path: Path) -> None:
    path = stored(tmp_path, {"module": "no_such", "class_name": "Log", "registered_name": "mine>Log", "config": {}})
    with pytest.raises(ValueError, match="the model needs Log of no_such, which cannot be imported: No module named"):
        _custom_objects(path)


@pytest.mark.parametrize("name", ["swish2", "mine>swish2"])
def test_a_function_of_which_the_file_has_only_the_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Keras 3 writes a function and reports it."""
    function = {"module": "builtins", "class_name": "function", "config": name, "registered_name": "function"}
    path = stored(tmp_path, {**LAYER, "config": {"activation": function}})

    def load_model(*_: object, **__: object) -> None:
        raise TypeError(
            f"<class 'Dense'> could not be deserialized. Exception encountered: Could not locate function '{name}'. "
            "Make sure custom classes and functions are decorated. Full object config: {}"
        )

    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(saving=SimpleNamespace(load_model=load_model)))
    with pytest.raises(ValueError, match="needs the function swish2, and the file does not say in which module"):
        KerasModel(path, {}, {})


@pytest.mark.parametrize(
    ("layers", "output", "names"),
    [
        (["stars", "returned"], None, ["stars", "returned"]),
        (["stars", "returned"], "output_1", ["output_0", "output_1"]),
        (["stars", "stars"], None, ["output_0", "output_1"]),
    ],
)
def test_a_list_of_outputs_has_the_names_of_its_layers(layers: list[str], output: str | None, names: list[str]) -> None:
    model = KerasModel.__new__(KerasModel)
    model.model, model.options = SimpleNamespace(output_names=layers), {"output": output}
    assert model._output_names(2) == names
