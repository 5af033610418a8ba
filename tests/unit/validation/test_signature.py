"""What is expected of a model, and what is said of one that is otherwise. The bytes: core/test_savedmodel.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlengine.core.errors import ModelError
from mlengine.validation.saved_model import Graph, Signature, Tensor
from mlengine.validation.signature import Expectation, check_devices, check_ops, check_saved_model, check_signature

EXPECTED = Expectation()


def graph(**changes: Any) -> Graph:
    inputs = {"key": Tensor("int64", (-1,)), "image": Tensor("float32", (-1, 784))}
    outputs = {"key": Tensor("int64", (-1,)), "scores": Tensor("float32", (-1, 10))}
    inputs |= changes.get("inputs", {})
    outputs |= changes.get("outputs", {})
    for name in changes.get("without", ()):
        inputs.pop(name, None)
    return Graph(tags={"serve"}, signatures={"serving_default": Signature(inputs, outputs)})


def test_the_expected_signature_passes() -> None:
    assert check_signature(graph(), EXPECTED).passed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"without": ["key"]}, "input 'key' is missing"),
        ({"inputs": {"extra": Tensor("bool", ())}}, "input 'extra' is not expected"),
        ({"inputs": {"image": Tensor("float32", (-1, 28, 28))}}, "input 'image' has shape float32[-1,28,28]"),
        ({"inputs": {"image": Tensor("float32", None)}}, "input 'image' has shape float32, not float32[-1,784]"),
        ({"outputs": {"scores": Tensor("float64", (-1, 10))}}, "output 'scores' is float64[-1,10], not"),
        ({"outputs": {"key": Tensor("int32", (-1,))}}, "output 'key' is int32[-1], not int64[-1]"),
    ],
)
def test_each_difference_is_named(changes: dict[str, Any], words: str) -> None:
    check = check_signature(graph(**changes), EXPECTED)
    assert not check.passed
    assert words in check.message


@pytest.mark.parametrize(
    "device",
    ["/job:ps/task:0", "/job:chief/replica:0/task:0/device:CPU:0", "/job:localhost/replica:0/task:1", "/task:3", "gpu"],
)
def test_a_device_of_the_cluster_is_found(device: str) -> None:
    check = check_devices([Graph(devices={"", "/device:CPU:0", device})], EXPECTED.allowed_devices)
    assert not check.passed
    assert f"still tied to {device}" in check.message


@pytest.mark.parametrize("device", ["/device:TPU:0", "/job:localhost/replica:0/task:0/device:TPU:7"])
def test_a_device_that_a_serving_machine_may_not_have_is_found(device: str) -> None:
    check = check_devices([Graph(devices={device})], EXPECTED.allowed_devices)
    assert not check.passed
    assert f"The graph asks for {device}, which is neither a CPU nor a GPU" in check.message
    assert check_devices([Graph(devices={device})], ("*/device:TPU:*",)).passed


@pytest.mark.parametrize(
    "device",
    [
        "",
        "/device:CPU:*",
        "/cpu:0",
        "/device:GPU:0",
        "/job:localhost/replica:0/task:0/device:CPU:0",  # as the tables of adapted Keras layers have it
        "/job:localhost/replica:0/task:0/device:GPU:1",
        "/replica:0/task:0",
    ],
)
def test_a_device_of_the_machine_itself_is_no_device_of_the_cluster(device: str) -> None:
    assert check_devices([Graph(devices={device})], EXPECTED.allowed_devices).passed


@pytest.mark.parametrize("op", ["PyFunc", "EagerPyFunc", "ReadFile", "WriteFile", "TFRecordDatasetV2"])
def test_an_op_that_reaches_outside_is_found(op: str) -> None:
    check = check_ops([Graph(ops={"MatMul": 3, op: 1})], EXPECTED)
    assert not check.passed
    assert op in check.message
    assert check_ops([Graph(ops={"MatMul": 3, op: 1})], Expectation.from_json({"allowed_ops": [op]})).passed


def test_the_ops_of_an_ordinary_model_pass() -> None:
    ops = "MatMul Conv2D Relu Softmax VarHandleOp ReadVariableOp StatefulPartitionedCall SaveV2 RestoreV2 StringJoin"
    assert check_ops([Graph(ops=dict.fromkeys(ops.split(), 1))], EXPECTED).passed


def test_a_damaged_file_is_a_failed_check(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\xff" * 30)
    (check,) = check_saved_model(tmp_path, EXPECTED)
    assert not check.passed
    assert "damaged" in check.message


def test_a_graph_for_training_only_is_not_served(tmp_path: Path) -> None:
    # meta_graphs = 2, meta_info_def = 1, tags = 4
    (tmp_path / "saved_model.pb").write_bytes(bytes([0x12, 9, 0x0A, 7, 0x22, 5, *b"train"]))
    (check,) = check_saved_model(tmp_path, EXPECTED)
    assert check.message == "No graph has the tag 'serve'; the tags are: train."


def test_an_expectation_of_ones_own() -> None:
    made = Expectation.from_json(
        {
            "inputs": {"keras_tensor": "float32[-1,784]"},
            "outputs": {"output_0": "float32[-1,10]"},
            "key": None,
            "features": "keras_tensor",
            "scores": "output_0",
        }
    )
    assert str(made.signature) == "keras_tensor float32[-1,784] -> output_0 float32[-1,10]"
    assert Expectation.from_json(made.to_json()) == made
    assert Expectation.from_json(None) == EXPECTED


@pytest.mark.parametrize(("scale", "read"), [("255", 255.0), ("", None), ("None", None), (1, 1), (None, None)])
def test_a_scale_comes_as_a_template_gives_it(scale: object, read: float | None) -> None:
    assert Expectation.from_json({"scale": scale}).scale == read


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"features": "pixels"}, "features 'pixels' is none of image, key"),
        ({"inputs": {"image": "float32[-1,784]"}}, "key 'key' is none of image"),
        ({"inputs": {"image": "floats"}}, "not a tensor"),
        ({"outptus": {}}, "not a serving signature"),
        ({"scale": 0}, "scale is 0"),
        ({"scale": "many"}, "scale is nan"),
        (
            {"inputs": {"key": "int64[-1]", "image": "uint8[-1,784]"}, "scale": 255},
            "divides by scale 255, but input 'image' takes uint8",
        ),
    ],
)
def test_an_expectation_that_contradicts_itself_is_refused(data: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Expectation.from_json(data)
