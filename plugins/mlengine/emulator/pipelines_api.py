"""Vertex AI's PipelineService for custom training: ``trainingPipelines``.

Google's SDK and its Airflow operators create pipelines for ``CustomTrainingJob`` and the related classes. A pipeline
creates a custom job. If the client asked for it, the pipeline uploads the model after the job has succeeded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlengine.core.errors import EmulatorApiError, MlengineError
from mlengine.core.times import rfc3339
from mlengine.emulator import messages, pipeline_checks
from mlengine.emulator.engine import Engine
from mlengine.emulator.http import Request, list_response, status_of
from mlengine.emulator.job_api import JobApi, parent_of
from mlengine.emulator.models_api import ModelsApi
from mlengine.emulator.pipelines import Pipeline, PipelineStore
from mlengine.emulator.projects import location_name
from mlengine.emulator.records import VERTEX, Record
from mlengine.emulator.vertex_api import VertexApi, deletion, ended, job_name, new_id, render
from mlengine.storage.client import Storage

log = logging.getLogger(__name__)

# The filter fields that ListTrainingPipelines documents, in addition to labels.
_FILTERS = {
    "display_name": "displayName",
    "displayName": "displayName",
    "state": "state",
    "training_task_definition": "trainingTaskDefinition",
    "trainingTaskDefinition": "trainingTaskDefinition",
    "create_time": "createTime",
    "createTime": "createTime",
}
# google.rpc.Code
_INTERNAL = 13
_CODES = {"INVALID_ARGUMENT": 3, "NOT_FOUND": 5, "ALREADY_EXISTS": 6, "FAILED_PRECONDITION": 9}
_PREFIX = "PIPELINE_STATE_"
# The job states that a pipeline does not have, and their replacements.
_STATES = {"EXPIRED": "FAILED", "UPDATING": "RUNNING", "PARTIALLY_SUCCEEDED": "SUCCEEDED"}


class PipelinesApi(JobApi):
    """The methods of the API. Each raises :class:`EmulatorApiError` where the service responds with an error.

    :param engine: the jobs.
    :param storage: the storage client for the models' files.
    :param store: the pipelines.
    :param jobs: the API that creates the custom jobs.
    :param models: the API to which models are uploaded.
    """

    # "The standard list page size": the documentation does not state the number; nor does that of ListCustomJobs.
    name, filters, limit, default = VERTEX, _FILTERS, 1000, 100

    def __init__(
        self, engine: Engine, storage: Storage, *, store: PipelineStore, jobs: VertexApi, models: ModelsApi
    ) -> None:
        super().__init__(engine, storage, None)
        self._store, self._jobs, self._models = store, jobs, models
        self._lock = threading.RLock()

    def create(self, request: Request) -> dict[str, Any]:
        """Handle CreateTrainingPipeline."""
        request.only()
        project, region = parent_of(request)
        body = messages.read_training_pipeline(request.json())
        job = pipeline_checks.backing_job(body)
        record = self._jobs.start(request, job)
        now = time.time()
        pipeline = Pipeline(project, region, new_id(), body, record.id, created=now, updated=now)
        return _response(_render(self._store.put(pipeline), record), request)

    def get(self, request: Request) -> dict[str, Any]:
        """Handle GetTrainingPipeline."""
        request.only()
        ((pipeline, record),) = self._current([self._find(request)])
        return _response(_render(pipeline, record), request)

    def list(self, request: Request) -> dict[str, Any]:
        """Handle ListTrainingPipelines, which lists the newest pipelines first."""
        request.only("filter", "pageSize", "pageToken", "readMask")
        parent = parent_of(request)
        mask = messages.FieldMask(request.query.get("readMask", ""), messages.training_pipeline_type())
        pipelines = [found for found in self._store.all() if found.key[:2] == parent and not found.deleted]
        pipelines.sort(key=lambda found: (found.created, found.id), reverse=True)
        rendered = [_render(pipeline, record) for pipeline, record in self._current(pipelines)]
        selected, token = self._page(request, rendered)
        found = [_response(mask.apply(pipeline), request) for pipeline in selected]
        return list_response("trainingPipelines", found, token)

    def cancel(self, request: Request) -> dict[str, Any]:
        """Handle CancelTrainingPipeline, which cancels the job."""
        request.only()
        request.json()
        ((pipeline, record),) = self._current([self._find(request)])
        state = _state(pipeline, record)
        if _has_ended(state):
            raise ended("TrainingPipeline", pipeline.name, state)
        self._engine.cancel(record)
        return {}

    def delete(self, request: Request) -> dict[str, Any]:
        """Handle DeleteTrainingPipeline. The job is kept. The response is an operation that is done."""
        request.only()
        ((pipeline, record),) = self._current([self._find(request)])
        state = _state(pipeline, record)
        if not _has_ended(state):
            raise EmulatorApiError(
                f'The TrainingPipeline "{pipeline.name}" is in state {state} and cannot be deleted.',
                status="FAILED_PRECONDITION",
                hint="cancel it first",
            )
        return _deletion(self._store.put(pipeline, deleted=True, updated=time.time()))

    def operation(self, request: Request) -> dict[str, Any] | None:
        """Handle GetOperation for the deletion of a pipeline; ``None`` if there is no pipeline with this id."""
        request.only()
        pipeline = self._store.get((*parent_of(request), request.path["operation"]))
        return _deletion(pipeline) if pipeline is not None and pipeline.deleted else None

    def upload_models(self) -> None:
        """Upload the models of all pipelines whose jobs have succeeded."""
        self._current([found for found in self._store.all() if found.upload is not None and found.ended is None])

    def _find(self, request: Request) -> Pipeline:
        project, region = parent_of(request)
        pipeline = self._store.get((project, region, request.path["pipeline"]))
        if pipeline is None or pipeline.deleted:
            name = f"{location_name(project, region)}/trainingPipelines/{request.path['pipeline']}"
            raise EmulatorApiError(f'TrainingPipeline "{name}" is not found.', status="NOT_FOUND")
        return pipeline

    def _current(self, pipelines: Sequence[Pipeline]) -> Sequence[tuple[Pipeline, Record]]:
        """The pipelines and their jobs with their current states. Models that are due are uploaded."""
        records = self._engine.refresh([self._job(pipeline) for pipeline in pipelines])
        with self._lock:
            return [
                (self._with_model(pipeline, record), record)
                for pipeline, record in zip(pipelines, records, strict=True)
            ]

    def _job(self, pipeline: Pipeline) -> Record:
        record = self._engine.store.get(pipeline.job_key)
        if record is None:
            raise EmulatorApiError(f"The custom job of training pipeline {pipeline.id} is lost.", status="INTERNAL")
        return record

    def _with_model(self, pipeline: Pipeline, record: Record) -> Pipeline:
        pipeline = self._store.get(pipeline.key) or pipeline
        if pipeline.upload is None or pipeline.ended is not None or render(record)["state"] != _SUCCEEDED:
            return pipeline
        return self._upload(pipeline, pipeline.upload)

    def _upload(self, pipeline: Pipeline, model: Mapping[str, Any]) -> Pipeline:
        now = time.time()
        uri = pipeline_checks.artifact_uri(pipeline.body)
        try:
            folder = f"{uri.rstrip('/')}/"
            names = [found.uri.removeprefix(folder) for found in self._storage.ls(folder)]
            pipeline_checks.check_artifacts(model["containerSpec"]["imageUri"], uri, names)
            ids = {name: pipeline.body[name] for name in ("modelId", "parentModel") if name in pipeline.body}
            # "Model trained by this TrainingPipeline is also secured by this key if model_to_upload is not set
            # separately."
            key = {name: pipeline.body[name] for name in ("encryptionSpec",) if name in pipeline.body}
            upload = {**ids, "model": {**key, **model, "artifactUri": uri, "trainingPipeline": pipeline.name}}
            # The emulator may have ended after the upload, but before it recorded the upload.
            version = self._models.store.trained_by(pipeline.name) or self._models.register(
                location_name(pipeline.project, pipeline.region), upload
            )
        except MlengineError as error:
            if error.retryable:
                log.warning("training pipeline %s: cannot upload the model; retrying: %s", pipeline.id, error)
                return pipeline
            failure = {"code": _CODES.get(status_of(error), _INTERNAL), "message": error.message}
            return self._store.put(pipeline, error=failure, ended=now, updated=now)
        return self._store.put(pipeline, model=version, ended=now, updated=now)


_SUCCEEDED = "JOB_STATE_SUCCEEDED"
_ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})


def _state(pipeline: Pipeline, record: Record) -> str:
    state = str(render(record)["state"])
    if state == _SUCCEEDED and pipeline.upload is not None:
        state = "FAILED" if pipeline.error is not None else "SUCCEEDED" if pipeline.model is not None else "RUNNING"
    state = state.removeprefix("JOB_STATE_")
    return _PREFIX + _STATES.get(state, state)


def _has_ended(state: str) -> bool:
    return state.removeprefix(_PREFIX) in _ENDED


def _render(pipeline: Pipeline, record: Record) -> dict[str, Any]:
    """A pipeline as the service returns it."""
    job, state = render(record), _state(pipeline, record)
    found = {
        "name": pipeline.name,
        **pipeline.body,
        "trainingTaskMetadata": {"backingCustomJob": job_name(record)},
        "state": state,
        "createTime": rfc3339(pipeline.created),
        "updateTime": rfc3339(max(pipeline.updated, record.updated)),
    }
    if "startTime" in job:
        found["startTime"] = job["startTime"]
    if _has_ended(state):
        found["endTime"] = rfc3339(pipeline.ended) if pipeline.ended is not None else job.get("endTime", "")
    if pipeline.model is not None:
        found["modelToUpload"] = dict(pipeline.model)
    error = pipeline.error or job.get("error")
    if error is not None and state in {f"{_PREFIX}FAILED", f"{_PREFIX}CANCELLED"}:
        found["error"] = dict(error)
    return found


def _response(pipeline: dict[str, Any], request: Request) -> dict[str, Any]:
    if request.enums_as_numbers:
        return messages.with_numbers(pipeline, messages.training_pipeline_type())
    return pipeline


def _deletion(pipeline: Pipeline) -> dict[str, Any]:
    return deletion(pipeline.project, pipeline.region, pipeline.id, pipeline.updated)
