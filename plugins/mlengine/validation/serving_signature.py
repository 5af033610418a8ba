"""The serving signature: the information about calling a model that its files do not contain.

Every field has a default for a model with one output, whose inputs have the names of the dataset's columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from mlengine.core.errors import ModelError
from mlengine.validation.outputs import Activation
from mlengine.validation.saved_model import Tensor

# Ops with effects outside the graph: Python, files, sockets, other programs. Shell patterns.
# Save and restore ops are not listed: every SavedModel has functions that load its variables.
DENIED_OPS = (
    "PyFunc*", "EagerPyFunc", "ReadFile", "WriteFile", "MatchingFiles", "*FileReader*", "*ReaderV2", "*LineDataset*",
    "TFRecordDataset*", "FixedLengthRecordDataset*", "CSVDataset*", "SqlDataset", "SaveDataset*", "LoadDataset*",
    "Snapshot*", "CacheDataset*", "DataService*", "GeneratorDataset*", "PrintV2", "Debug*", "*SummaryWriter*",
    "WriteSummary", "*Bigtable*", "BigQuery*", "FileSystemSetConfiguration", "RemoteCall", "*Send", "*Recv", "Rpc*",
    "TryRpc*", "LoadLibrary*", "XlaLaunch*", "XlaHostCompute*", "TPU*", "Outfeed*", "Infeed*", "LmdbDataset*",
)  # fmt: skip
_INTEGERS = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"})
_PATTERNS = ("denied_ops", "allowed_ops", "allowed_devices")


@dataclass(frozen=True)
class ServingSignature:
    """The inputs and outputs with which a model is called.

    :param name: for a SavedModel, the name of its SignatureDef.
    :param inputs: for a SavedModel, all inputs with dtypes and shapes; the model must have exactly these. ``None``
        accepts any.
    :param outputs: for a SavedModel, all outputs, in the same form.
    :param columns: by input, the dataset's column, if its name differs from the input's; or a list of columns, which
        the input takes as a matrix in this order.
    :param features: the input that takes all columns together: the only column, or all numeric columns as a matrix.
        By default the only input, if there is no column of its name.
    :param key: an integer input that is returned as an output of the same name; ``None`` if the model has none.
    :param output: the output with the predictions. By default the only one, or the only one of floats.
    :param activation: the function that is applied to the outputs (:class:`~mlengine.validation.outputs.Activation`).
    :param scale: the divisor of the values of numeric columns. With ``None``, it is 255 if a column has tensors of
        bytes and the input takes floats, otherwise 1.
    :param denied_ops: for a SavedModel, patterns of ops that must not occur.
    :param allowed_ops: patterns of ops that are allowed although ``denied_ops`` matches them.
    :param allowed_devices: patterns of allowed devices, in addition to local CPUs and GPUs.
    """

    name: str = "serving_default"
    inputs: Mapping[str, Tensor] | None = None
    outputs: Mapping[str, Tensor] | None = None
    columns: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    features: str | None = None
    key: str | None = None
    output: str | None = None
    activation: Activation = Activation.NONE
    scale: float | None = None
    denied_ops: tuple[str, ...] = DENIED_OPS
    allowed_ops: tuple[str, ...] = ()
    allowed_devices: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        tensors = {
            side: None if tensors is None else {name: str(tensor) for name, tensor in sorted(tensors.items())}
            for side, tensors in (("inputs", self.inputs), ("outputs", self.outputs))
        }
        plain = {name: getattr(self, name) for name in ("name", "features", "key", "output", "scale")}
        patterns = {name: list(getattr(self, name)) for name in _PATTERNS}
        columns = {name: one if isinstance(one, str) else list(one) for name, one in self.columns.items()}
        return {**plain, **tensors, "columns": columns, "activation": self.activation.value, **patterns}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Self:
        """Read a serving signature. Missing fields have their defaults.

        :raises ModelError: a field is unknown, a tensor is invalid, or a tensor's name is not in the signature.
        """
        given = {name: value for name, value in (data or {}).items() if value is not None}
        known = {item.name for item in fields(cls)}
        if unknown := sorted(given.keys() - known):
            raise ModelError(
                f"unknown field of a serving signature: {', '.join(unknown)}",
                hint=f"the fields are {', '.join(sorted(known))}",
            )
        for side in ("inputs", "outputs"):
            if given.get(side) is not None:
                given[side] = _tensors(side, given[side])
        if "columns" in given:
            given["columns"] = _columns(given["columns"])
        given |= {name: _patterns(name, given[name]) for name in _PATTERNS if name in given}
        if "activation" in given:
            given["activation"] = _activation(given["activation"])
        if isinstance(given.get("scale"), str):  # templates are rendered to strings
            given["scale"] = _number(given["scale"])
        signature = cls(**given)
        signature.validate()
        return signature

    @classmethod
    def from_report(cls, data: Mapping[str, Any]) -> Self:
        """Read the serving signature in a report. Reports of version 0.1 have ``scores`` and ``probabilities``."""
        data = dict(data)
        if "scores" in data:
            data["output"] = data.pop("scores")
        if not data.pop("probabilities", True):
            data["activation"] = Activation.SCORES.value
        return cls.from_json(data)

    def validate(self) -> None:
        """Check that the fields are consistent.

        :raises ModelError: a field names a tensor that is not in ``inputs`` or ``outputs``, or the scale is invalid.
        """
        named = [("features", self.features, self.inputs), ("output", self.output, self.outputs)]
        named += [("key", self.key, self.inputs), ("key", self.key, self.outputs)]
        named += [("columns", name, self.inputs) for name in self.columns]
        for role, name, side in named:
            if name is not None and side is not None and name not in side:
                raise ModelError(
                    f"{role}={name!r} is not in the serving signature, which has {', '.join(sorted(side))}",
                    hint=f"set {role} to one of them, or omit it",
                )
        self._validate_scale()

    def _validate_scale(self) -> None:
        if self.scale is None:
            return
        if isinstance(self.scale, bool) or not isinstance(self.scale, (int, float)) or not 0 < self.scale < math.inf:
            raise ModelError(
                f"the serving signature has scale={self.scale!r}", hint="write a number greater than 0, such as 255"
            )
        integers = [name for name, tensor in (self.inputs or {}).items() if tensor.dtype in _INTEGERS]
        if self.scale != 1 and integers and set(integers) - {self.key} == set(self.inputs or {}) - {self.key}:
            raise ModelError(
                f"the serving signature has scale={self.scale:g}, but its inputs ({', '.join(integers)}) take integers:"
                " division would truncate the values",
                hint="omit scale; the model then gets the values unchanged",
            )


def _columns(data: Any) -> dict[str, str | tuple[str, ...]]:
    """The field ``columns``.

    :raises ModelError: a value is neither the name of a column nor a list of names.
    """
    if isinstance(data, Mapping):
        columns = {str(name): one if isinstance(one, str) else _names(one) for name, one in data.items()}
        if all(columns.values()):
            return columns
    raise ModelError(
        f"columns of the serving signature is {data!r}",
        hint='write the column of each input, or a list: {"text": "comment", "numbers": ["price", "weight"]}',
    )


def _names(value: Any) -> tuple[str, ...]:
    """A list of strings as a tuple; empty if ``value`` is no list of strings."""
    listed = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
    return tuple(value) if listed else ()


def _patterns(field: str, value: Any) -> tuple[str, ...]:
    """A field with a list of patterns.

    :raises ModelError: the value is not a list. In a string, each letter would be a pattern.
    """
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise ModelError(
            f"{field} of the serving signature is {value!r}", hint=f'write a list: "{field}": ["ReadFile"]'
        )
    return tuple(str(one) for one in value)


def _tensors(side: str, data: Any) -> dict[str, Tensor]:
    if not isinstance(data, Mapping):
        raise ModelError(f"{side} of a serving signature is {data!r}", hint='write {"name": "float32[-1,784]"}')
    return {str(name): Tensor.parse(str(text)) for name, text in data.items()}


def _activation(value: Any) -> Activation:
    try:
        return Activation(value)
    except ValueError:
        names = ", ".join(item.value for item in Activation)
        raise ModelError(f"unknown activation {value!r} in a serving signature", hint=f"write {names}") from None


def _number(text: str) -> float | None:
    if text.strip() in {"", "None"}:
        return None
    try:
        return float(text)
    except ValueError:
        return math.nan  # rejected by validate(), whose message has the field's name
