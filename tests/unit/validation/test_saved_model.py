"""Reading ``saved_model.pb`` without TensorFlow.

The messages are built by hand here; ``tests/integration/test_validation.py`` reads files that TensorFlow wrote.
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlengine.core.errors import ModelError
from mlengine.validation import saved_model
from mlengine.validation.saved_model import Signature, Tensor, read


def varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(data)) + data


def tensor(dtype: int, *sizes: int, unknown_rank: bool = False) -> bytes:
    shape = b"".join(block(2, number(1, size) if size else b"") for size in sizes)
    return block(1, "name:0") + number(2, dtype) + block(3, shape + (number(3, 1) if unknown_rank else b""))


def entry(field: int, key: str, value: bytes) -> bytes:
    return block(field, block(1, key) + block(2, value))


def node(op: str, device: str = "") -> bytes:
    return block(1, "some/node") + block(2, op) + (block(4, device) if device else b"")


SIGNATURE = (
    entry(1, "key", tensor(9, -1))
    + entry(1, "image", tensor(1, -1, 784))
    + entry(2, "scores", tensor(1, -1, 10))
    + block(3, "tensorflow/serving/predict")
)
FUNCTION = block(1, b"") + block(3, node("MatMul", "/device:CPU:0"))
GRAPH = block(1, node("Placeholder")) + block(1, node("MatMul")) + block(2, block(1, FUNCTION))
OBJECTS = block(1, block(7, number(1, 1) + block(7, "/job:ps/task:0")))
META = block(1, block(4, "serve") + block(5, "2.21.0")) + block(2, GRAPH) + entry(5, "serving_default", SIGNATURE)
MODEL = number(1, 1) + block(2, META)


def test_tags_signatures_ops_and_devices_are_read() -> None:
    (graph,) = read(MODEL)
    assert graph.tags == {"serve"}
    assert graph.tensorflow == "2.21.0"
    assert graph.signatures == {
        "serving_default": Signature(
            {"key": Tensor("int64", (-1,)), "image": Tensor("float32", (-1, 784))},
            {"scores": Tensor("float32", (-1, 10))},
        )
    }
    assert graph.ops == {"Placeholder": 1, "MatMul": 2}
    assert graph.devices == {"", "/device:CPU:0"}


def test_devices_of_variables_are_read() -> None:
    (graph,) = read(block(2, META + block(7, OBJECTS)))
    assert "/job:ps/task:0" in graph.devices


def test_scalar_empty_and_unknown_shapes_are_read() -> None:
    sides = (
        entry(1, "scalar", tensor(3)) + entry(1, "empty", tensor(1, 0)) + entry(1, "any", tensor(99, unknown_rank=True))
    )
    (graph,) = read(block(2, entry(5, "s", sides)))
    assert {name: str(found) for name, found in graph.signatures["s"].inputs.items()} == {
        "scalar": "int32[]",
        "empty": "float32[0]",
        "any": "dtype 99",
    }


def test_unknown_fields_of_every_encoding_are_skipped() -> None:
    unknown = number(50, 7) + varint(51 << 3 | 1) + b"8 bytes!" + block(52, b"x" * 300) + varint(53 << 3 | 5) + b"four"
    assert read(unknown + MODEL + unknown) == read(MODEL)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no graph"),
        (b"hello, world", "damaged|truncated"),
        (MODEL[:-5], "truncated"),
        (varint(2 << 3 | 2) + varint(1 << 60) + b"x", "truncated"),
        (b"\xff" * 20, "more than 10 bytes"),
        (varint(2 << 3 | 3), "wire type 3"),
        (b"\x00\x00", "field with number 0"),
        (block(2, block(1, block(4, b"\xff\xfe"))), "damaged"),
        (block(2, block(1, block(4, b""))) + b"\x12\x80", "truncated"),
    ],
)
def test_invalid_data_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        read(data)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_no_other_errors(data: bytes) -> None:
    with contextlib.suppress(ModelError):
        read(data)


@given(st.integers(0, len(MODEL) - 1), st.integers(0, 255))
def test_a_changed_byte_raises_no_other_errors(at: int, value: int) -> None:
    with contextlib.suppress(ModelError):
        read(MODEL[:at] + bytes([value]) + MODEL[at + 1 :])


def test_data_over_a_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_model, "MAX_BYTES", len(MODEL) - 1)
    with pytest.raises(ModelError, match="more than"):
        read(MODEL)
    monkeypatch.undo()
    monkeypatch.setattr(saved_model, "MAX_NODES", 1000)
    # An empty message is only two bytes.
    with pytest.raises(ModelError, match="more than 1000 nodes"):
        read(block(2, block(2, block(1, b"") * 1001)))
    with pytest.raises(ModelError, match="signatures"):
        read(block(2, entry(5, "s", b"") * 10_001))


@pytest.mark.parametrize("text", ["float32[-1,784]", "int64[-1]", "string", "bool[]", "bfloat16[1,2,3]"])
def test_a_tensor_is_parsed(text: str) -> None:
    assert str(Tensor.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "float", "float32[", "float32]", "float32[a]", "float32[-1,]", "[3]", "int64[1][2]"]
)
def test_an_invalid_tensor_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="invalid tensor"):
        Tensor.parse(text)


def test_a_signature_survives_json() -> None:
    (graph,) = read(MODEL)
    signature = graph.signatures["serving_default"]
    assert Signature.from_json(signature.to_json()) == signature
    assert str(signature) == "image float32[-1,784], key int64[-1] -> scores float32[-1,10]"
    with pytest.raises(ModelError, match="invalid signature"):
        Signature.from_json({"inputs": {}})
