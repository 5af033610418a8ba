"""Predictions for single held-out rows, for people. The model runs in the trainer's environment, as in a validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlengine.core.errors import DatasetError, ModelError
from mlengine.datasets import Manifest, fetch
from mlengine.storage.client import Storage
from mlengine.validation.environment import local_environment
from mlengine.validation.export import download, resolve
from mlengine.validation.job import FinishedJob
from mlengine.validation.rules import recorded_signature
from mlengine.validation.runner import Heldout, Limits, ServedModel, run_probe
from mlengine.validation.signature import Expectation, check_saved_model


def predict(
    storage: Storage, job: FinishedJob, model_uri: str, rows: tuple[int, ...], scratch: Path
) -> tuple[Sequence[Mapping[str, Any]], tuple[int, ...]]:
    """Predict rows of the held-out set.

    The model is called with the serving signature in the job's report, or else with the default one.

    :param rows: row numbers. Numbers that the held-out set does not have are ignored.
    :param scratch: an empty folder.
    :returns: for each row ``row`` (the key that was sent), ``label``, ``predicted``, ``score`` and ``pixels``
        (base64); and the shape of a row.
    :raises ModelError: the model is incomplete, has another signature, or fails.
    :raises DatasetError: the job's dataset is unknown.
    """
    if not job.dataset_uri:
        raise DatasetError(f"the dataset of {job.job_dir.job_id} is unknown", hint="pass --dataset gs://…")
    expected = recorded_signature(storage, job.job_dir) or Expectation()
    model = scratch / "model"
    download(storage, resolve(storage, model_uri), model)
    for check in check_saved_model(model, expected):
        if not check.passed:
            raise ModelError(check.message, hint="validate the job with its serving_signature")
    served = ServedModel.read(model, expected)
    environment = local_environment(storage, job.package_uris, env=job.env)
    folder = fetch(storage, job.dataset_uri, environment.datasets)
    manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes(), job.dataset_uri)
    held = manifest.heldout
    heldout = Heldout(folder / held.images.path, folder / held.labels.path, manifest.classes, held.identity)
    work = scratch / "probe"
    work.mkdir()
    with environment.python() as python:
        measured = run_probe(python, served, heldout, work=work, limits=Limits(), show=rows, brief=True)
    if measured.error:
        raise ModelError(measured.error, hint="see report.json in the job directory")
    return measured.digits, manifest.shape
