"""A few held-out rows put to a model, for people to look at. In the trainer's environment, as the gate does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlengine.core.errors import DatasetError, ModelError
from mlengine.datasets import Manifest, fetch
from mlengine.storage.client import Storage
from mlengine.validation.environment import local_place
from mlengine.validation.export import download, resolve
from mlengine.validation.rules import recorded_expectation
from mlengine.validation.runner import Heldout, Limits, ServedModel, run_probe
from mlengine.validation.signature import Expectation, check_wire
from mlengine.validation.subject import Subject


def predict(
    storage: Storage, subject: Subject, model_uri: str, rows: tuple[int, ...], scratch: Path
) -> tuple[Sequence[Mapping[str, Any]], tuple[int, ...]]:
    """What the model says of these rows of the held-out set, and the shape of one.

    Each has ``row`` (the key that was sent), ``label``, ``predicted``, ``score`` and ``pixels`` (base64). Rows that the
    set does not have are left out. The model is called as the job's report says, or else by the default expectation.

    :param scratch: an empty folder.
    :raises ModelError: the model is not whole, is not as expected, or fails.
    :raises DatasetError: it is not known what it was trained on.
    """
    if not subject.dataset_uri:
        raise DatasetError(
            f"it is not known what {subject.job_dir.job_id} was trained on", hint="pass --dataset gs://…"
        )
    expected = recorded_expectation(storage, subject.job_dir) or Expectation()
    model = scratch / "model"
    download(storage, resolve(storage, model_uri), model)
    for check in check_wire(model, expected):
        if not check.passed:
            raise ModelError(check.sentence, hint="validate the job with serving_signature=")
    served = ServedModel.read(model, expected)
    place = local_place(storage, subject.package_uris, env=subject.env)
    folder = fetch(storage, subject.dataset_uri, place.datasets)
    manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes(), subject.dataset_uri)
    held = manifest.heldout
    images, labels = (folder / held.file_of(column).path for column in ("image", "label"))
    heldout = Heldout(images, labels, len(manifest.schema.classes or ()), held.identity)
    work = scratch / "probe"
    work.mkdir()
    with place.python() as python:
        measured = run_probe(python, served, heldout, work=work, limits=Limits(), show=rows, brief=True)
    if measured.error:
        raise ModelError(measured.error, hint="see what the gate says of it: its report.json")
    return measured.digits, manifest.schema.column("image").shape
