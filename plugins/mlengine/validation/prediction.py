"""Predicts single held-out rows, for the command ``mlengine models predict``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlengine.core.errors import DatasetError, ModelError
from mlengine.storage.client import Storage
from mlengine.validation.environment import local_environment
from mlengine.validation.export import download, resolve
from mlengine.validation.heldout import Heldout, find_version, read_heldout, read_rows
from mlengine.validation.job import FinishedJob
from mlengine.validation.outputs import Fitted, fit
from mlengine.validation.rules import recorded_model
from mlengine.validation.scored_model import ScoredModel
from mlengine.validation.scoring_process import ScoringProcess
from mlengine.validation.signature import check_saved_model


@dataclass(frozen=True)
class PredictedRow:
    """One held-out row and its prediction.

    :param row: the row's number in the held-out set.
    :param key: the row's key, if the dataset has one.
    :param target: the true class, or the value of a regression; ``None`` without a target.
    :param prediction: the predicted class or value; a list of outputs if the task is ``none``; ``None`` if the model
        returned no finite number.
    :param probability: the probability of the predicted class, if known.
    :param columns: the row's values; a tensor is a NumPy array.
    """

    row: int
    key: Any
    target: Any
    prediction: Any
    probability: float | None
    columns: Mapping[str, Any]


def predict(
    storage: Storage, job: FinishedJob, model_uri: str, rows: tuple[int, ...], scratch: Path
) -> list[PredictedRow]:
    """Predict rows of the held-out set.

    The model is called as in the job's report, or else with the default serving signature.

    :param rows: row numbers. Numbers that the held-out set does not have are ignored.
    :param scratch: an empty folder.
    :raises ModelError: the model is incomplete, has another signature, or fails.
    :raises DatasetError: the job's dataset is unknown.
    """
    if not job.dataset_uri:
        raise DatasetError(f"the dataset of {job.job_dir.job_id} is unknown", hint="pass --dataset gs://…")
    expected, scorer = recorded_model(storage, job)
    folder = scratch / "model"
    download(storage, resolve(storage, model_uri, known=not scorer), folder)
    environment = local_environment(storage, job.package_uris, env=job.env)
    manifest = find_version(storage, job.dataset_uri)
    model = ScoredModel.read(folder, expected, scorer=scorer, classes=tuple(manifest.schema.classes or ()))
    for check in check_saved_model(model.path, expected) if model.kind == "savedmodel" else ():
        if not check.passed:
            raise ModelError(check.message, hint="validate the job with its serving_signature")
    written, work = scratch / "rows", scratch / "scoring"
    written.mkdir()
    work.mkdir()
    with environment.python() as python, ScoringProcess(python, model, written, work=work, only=rows) as process:
        heldout = read_heldout(storage, manifest, job.dataset_uri, environment.datasets, written)
        measured = process.measure()
    if measured.error:
        raise ModelError(measured.error, hint="see report.json in the job directory")
    if measured.outputs is None:
        return []
    fitted = fit(measured.outputs, heldout.task, heldout.classes, expected.activation)
    wanted = tuple(row for row in rows if 0 <= row < heldout.rows)
    columns = read_rows(heldout, wanted)
    return [_row(heldout, fitted, at, row, columns[at]) for at, row in enumerate(wanted)]


def _row(heldout: Heldout, fitted: Fitted, at: int, row: int, columns: Mapping[str, Any]) -> PredictedRow:
    target = None if heldout.target is None else heldout.target[row].item()
    if target is not None and heldout.classes:
        target = heldout.classes[target]
    key = None if heldout.key is None else heldout.key[row]
    prediction, probability = predicted_value(fitted, heldout, at)
    return PredictedRow(row, key, target, prediction, probability, columns)


def predicted_value(fitted: Fitted, heldout: Heldout, at: int) -> tuple[Any, float | None]:
    """The predicted class or value at one position, and the probability of the class.

    A binary model predicts its second class from a probability of 0.5.
    """
    if heldout.task == "multiclass" and fitted.classes is not None:
        return _predicted_class(fitted, heldout, at, int(fitted.classes[at]))
    if fitted.values is None or heldout.task == "none":
        return (None if fitted.values is None else fitted.values[at].tolist()), None
    value = float(fitted.values[at])
    if math.isnan(value):
        return None, None
    if heldout.task == "regression":
        return value, None
    positive = value >= 0.5
    return heldout.classes[int(positive)], value if positive else 1 - value


def _predicted_class(fitted: Fitted, heldout: Heldout, at: int, index: int) -> tuple[Any, float | None]:
    if index < 0:
        return None, None
    return heldout.classes[index], None if fitted.values is None else float(fitted.values[at, index])
