"""Stores the records of models. Each is one JSON file, with the versions and the operations that uploaded them."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlengine.core.errors import EmulatorError
from mlengine.runtime.json_files import write_json

Version = dict[str, Any]


@dataclass
class Model:
    """The record of a model.

    :param name: the resource name, with the project number.
    :param versions: ``Model`` resources of the service, oldest first.
    :param operations: the responses to GetOperation, by the operation's resource name.
    """

    name: str
    versions: list[Version] = field(default_factory=list)
    operations: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        _, project, _, region, _, model = self.name.split("/")
        return f"{project}-{region}-{model}.json"

    def version(self, wanted: str) -> Version | None:
        """A version by its number or one of its aliases."""
        return next((one for one in self.versions if wanted in (one["versionId"], *one["versionAliases"])), None)

    def set_alias(self, version: Version, alias: str) -> None:
        """Move an alias to this version, or remove it if it is given as ``-ALIAS``."""
        for other in self.versions:
            other["versionAliases"] = [old for old in other["versionAliases"] if old != alias.removeprefix("-")]
        if not alias.startswith("-"):
            version["versionAliases"] = sorted({*version["versionAliases"], alias})


@dataclass
class ModelStore:
    """All models, in memory and in ``folder``. Thread-safe.

    :meth:`put` returns after a change has been written to disk.

    :raises EmulatorError: a file is not the record of a model.
    """

    folder: Path
    _models: dict[str, Model] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self.folder.glob("*.json")):
            try:
                model = Model(**json.loads(path.read_text("utf-8")))
            except (OSError, ValueError, TypeError) as error:
                raise EmulatorError(
                    f"cannot read the record of a model {path}: {error!r}",
                    hint="check its permissions, and whether another version wrote it; or choose another --state-dir",
                ) from error
            self._models[model.name] = model

    def get(self, name: str) -> Model | None:
        """A copy of a model; :meth:`put` stores its changes."""
        with self._lock:
            return deepcopy(self._models.get(name))

    def put(self, model: Model) -> None:
        """Create or replace a model."""
        with self._lock:
            write_json(self.folder / model.file_name, asdict(model))
            self._models[model.name] = deepcopy(model)

    def names(self) -> Sequence[str]:
        """The resource names of all models."""
        with self._lock:
            return list(self._models)

    def trained_by(self, pipeline: str) -> Version | None:
        """The version that a training pipeline has uploaded.

        :param pipeline: the pipeline's resource name.
        """
        with self._lock:
            versions = (version for model in self._models.values() for version in model.versions)
            return deepcopy(next((one for one in versions if one.get("trainingPipeline") == pipeline), None))
