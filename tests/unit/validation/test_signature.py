"""Checks of signature, devices and ops. Reading ``saved_model.pb`` is tested in test_saved_model.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlengine.validation.saved_model import Graph, Signature, Tensor
from mlengine.validation.serving_signature import ServingSignature
from mlengine.validation.signature import check_devices, check_ops, check_saved_model, check_signature

EXPECTED = ServingSignature.from_json(
    {
        "inputs": {"key": "int64[-1]", "image": "float32[-1,784]"},
        "outputs": {"key": "int64[-1]", "scores": "float32[-1,10]"},
        "key": "key",
    }
)


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
        ({"inputs": {"extra": Tensor("bool", ())}}, "input 'extra' is unexpected"),
        ({"inputs": {"image": Tensor("float32", (-1, 28, 28))}}, "input 'image' has shape float32[-1,28,28]"),
        ({"inputs": {"image": Tensor("float32", None)}}, "input 'image' has shape float32 instead of float32[-1,784]"),
        ({"outputs": {"scores": Tensor("float64", (-1, 10))}}, "output 'scores' is float64[-1,10] instead of"),
        ({"outputs": {"key": Tensor("int32", (-1,))}}, "output 'key' is int32[-1] instead of int64[-1]"),
    ],
)
def test_the_message_has_each_difference(changes: dict[str, Any], words: str) -> None:
    check = check_signature(graph(**changes), EXPECTED)
    assert not check.passed
    assert words in check.message


@pytest.mark.parametrize(
    "device",
    ["/job:ps/task:0", "/job:chief/replica:0/task:0/device:CPU:0", "/job:localhost/replica:0/task:1", "/task:3", "gpu"],
)
def test_a_device_of_the_training_cluster_fails(device: str) -> None:
    check = check_devices([Graph(devices={"", "/device:CPU:0", device})], EXPECTED.allowed_devices)
    assert not check.passed
    assert f"has nodes on {device}" in check.message


@pytest.mark.parametrize("device", ["/device:TPU:0", "/job:localhost/replica:0/task:0/device:TPU:7"])
def test_a_device_other_than_cpu_and_gpu_fails(device: str) -> None:
    check = check_devices([Graph(devices={device})], EXPECTED.allowed_devices)
    assert not check.passed
    assert f"The graph has nodes on {device}, which is neither a CPU nor a GPU" in check.message
    assert check_devices([Graph(devices={device})], ("*/device:TPU:*",)).passed


@pytest.mark.parametrize(
    "device",
    [
        "",
        "/device:CPU:*",
        "/cpu:0",
        "/device:GPU:0",
        "/job:localhost/replica:0/task:0/device:CPU:0",  # in the tables of adapted Keras layers
        "/job:localhost/replica:0/task:0/device:GPU:1",
        "/replica:0/task:0",
    ],
)
def test_local_devices_pass(device: str) -> None:
    assert check_devices([Graph(devices={device})], EXPECTED.allowed_devices).passed


@pytest.mark.parametrize("op", ["PyFunc", "EagerPyFunc", "ReadFile", "WriteFile", "TFRecordDatasetV2"])
def test_a_denied_op_fails(op: str) -> None:
    check = check_ops([Graph(ops={"MatMul": 3, op: 1})], EXPECTED)
    assert not check.passed
    assert op in check.message
    assert check_ops([Graph(ops={"MatMul": 3, op: 1})], ServingSignature.from_json({"allowed_ops": [op]})).passed


def test_ops_of_ordinary_models_pass() -> None:
    ops = "MatMul Conv2D Relu Softmax VarHandleOp ReadVariableOp StatefulPartitionedCall SaveV2 RestoreV2 StringJoin"
    assert check_ops([Graph(ops=dict.fromkeys(ops.split(), 1))], EXPECTED).passed


def test_any_signature_passes_if_none_is_configured() -> None:
    check = check_signature(graph(inputs={"extra": Tensor("bool", ())}), ServingSignature())
    assert check.passed
    assert "extra bool" in str(check.value)


def test_a_damaged_file_is_a_failed_check(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\xff" * 30)
    (check,) = check_saved_model(tmp_path, EXPECTED)
    assert not check.passed
    assert "damaged" in check.message


def test_a_graph_without_the_serve_tag_fails(tmp_path: Path) -> None:
    # meta_graphs = 2, meta_info_def = 1, tags = 4
    (tmp_path / "saved_model.pb").write_bytes(bytes([0x12, 9, 0x0A, 7, 0x22, 5, *b"train"]))
    (check,) = check_saved_model(tmp_path, EXPECTED)
    assert check.message == "No graph has the tag 'serve'; the tags are: train."
