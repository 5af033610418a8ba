"""Stores the records of training pipelines. Each is one JSON file, which is replaced atomically."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlengine.core.errors import EmulatorError
from mlengine.emulator.projects import location_name
from mlengine.emulator.records import VERTEX, Key
from mlengine.runtime.json_files import write_json

Id = tuple[str, str, str]


@dataclass(frozen=True)
class Pipeline:
    """The record of a training pipeline.

    Its state is that of its job, until the job has succeeded and there is a model to upload.

    :param body: the resource as the client sent it, without output-only fields.
    :param job: the id of the custom job.
    :param model: the uploaded version of the model.
    :param error: why the model was not uploaded, as ``google.rpc.Status`` with code and message.
    :param ended: when the upload of the model succeeded or failed, in seconds since the epoch, like all times.
    :param deleted: whether the pipeline is hidden. Its id cannot be used again.
    """

    project: str
    region: str
    id: str
    body: Mapping[str, Any]
    job: str
    created: float
    updated: float
    model: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    ended: float | None = None
    deleted: bool = False

    @property
    def key(self) -> Id:
        """The identity of the pipeline: project, region and id."""
        return self.project, self.region, self.id

    @property
    def name(self) -> str:
        """The resource name."""
        return f"{location_name(self.project, self.region)}/trainingPipelines/{self.id}"

    @property
    def job_key(self) -> Key:
        """The identity of the pipeline's custom job."""
        return VERTEX, self.project, self.region, self.job

    @property
    def upload(self) -> Mapping[str, Any] | None:
        """The model to upload; ``None`` if there is none."""
        model: Mapping[str, Any] | None = self.body.get("modelToUpload")
        return model


@dataclass
class PipelineStore:
    """All pipelines, in memory and in ``folder``. A method returns a pipeline after writing it to disk. Thread-safe.

    :raises EmulatorError: a file is not the record of a pipeline.
    """

    folder: Path
    _pipelines: dict[Id, Pipeline] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self.folder.glob("*.json")):
            try:
                pipeline = Pipeline(**json.loads(path.read_text("utf-8")))
            except (OSError, ValueError, TypeError) as error:
                raise EmulatorError(
                    f"cannot read the record of a training pipeline {path}: {error!r}",
                    hint="check its permissions, and whether another version wrote it; or choose another --state-dir",
                ) from error
            self._pipelines[pipeline.key] = pipeline

    def get(self, key: Id) -> Pipeline | None:
        """The pipeline with this identity; ``None`` if there is none."""
        with self._lock:
            return self._pipelines.get(key)

    def all(self) -> list[Pipeline]:
        """All pipelines, including deleted ones."""
        with self._lock:
            return list(self._pipelines.values())

    def put(self, pipeline: Pipeline, **changes: Any) -> Pipeline:
        """Create or replace a record.

        :param changes: fields to change.
        """
        pipeline = replace(pipeline, **changes)
        with self._lock:
            write_json(self.folder / f"{'-'.join(pipeline.key)}.json", asdict(pipeline))
            self._pipelines[pipeline.key] = pipeline
        return pipeline
