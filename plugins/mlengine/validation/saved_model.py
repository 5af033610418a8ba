"""Reads ``saved_model.pb`` without TensorFlow.

In protobuf's wire format, a field is a varint tag followed by a varint, by 4 or 8 bytes, or by a length and that number
of bytes. The few fields that are needed are found by their numbers (TensorFlow's ``saved_model.proto``,
``meta_graph.proto``, ``graph.proto``, ``function.proto``, ``saved_object_graph.proto``); all others are skipped. This
takes milliseconds, whereas the import of TensorFlow takes seconds, and no code of the model runs.

The file is not trusted, so its size, the number of nodes and the nesting depth are limited (the depth is fixed, because
no message is read recursively). The checks are in :mod:`mlengine.validation.signature`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from mlengine.core.errors import ModelError

MAX_BYTES = 512 * 1024 * 1024
MAX_NODES = 2_000_000
MAX_NAMES = 10_000  # signatures, inputs, outputs, tags

# From TensorFlow's types.proto. Other types are shown by number.
DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string", 8: "complex64",
    9: "int64", 10: "bool", 14: "bfloat16", 17: "uint16", 18: "complex128", 19: "float16", 20: "resource",
    21: "variant", 22: "uint32", 23: "uint64",
}  # fmt: skip

_TENSOR = re.compile(r"^(?P<dtype>[a-z]+[0-9]*)(?:\[(?P<sizes>(?:-?\d+(?:,-?\d+)*)?)\])?$")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
Value = int | memoryview


@dataclass(frozen=True)
class Tensor:
    """An input or output of a signature. A size of -1 in ``shape`` means any size; a shape ``None`` means any rank."""

    dtype: str
    shape: tuple[int, ...] | None = None

    def __str__(self) -> str:
        if self.shape is None:
            return self.dtype
        return f"{self.dtype}[{','.join(str(size) for size in self.shape)}]"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``float32[-1,784]``, or ``float32`` for any shape.

        :raises ModelError: the text has neither form.
        """
        match = _TENSOR.match(text.strip())
        if match is None or match["dtype"] not in DTYPES.values():
            raise ModelError(
                f"invalid tensor: {text!r}", hint="write dtype[size,…] with -1 for any size: float32[-1,784]"
            )
        inner = match["sizes"]
        shape = None if inner is None else tuple(int(size) for size in inner.split(",") if size)
        dtype = match["dtype"]
        return cls(dtype, shape)


@dataclass(frozen=True)
class Signature:
    """A signature of the model: its inputs and outputs."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]

    def __str__(self) -> str:
        sides = (", ".join(f"{name} {tensor}" for name, tensor in sorted(side.items())) for side in self._sides)
        return " -> ".join(sides)

    @property
    def _sides(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        return self.inputs, self.outputs

    def to_json(self) -> dict[str, dict[str, str]]:
        return {
            "inputs": {name: str(tensor) for name, tensor in sorted(self.inputs.items())},
            "outputs": {name: str(tensor) for name, tensor in sorted(self.outputs.items())},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read a signature.

        :raises ModelError: inputs or outputs are missing, or a tensor is invalid.
        """
        try:
            inputs, outputs = (
                {str(name): Tensor.parse(str(text)) for name, text in data[side].items()}
                for side in ("inputs", "outputs")
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"invalid signature: {data!r}", hint='write {"inputs": {name: "dtype[shape]"}, "outputs": {…}}'
            ) from error
        return cls(inputs, outputs)


@dataclass
class Graph:
    """A meta graph of a SavedModel.

    :param tensorflow: the version of TensorFlow that wrote it.
    :param ops: the number of nodes of each op, in the graph and in its functions.
    :param devices: the devices of all nodes and variables; ``""`` is any device.
    """

    tags: set[str] = field(default_factory=set)
    tensorflow: str = ""
    signatures: dict[str, Signature] = field(default_factory=dict)
    ops: dict[str, int] = field(default_factory=dict)
    devices: set[str] = field(default_factory=set)


def read(data: bytes) -> list[Graph]:
    """Read all meta graphs of a ``saved_model.pb``.

    :raises ModelError: the data is not a SavedModel, or exceeds a limit.
    """
    if len(data) > MAX_BYTES:
        raise ModelError(f"saved_model.pb has {len(data)} bytes, more than {MAX_BYTES}")
    budget = _Budget()
    try:
        graphs = [_graph(part, budget) for part in _messages(memoryview(data), 2)]
    except (IndexError, UnicodeDecodeError) as error:
        raise ModelError(f"saved_model.pb is damaged: {error}", hint="export the model again") from error
    if not graphs:
        raise ModelError("saved_model.pb has no graph", hint="export the model again")
    return graphs


@dataclass
class _Budget:
    nodes: int = field(default_factory=lambda: MAX_NODES)
    names: int = field(default_factory=lambda: MAX_NAMES)

    def node(self) -> None:
        self.nodes -= 1
        if self.nodes < 0:
            raise ModelError(f"saved_model.pb has more than {MAX_NODES} nodes")

    def name(self) -> None:
        self.names -= 1
        if self.names < 0:
            raise ModelError(f"saved_model.pb has more than {MAX_NAMES} signatures, inputs, outputs or tags")


def _graph(data: memoryview, budget: _Budget) -> Graph:
    graph = Graph()
    for number, value in _fields(data):
        if not isinstance(value, memoryview):
            continue
        if number == 1:  # meta_info_def
            _meta_info(value, graph, budget)
        elif number == 2:  # graph_def: node = 1, library = 2 with function = 1 with node_def = 3
            _nodes(value, 1, graph, budget)
            for library in _messages(value, 2):
                for function in _messages(library, 1):
                    _nodes(function, 3, graph, budget)
        elif number == 5:  # signature_def, a map
            budget.name()
            name, signature = _entry(value)
            graph.signatures[name] = _signature(signature, budget)
        elif number == 7:  # object_graph_def: nodes = 1, variable = 7 with device = 7
            _variables(value, graph, budget)
    return graph


def _meta_info(data: memoryview, graph: Graph, budget: _Budget) -> None:
    for number, value in _fields(data):
        if number == 4 and isinstance(value, memoryview):
            budget.name()
            graph.tags.add(_text(value))
        elif number == 5 and isinstance(value, memoryview):
            graph.tensorflow = _text(value)


def _nodes(data: memoryview, number: int, graph: Graph, budget: _Budget) -> None:
    for node in _messages(data, number):
        budget.node()
        op = device = ""
        for inner, value in _fields(node):
            if inner == 2 and isinstance(value, memoryview):
                op = _text(value)
            elif inner == 4 and isinstance(value, memoryview):
                device = _text(value)
        graph.ops[op] = graph.ops.get(op, 0) + 1
        graph.devices.add(device)


def _variables(data: memoryview, graph: Graph, budget: _Budget) -> None:
    for item in _messages(data, 1):
        budget.node()
        for variable in _messages(item, 7):
            for device in _messages(variable, 7):
                graph.devices.add(_text(device))


def _signature(data: memoryview, budget: _Budget) -> Signature:
    sides: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for number, value in _fields(data):
        if number in {1, 2} and isinstance(value, memoryview):
            budget.name()
            name, tensor = _entry(value)
            sides[number - 1][name] = _tensor(tensor, budget)
    return Signature(*sides)


def _tensor(data: memoryview, budget: _Budget) -> Tensor:
    dtype, shape = 0, None
    for number, value in _fields(data):
        if number == 2 and isinstance(value, int):
            dtype = value
        elif number == 3 and isinstance(value, memoryview):
            shape = _shape(value, budget)
    return Tensor(DTYPES.get(dtype, f"dtype {dtype}"), shape)


def _shape(data: memoryview, budget: _Budget) -> tuple[int, ...] | None:
    sizes: list[int] = []
    for number, value in _fields(data):
        if number == 3 and value:  # unknown_rank
            return None
        if number == 2 and isinstance(value, memoryview):
            budget.name()
            size = next((inner for at, inner in _fields(value) if at == 1 and isinstance(inner, int)), 0)
            sizes.append(size - (1 << 64) if size >> 63 else size)
    return tuple(sizes)


def _entry(data: memoryview) -> tuple[str, memoryview]:
    """The key and the value of a map entry, which have the field numbers 1 and 2."""
    key, content = "", memoryview(b"")
    for number, value in _fields(data):
        if number == 1 and isinstance(value, memoryview):
            key = _text(value)
        elif number == 2 and isinstance(value, memoryview):
            content = value
    return key, content


def _text(data: memoryview) -> str:
    return bytes(data).decode()


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    return (value for number, value in _fields(data) if number == wanted and isinstance(value, memoryview))


def _fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """The number and the value of each field of a message. The value of a fixed-size field is read as 0."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, encoding = tag >> 3, tag & 7
        if number == 0:
            raise ModelError("saved_model.pb is damaged: a field with number 0", hint="export the model again")
        value: Value = 0
        if encoding == _VARINT:
            value, at = _varint(data, at)
        elif encoding == _BYTES:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        elif encoding in {_FIXED64, _FIXED32}:
            at += 8 if encoding == _FIXED64 else 4
        else:
            raise ModelError(f"saved_model.pb is damaged: wire type {encoding}", hint="export the model again")
        if at > end:
            raise ModelError("saved_model.pb is truncated", hint="export the model again")
        yield number, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ModelError("saved_model.pb is truncated", hint="export the model again")
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, at
    raise ModelError("saved_model.pb is damaged: a number of more than 10 bytes", hint="export the model again")
