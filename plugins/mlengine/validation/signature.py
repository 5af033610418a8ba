"""Checks of ``saved_model.pb`` without running the model: signature, devices and ops.

They run before the model is loaded, so a model that would write files, call Python or connect to a cluster is never
executed.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from mlengine.core.errors import ModelError
from mlengine.core.verdict import Check
from mlengine.validation.export import GRAPH
from mlengine.validation.saved_model import Graph, Signature, Tensor, read

# Ops with effects outside the graph: Python, files, sockets, other programs. Shell patterns.
# Save and restore are not listed: every SavedModel has functions that load its own variables.
DENIED_OPS = (
    "PyFunc*", "EagerPyFunc", "ReadFile", "WriteFile", "MatchingFiles", "*FileReader*", "*ReaderV2", "*LineDataset*",
    "TFRecordDataset*", "FixedLengthRecordDataset*", "CSVDataset*", "SqlDataset", "SaveDataset*", "LoadDataset*",
    "Snapshot*", "CacheDataset*", "DataService*", "GeneratorDataset*", "PrintV2", "Debug*", "*SummaryWriter*",
    "WriteSummary", "*Bigtable*", "BigQuery*", "FileSystemSetConfiguration", "RemoteCall", "*Send", "*Recv", "Rpc*",
    "TryRpc*", "LoadLibrary*", "XlaLaunch*", "XlaHostCompute*", "TPU*", "Outfeed*", "Infeed*", "LmdbDataset*",
)  # fmt: skip
# TensorFlow's device names: `/job:ps/replica:0/task:1/device:CPU:0`, each part optional; `/cpu:0` in old graphs.
_DEVICE = re.compile(
    r"^(/job:(?P<job>[^/]+))?(/replica:(?P<replica>\d+|\*))?(/task:(?P<task>\d+|\*))?"
    r"(/(device:)?(?P<type>[A-Za-z_]+)(:(\d+|\*))?)?$"
)
_LOCAL_TYPES = frozenset({None, "cpu", "gpu"})
_INTEGERS = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"})


@dataclass(frozen=True)
class Expectation:
    """The expected serving signature, and the role of each tensor.

    :param name: the signature's name.
    :param signature: inputs and outputs, with dtypes and shapes.
    :param key: an integer input that is returned as an output of the same name; ``None`` if the model has none.
    :param features: the input for the held-out rows.
    :param scores: the output with one score per class.
    :param probabilities: whether each row of scores must sum to 1.
    :param scale: divisor of the values of a held-out row. ``None``: 255 if the rows are bytes and the input takes
        floats, otherwise 1.
    :param denied_ops: patterns of ops that must not occur.
    :param allowed_ops: patterns of ops that are allowed although ``denied_ops`` matches them.
    :param allowed_devices: patterns of allowed devices, in addition to local CPUs and GPUs.
    """

    name: str = "serving_default"
    signature: Signature = field(
        default_factory=lambda: Signature(
            {"key": Tensor("int64", (-1,)), "image": Tensor("float32", (-1, 784))},
            {"key": Tensor("int64", (-1,)), "scores": Tensor("float32", (-1, 10))},
        )
    )
    key: str | None = "key"
    features: str = "image"
    scores: str = "scores"
    probabilities: bool = True
    scale: float | None = None
    denied_ops: tuple[str, ...] = DENIED_OPS
    allowed_ops: tuple[str, ...] = ()
    allowed_devices: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            **self.signature.to_json(),
            "key": self.key,
            "features": self.features,
            "scores": self.scores,
            "probabilities": self.probabilities,
            "scale": self.scale,
            "denied_ops": list(self.denied_ops),
            "allowed_ops": list(self.allowed_ops),
            "allowed_devices": list(self.allowed_devices),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Self:
        """Read a serving signature. Missing fields have their defaults.

        :raises ModelError: a field is unknown, a tensor is invalid, or a tensor's name is not in the signature.
        """
        fields = dict(data or {})
        default = cls()
        if "inputs" in fields or "outputs" in fields:
            fields["signature"] = Signature.from_json({**default.signature.to_json(), **_take(fields)})
        for name in ("denied_ops", "allowed_ops", "allowed_devices"):
            if name in fields:
                fields[name] = tuple(fields[name])
        if isinstance(fields.get("scale"), str):  # a template gives strings
            fields["scale"] = _number(fields["scale"])
        try:
            expectation = cls(**fields)
        except TypeError as error:
            raise ModelError(
                f"invalid serving signature: {error}", hint="see docs/validation.md for the fields"
            ) from error
        expectation.validate()
        return expectation

    def validate(self) -> None:
        """Check that the fields are consistent.

        :raises ModelError: ``key``, ``features`` or ``scores`` is not in the signature, or the scale is invalid.
        """
        wanted = [("features", self.features, self.signature.inputs), ("scores", self.scores, self.signature.outputs)]
        if self.key is not None:
            wanted += [("key", self.key, self.signature.inputs), ("key", self.key, self.signature.outputs)]
        for role, name, side in wanted:
            if name not in side:
                raise ModelError(
                    f"{role}={name!r} is not in the serving signature, which has {', '.join(sorted(side))}",
                    hint=f"set {role} to one of them" + (", or key to None" if role == "key" else ""),
                )
        self._validate_scale()

    def _validate_scale(self) -> None:
        if self.scale is None:
            return
        if isinstance(self.scale, bool) or not isinstance(self.scale, (int, float)) or not 0 < self.scale < math.inf:
            raise ModelError(
                f"the serving signature has scale={self.scale!r}", hint="write a number greater than 0, such as 255"
            )
        features = self.signature.inputs[self.features]
        if self.scale != 1 and features.dtype in _INTEGERS:
            raise ModelError(
                f"the serving signature has scale={self.scale:g}, but input {self.features!r} takes {features.dtype}:"
                " division would truncate the values",
                hint="omit scale; the model then gets the values unchanged",
            )


def _number(text: str) -> float | None:
    if text.strip() in {"", "None"}:
        return None
    try:
        return float(text)
    except ValueError:
        return math.nan  # rejected by validate(), whose message has the field's name


def _take(fields: dict[str, Any]) -> dict[str, Any]:
    return {side: fields.pop(side) for side in ("inputs", "outputs") if side in fields}


def read_signature(model: Path, name: str) -> Signature:
    """Read the signature ``name`` from the model's serving graph.

    :raises ModelError: ``saved_model.pb`` cannot be read, or its serving graph has no such signature.
    """
    try:
        graphs = read((model / GRAPH).read_bytes())
    except OSError as error:
        raise ModelError(f"{model / GRAPH} cannot be read: {error.strerror or error}") from error
    for graph in graphs:
        if "serve" in graph.tags and name in graph.signatures:
            return graph.signatures[name]
    raise ModelError(
        f"the model has no signature {name!r}",
        hint="export that signature, or set name in serving_signature",
    )


def check_saved_model(model: Path, expected: Expectation) -> list[Check]:
    """Check ``saved_model.pb``. A damaged file is a failed check, not an error."""
    threshold = f"{expected.name}: {expected.signature}"
    try:
        graphs = read((model / GRAPH).read_bytes())
    except ModelError as error:
        return [Check("signature", "unreadable", threshold, passed=False, message=f"{error.message}.")]
    serving = [graph for graph in graphs if "serve" in graph.tags]
    if not serving:
        tags = ", ".join(sorted(tag for graph in graphs for tag in graph.tags)) or "none"
        text = f"No graph has the tag 'serve'; the tags are: {tags}."
        return [Check("signature", "missing", threshold, passed=False, message=text)]
    return [
        check_signature(serving[0], expected),
        check_devices(graphs, expected.allowed_devices),
        check_ops(graphs, expected),
    ]


def check_signature(graph: Graph, expected: Expectation) -> Check:
    """Check that names, dtypes and shapes are exactly as expected."""
    threshold = f"{expected.name}: {expected.signature}"
    found = graph.signatures.get(expected.name)
    if found is None:
        names = ", ".join(sorted(name for name in graph.signatures if not name.startswith("__"))) or "none"
        text = f"The model has no signature {expected.name!r}; it has: {names}."
        return Check("signature", "missing", threshold, passed=False, message=text)
    differences = [
        difference
        for side, want, have in (
            ("input", expected.signature.inputs, found.inputs),
            ("output", expected.signature.outputs, found.outputs),
        )
        for difference in _differences(side, want, have)
    ]
    if differences:
        text = f"Signature {expected.name!r} differs from the expected one: {'; '.join(differences)}."
        return Check("signature", str(found), threshold, passed=False, message=text)
    return Check(
        "signature", str(found), threshold, passed=True, message=f"Signature {expected.name!r} is as expected."
    )


def _differences(side: str, want: Mapping[str, Tensor], have: Mapping[str, Tensor]) -> list[str]:
    differences = [f"{side} {name!r} is missing" for name in sorted(want.keys() - have.keys())]
    differences += [f"{side} {name!r} is unexpected" for name in sorted(have.keys() - want.keys())]
    for name in sorted(want.keys() & have.keys()):
        if want[name].dtype != have[name].dtype:
            differences.append(f"{side} {name!r} is {have[name]} instead of {want[name]}")
        elif want[name].shape is not None and want[name].shape != have[name].shape:
            differences.append(f"{side} {name!r} has shape {have[name]} instead of {want[name]}")
    return differences


def check_devices(graphs: list[Graph], allowed: tuple[str, ...]) -> Check:
    """Check that no node is placed on a machine of the training cluster, or on a device other than a CPU or GPU.

    ``/job:localhost`` is the local machine: TensorFlow writes it into the tables of adapted Keras layers. A node that
    is placed on a GPU runs on the CPU if the machine has no GPU.
    """
    threshold = "local CPU or GPU"
    devices = sorted({device for graph in graphs for device in graph.devices})
    wrong = [device for device in devices if not _is_local(device) and not _matches(device, allowed)]
    remote = [device for device in wrong if not _is_local_machine(device)]
    if remote:
        text = f"The graph has nodes on {_some(remote)}, so it does not run outside the training cluster."
        return Check("devices", _some(remote), threshold, passed=False, message=text)
    if wrong:
        text = f"The graph has nodes on {_some(wrong)}, which is neither a CPU nor a GPU; see allowed_devices."
        return Check("devices", _some(wrong), threshold, passed=False, message=text)
    shown = ", ".join(device for device in devices if device) or "none"
    return Check("devices", shown, threshold, passed=True, message="No node is placed on the training cluster.")


def _is_local(device: str) -> bool:
    match = _DEVICE.match(device)
    kind = match["type"] if match else ""
    return _is_local_machine(device) and (kind.lower() if kind else kind) in _LOCAL_TYPES


def _is_local_machine(device: str) -> bool:
    match = _DEVICE.match(device)
    if match is None:
        return False
    here = {None, "0", "*"}
    return match["job"] in {None, "localhost"} and match["replica"] in here and match["task"] in here


def check_ops(graphs: list[Graph], expected: Expectation) -> Check:
    """Check that no op has effects outside the graph."""
    ops = sorted({op for graph in graphs for op in graph.ops})
    wrong = [op for op in ops if _matches(op, expected.denied_ops) and not _matches(op, expected.allowed_ops)]
    threshold = "no denied op"
    if wrong:
        text = f"The graph has denied ops: {_some(wrong)}. The model is not run."
        return Check("ops", _some(wrong), threshold, passed=False, message=text)
    nodes = sum(sum(graph.ops.values()) for graph in graphs)
    text = f"None of the {nodes} nodes has a denied op."
    return Check("ops", f"{len(ops)} kinds", threshold, passed=True, message=text)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
