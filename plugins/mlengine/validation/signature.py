"""What a model says of itself, held to what is expected: signature, devices, ops. Nothing of the model runs here.

These checks come before the model is loaded, so that one which would write files, call Python, or look for a cluster
never gets the chance.
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

# Ops that reach outside the graph: Python, files, sockets, other programs. Patterns as the shell has them.
# Save and restore are not here: every SavedModel carries the functions that load its own variables.
DENIED_OPS = (
    "PyFunc*", "EagerPyFunc", "ReadFile", "WriteFile", "MatchingFiles", "*FileReader*", "*ReaderV2", "*LineDataset*",
    "TFRecordDataset*", "FixedLengthRecordDataset*", "CSVDataset*", "SqlDataset", "SaveDataset*", "LoadDataset*",
    "Snapshot*", "CacheDataset*", "DataService*", "GeneratorDataset*", "PrintV2", "Debug*", "*SummaryWriter*",
    "WriteSummary", "*Bigtable*", "BigQuery*", "FileSystemSetConfiguration", "RemoteCall", "*Send", "*Recv", "Rpc*",
    "TryRpc*", "LoadLibrary*", "XlaLaunch*", "XlaHostCompute*", "TPU*", "Outfeed*", "Infeed*", "LmdbDataset*",
)  # fmt: skip
# TensorFlow's names of devices: `/job:ps/replica:0/task:1/device:CPU:0`, each part optional; `/cpu:0` in old graphs.
_DEVICE = re.compile(
    r"^(/job:(?P<job>[^/]+))?(/replica:(?P<replica>\d+|\*))?(/task:(?P<task>\d+|\*))?"
    r"(/(device:)?(?P<type>[A-Za-z_]+)(:(\d+|\*))?)?$"
)
_LOCAL_TYPES = frozenset({None, "cpu", "gpu"})
_INTEGERS = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"})


@dataclass(frozen=True)
class Expectation:
    """How the model must be called, and which of its tensors mean what.

    :param name: the signature's name.
    :param key: an integer input that comes back as an output of the same name; ``None`` if the model has none.
    :param features: the input that takes the held-out rows.
    :param scores: the output with one number for each class.
    :param probabilities: whether each row of scores must sum to 1.
    :param scale: what each value of a held-out row is divided by before it is fed. ``None``: 255 for bytes that go
        into an input of floats, and 1 otherwise.
    :param denied_ops: patterns of ops that must not occur; ``allowed_ops`` takes exceptions from it.
    :param allowed_devices: patterns of devices that nodes may ask for beside the CPUs and GPUs of the machine itself.
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
        """Fields that are left out keep their default.

        :raises ModelError: a field is unknown, a tensor is not readable, or a name is in no signature.
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
            made = cls(**fields)
        except TypeError as error:
            raise ModelError(f"not a serving signature: {error}", hint="see docs/gate.md for the fields") from error
        made.validate()
        return made

    def validate(self) -> None:
        """:raises ModelError: ``key``, ``features`` or ``scores`` names nothing in the signature; or a wrong scale."""
        wanted = [("features", self.features, self.signature.inputs), ("scores", self.scores, self.signature.outputs)]
        if self.key is not None:
            wanted += [("key", self.key, self.signature.inputs), ("key", self.key, self.signature.outputs)]
        for role, name, side in wanted:
            if name not in side:
                raise ModelError(
                    f"the serving signature's {role} {name!r} is none of {', '.join(sorted(side))}",
                    hint=f"set {role} to one of them" + (", or key to None" if role == "key" else ""),
                )
        self._validate_scale()

    def _validate_scale(self) -> None:
        if self.scale is None:
            return
        if isinstance(self.scale, bool) or not isinstance(self.scale, (int, float)) or not 0 < self.scale < math.inf:
            raise ModelError(
                f"the serving signature's scale is {self.scale!r}", hint="write a number greater than 0, such as 255"
            )
        features = self.signature.inputs[self.features]
        if self.scale != 1 and features.dtype in _INTEGERS:
            raise ModelError(
                f"the serving signature divides by scale {self.scale:g}, but input {self.features!r} takes"
                f" {features.dtype}: the fractions would be cut off",
                hint="leave scale out; the model then gets the values as they are",
            )


def _number(text: str) -> float | None:
    if text.strip() in {"", "None"}:
        return None
    try:
        return float(text)
    except ValueError:
        return math.nan  # refused by validate(), which names the field


def _take(fields: dict[str, Any]) -> dict[str, Any]:
    return {side: fields.pop(side) for side in ("inputs", "outputs") if side in fields}


def serving_signature(model: Path, name: str) -> Signature:
    """How the model says that it is called.

    :raises ModelError: ``saved_model.pb`` cannot be read, or has no signature ``name`` in a graph for serving.
    """
    try:
        graphs = read((model / GRAPH).read_bytes())
    except OSError as error:
        raise ModelError(f"{model / GRAPH} cannot be read: {error.strerror or error}") from error
    for graph in graphs:
        if "serve" in graph.tags and name in graph.signatures:
            return graph.signatures[name]
    raise ModelError(f"the model has no signature {name!r}", hint="export it with that signature, or set name")


def check_wire(model: Path, expected: Expectation) -> list[Check]:
    """The checks on ``model/saved_model.pb``. A damaged file is a failed check, not an error."""
    bound = f"{expected.name}: {expected.signature}"
    try:
        graphs = read((model / GRAPH).read_bytes())
    except ModelError as error:
        return [Check("signature", "unreadable", bound, passed=False, sentence=f"{error.message}.")]
    serving = [graph for graph in graphs if "serve" in graph.tags]
    if not serving:
        tags = ", ".join(sorted(tag for graph in graphs for tag in graph.tags)) or "none"
        text = f"No graph has the tag 'serve'; the tags are: {tags}."
        return [Check("signature", "missing", bound, passed=False, sentence=text)]
    return [
        check_signature(serving[0], expected),
        check_devices(graphs, expected.allowed_devices),
        check_ops(graphs, expected),
    ]


def check_signature(graph: Graph, expected: Expectation) -> Check:
    """Names, dtypes and shapes, exactly."""
    bound = f"{expected.name}: {expected.signature}"
    found = graph.signatures.get(expected.name)
    if found is None:
        names = ", ".join(sorted(name for name in graph.signatures if not name.startswith("__"))) or "none"
        text = f"The model has no signature {expected.name!r}; it has: {names}."
        return Check("signature", "missing", bound, passed=False, sentence=text)
    faults = [
        fault
        for side, want, have in (
            ("input", expected.signature.inputs, found.inputs),
            ("output", expected.signature.outputs, found.outputs),
        )
        for fault in _differences(side, want, have)
    ]
    if faults:
        text = f"Signature {expected.name!r} is not as expected: {'; '.join(faults)}."
        return Check("signature", str(found), bound, passed=False, sentence=text)
    return Check("signature", str(found), bound, passed=True, sentence=f"Signature {expected.name!r} is as expected.")


def _differences(side: str, want: Mapping[str, Tensor], have: Mapping[str, Tensor]) -> list[str]:
    faults = [f"{side} {name!r} is missing" for name in sorted(want.keys() - have.keys())]
    faults += [f"{side} {name!r} is not expected" for name in sorted(have.keys() - want.keys())]
    for name in sorted(want.keys() & have.keys()):
        if want[name].dtype != have[name].dtype:
            faults.append(f"{side} {name!r} is {have[name]}, not {want[name]}")
        elif want[name].shape is not None and want[name].shape != have[name].shape:
            faults.append(f"{side} {name!r} has shape {have[name]}, not {want[name]}")
    return faults


def check_devices(graphs: list[Graph], allowed: tuple[str, ...]) -> Check:
    """No node may ask for a machine of the training cluster, or for a device that a serving machine may not have.

    ``/job:localhost`` is the machine itself: TensorFlow writes it into the tables of adapted Keras layers. A local GPU
    is no obstacle either: TensorFlow runs the node on the CPU where there is none.
    """
    bound = "local CPU or GPU"
    devices = sorted({device for graph in graphs for device in graph.devices})
    wrong = [device for device in devices if not _is_local(device) and not _matches(device, allowed)]
    remote = [device for device in wrong if not _is_local_machine(device)]
    if remote:
        text = f"The graph is still tied to {_some(remote)}: it would not run outside the training cluster."
        return Check("devices", _some(remote), bound, passed=False, sentence=text)
    if wrong:
        text = f"The graph asks for {_some(wrong)}, which is neither a CPU nor a GPU; allowed_devices makes exceptions."
        return Check("devices", _some(wrong), bound, passed=False, sentence=text)
    shown = ", ".join(device for device in devices if device) or "none"
    return Check("devices", shown, bound, passed=True, sentence="No device of the training cluster is left.")


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
    """No node may reach outside the graph."""
    ops = sorted({op for graph in graphs for op in graph.ops})
    wrong = [op for op in ops if _matches(op, expected.denied_ops) and not _matches(op, expected.allowed_ops)]
    bound = "none that reach outside"
    if wrong:
        text = f"The graph has ops that reach outside it: {_some(wrong)}. It is not run."
        return Check("ops", _some(wrong), bound, passed=False, sentence=text)
    nodes = sum(sum(graph.ops.values()) for graph in graphs)
    text = f"None of the {nodes} nodes reaches outside the graph."
    return Check("ops", f"{len(ops)} kinds", bound, passed=True, sentence=text)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
