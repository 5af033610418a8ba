"""A model on this machine that the scoring process can run, with its kind and its signature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from mlengine.core.errors import ModelError
from mlengine.validation.model_kind import SCORER, find_kind, no_kind
from mlengine.validation.saved_model import Signature
from mlengine.validation.serving_signature import ServingSignature
from mlengine.validation.signature import read_signature


@dataclass(frozen=True)
class ScoredModel:
    """A local model.

    :param kind: one of :data:`mlengine.validation.scoring.predictors.FRAMEWORKS`, or ``scorer``.
    :param path: a folder for a SavedModel and a scorer, else a file.
    :param expected: the configured serving signature.
    :param signature: for a SavedModel, the model's signature with the expected name.
    :param scorer: the trainer's ``package.module:function``.
    :param classes: the dataset's classes, in order.
    """

    kind: str
    path: Path
    expected: ServingSignature = field(default_factory=ServingSignature)
    signature: Signature | None = None
    scorer: str = ""
    classes: tuple[Any, ...] = ()

    @classmethod
    def read(cls, folder: Path, expected: ServingSignature, *, scorer: str = "", classes: Sequence[Any] = ()) -> Self:
        """Determine the model in ``folder``.

        :raises ModelError: the folder has no model of a known kind and there is no scorer, or it has a SavedModel whose
            signature lacks an expected tensor.
        """
        if scorer:
            return cls(SCORER, folder, expected, scorer=scorer, classes=tuple(classes))
        found = find_kind(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        if found is None:
            raise no_kind(str(folder), [path.name for path in folder.iterdir()])
        signature = None
        if found.kind == "savedmodel":
            signature = read_signature(folder / found.path, expected.name)
            _check_names(signature, expected)
        return cls(found.kind, folder / found.path, expected, signature, classes=tuple(classes))

    def to_json(self) -> dict[str, Any]:
        """The model's part of the configuration that the scoring process reads."""
        expected = self.expected
        options: dict[str, Any] = {
            "kind": self.kind,
            "path": str(self.path),
            "columns": expected.to_json()["columns"],
            "features": expected.features,
            "output": expected.output,
            "scale": expected.scale,
            "classes": [one if isinstance(one, (bool, int, float, str)) else str(one) for one in self.classes],
        }
        if self.kind == SCORER:
            return {**options, "scorer": self.scorer}
        if self.signature is not None:
            inputs = {name: [tensor.dtype, tensor.shape] for name, tensor in self.signature.inputs.items()}
            outputs = [name for name in self.signature.outputs if name != expected.key]
            options |= {"signature": expected.name, "key": expected.key, "inputs": inputs, "outputs": outputs}
        return options


def _check_names(signature: Signature, expected: ServingSignature) -> None:
    inputs = {name for name in (expected.features, expected.key, *expected.columns) if name is not None}
    outputs = {name for name in (expected.output, expected.key) if name is not None}
    missing = sorted((inputs - signature.inputs.keys()) | (outputs - signature.outputs.keys()))
    if missing:
        raise ModelError(
            f"signature {expected.name!r} has no {', '.join(missing)}; it is {signature}",
            hint="correct serving_signature, or export the model with these names",
        )
