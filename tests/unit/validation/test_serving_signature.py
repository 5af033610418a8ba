"""The configured serving signature: reading, writing, and inconsistent fields."""

from __future__ import annotations

from typing import Any

import pytest

from mlengine.core.errors import ModelError
from mlengine.validation.outputs import Activation
from mlengine.validation.serving_signature import ServingSignature

MNIST: dict[str, Any] = {
    "inputs": {"key": "int64[-1]", "image": "float32[-1,784]"},
    "outputs": {"key": "int64[-1]", "scores": "float32[-1,10]"},
    "key": "key",
}


@pytest.mark.parametrize(
    "data",
    [
        MNIST,
        {"columns": {"departure": "dep_time"}, "activation": "sigmoid"},
        {"columns": {"text": "comment", "numbers": ["price", "weight"]}},
        {"inputs": {"pixels": "float32[-1,784]"}, "features": "pixels", "output": "digit", "scale": 255},
    ],
)
def test_a_signature_survives_json(data: dict[str, Any]) -> None:
    signature = ServingSignature.from_json(data)
    written = signature.to_json()
    assert ServingSignature.from_json(written) == signature
    assert {name: written[name] for name in data} == data


def test_the_default_accepts_any_model() -> None:
    assert ServingSignature.from_json(None) == ServingSignature()
    assert (ServingSignature().inputs, ServingSignature().outputs, ServingSignature().key) == (None, None, None)


def test_a_report_of_version_0_1_is_read() -> None:
    old = {"name": "serving_default", "scores": "scores", "features": "image", "probabilities": False, **MNIST}
    signature = ServingSignature.from_report(old)
    assert (signature.output, signature.activation) == ("scores", Activation.SCORES)
    assert ServingSignature.from_report({**old, "probabilities": True}).activation is Activation.NONE


@pytest.mark.parametrize(("scale", "read"), [("255", 255.0), ("", None), ("None", None), (1, 1), (None, None)])
def test_a_scale_from_a_template_is_read(scale: object, read: float | None) -> None:
    assert ServingSignature.from_json({"scale": scale}).scale == read


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({**MNIST, "features": "pixels"}, "features='pixels' is not in the serving signature, which has image, key"),
        ({"inputs": {"image": "float32[-1,784]"}, "key": "key"}, "key='key' is not in the serving signature"),
        ({**MNIST, "output": "digit"}, "output='digit' is not in the serving signature, which has key, scores"),
        ({**MNIST, "columns": {"pixels": "image"}}, "columns='pixels' is not in the serving signature"),
        ({"inputs": {"image": "floats"}}, "invalid tensor"),
        ({"columns": {"x": 3}}, "columns of the serving signature is {'x': 3}"),
        ({"columns": {"x": []}}, "columns of the serving signature is"),
        ({"columns": ["x"]}, "columns of the serving signature is"),
        ({"inputs": "image"}, "inputs of a serving signature is 'image'"),
        ({"outptus": {}}, "unknown field of a serving signature: outptus"),
        ({"activation": "relu"}, "unknown activation 'relu'"),
        ({"scale": 0}, "scale=0"),
        ({"scale": "many"}, "scale=nan"),
        (
            {"inputs": {"key": "int64[-1]", "image": "uint8[-1,784]"}, "key": "key", "scale": 255},
            r"scale=255, but its inputs \(.*image.*\) take integers",
        ),
    ],
)
def test_an_inconsistent_signature_is_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        ServingSignature.from_json(data)


@pytest.mark.parametrize("field", ["denied_ops", "allowed_ops", "allowed_devices"])
@pytest.mark.parametrize("value", ["ReadFile", 5, {"ReadFile": 1}])
def test_patterns_must_be_a_list(field: str, value: object) -> None:
    """If a string were accepted, each letter would be a pattern, and nothing would be denied."""
    with pytest.raises(ModelError, match=f"{field} of the serving signature is"):
        ServingSignature.from_json({field: value})


def test_a_null_field_has_its_default() -> None:
    empty = dict.fromkeys(("denied_ops", "columns", "activation", "scale", "inputs"))
    assert ServingSignature.from_json(empty) == ServingSignature()
