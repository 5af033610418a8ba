"""Checks of ``saved_model.pb`` without running the model: signature, devices and ops.

The checks run before the model is loaded, so a model that would write files, call Python or connect to a cluster is
never executed.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from pathlib import Path

from mlengine.core.errors import ModelError
from mlengine.core.verdict import Check
from mlengine.validation.model_kind import GRAPH
from mlengine.validation.saved_model import Graph, Signature, Tensor, read
from mlengine.validation.serving_signature import ServingSignature

# TensorFlow's device names: `/job:ps/replica:0/task:1/device:CPU:0`, each part optional; `/cpu:0` in old graphs.
_DEVICE = re.compile(
    r"^(/job:(?P<job>[^/]+))?(/replica:(?P<replica>\d+|\*))?(/task:(?P<task>\d+|\*))?"
    r"(/(device:)?(?P<type>[A-Za-z_]+)(:(\d+|\*))?)?$"
)
_LOCAL_TYPES = frozenset({None, "cpu", "gpu"})


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


def check_saved_model(model: Path, expected: ServingSignature) -> list[Check]:
    """Check ``saved_model.pb``. A damaged file is a failed check, not an error."""
    threshold = _describe(expected)
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


def check_signature(graph: Graph, expected: ServingSignature) -> Check:
    """Check that the names, dtypes and shapes that the serving signature lists are exactly those of the model."""
    threshold = _describe(expected)
    found = graph.signatures.get(expected.name)
    if found is None:
        names = ", ".join(sorted(name for name in graph.signatures if not name.startswith("__"))) or "none"
        text = f"The model has no signature {expected.name!r}; it has: {names}."
        return Check("signature", "missing", threshold, passed=False, message=text)
    differences = [
        difference
        for side, want, have in (
            ("input", expected.inputs, found.inputs),
            ("output", expected.outputs, found.outputs),
        )
        if want is not None
        for difference in _differences(side, want, have)
    ]
    if differences:
        text = f"Signature {expected.name!r} differs from the expected one: {'; '.join(differences)}."
        return Check("signature", str(found), threshold, passed=False, message=text)
    message = f"Signature {expected.name!r} is as expected."
    if expected.inputs is None and expected.outputs is None:
        message = f"The model has signature {expected.name!r}; no inputs and outputs were specified."
    return Check("signature", str(found), threshold, passed=True, message=message)


def _describe(expected: ServingSignature) -> str:
    if expected.inputs is None and expected.outputs is None:
        return expected.name
    return f"{expected.name}: {Signature(expected.inputs or {}, expected.outputs or {})}"


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


def check_ops(graphs: list[Graph], expected: ServingSignature) -> Check:
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
