"""The layout of the bucket: all paths in it.

::

    gs://BUCKET/packages/<name>/<digest>/<sdist>         the trainer, content-addressed
    gs://BUCKET/datasets/<name>/<version>/manifest.json  a dataset version; the manifest is written last
    gs://BUCKET/<model>/<job_id>/                        a job dir:
        job.json                                           the claim: who submitted the job, and what happened to it
        train/                                             checkpoints, summaries, progress.json, metrics.jsonl
        model/                                             the export; MANIFEST.json is written last
        logs/                                              each replica's log, once the job has ended
        ray/                                               state and log of the attempts on a Ray cluster
        report.json, report.html                           the validation report, as data and as a page
        predictions.parquet                                the model's predictions of the held-out rows
    gs://BUCKET/<model>/champion.json                    the pointer to the champion
    gs://BUCKET/<model>/champions/<serial>.json          its history
    gs://BUCKET/<model>/validated/<digest>.json          the job that was accepted for these inputs
    gs://BUCKET/mlengine-job-index/<number>.json.gz      the job index, a cache for lists of jobs; may be deleted

This module only computes strings; it does no I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlengine.core.errors import StorageError

_GS_URI = re.compile(r"^gs://(?P<bucket>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(?P<path>.*))?$", re.DOTALL)
KEEP = ".keep"  # an empty object that represents a folder
NAME = re.compile(r"^[a-z][a-z0-9_-]{0,39}$")
# Top-level names in the bucket that a model must not have.
JOB_INDEX = "mlengine-job-index"
RESERVED_NAMES = frozenset({"packages", "datasets", "mlengine-emulator", JOB_INDEX})
# Folders in a model's folder that are not job dirs. Earlier versions had a cache in `index`.
NO_JOBS = frozenset({"champions", "validated", "index"})


def split_uri(uri: str) -> tuple[str, str]:
    """``gs://bucket/a/b`` → ``("bucket", "a/b")``.

    :raises StorageError: the string is not a ``gs://`` URI.
    """
    match = _GS_URI.fullmatch(uri)
    if match is None:
        raise StorageError(
            f"not a Cloud Storage URI: {uri!r}",
            hint="write gs://BUCKET/path; bucket names have 3 to 222 of a-z 0-9 . _ -",
        )
    return match["bucket"], match["path"] or ""


def join(uri: str, *parts: str) -> str:
    """Join a URI and parts with single slashes. A trailing slash of the last part is kept."""
    pieces = [uri.rstrip("/"), *(part.strip("/") for part in parts[:-1] if part.strip("/"))]
    if parts:
        pieces.append(parts[-1].lstrip("/"))
    return "/".join(pieces)


def check_model_name(model: str) -> str:
    """Return ``model`` if it is valid as a directory in the bucket, as a label and as part of a job id; else raise."""
    if not NAME.fullmatch(model) or model in RESERVED_NAMES:
        raise StorageError(
            f"not a model name: {model!r}",
            hint="use 1 to 40 of a-z 0-9 _ -, a letter first; packages, datasets, mlengine-emulator and "
            "mlengine-job-index are reserved",
        )
    return model


@dataclass(frozen=True)
class JobDir:
    """The paths of one job dir. ``uri`` has no trailing slash.

    :raises StorageError: ``uri`` is not a ``gs://`` URI, or is a bucket without a path.
    """

    uri: str

    def __post_init__(self) -> None:
        uri = self.uri.rstrip("/")
        _, path = split_uri(uri)
        if not path.strip("/"):
            raise StorageError(
                f"the job dir {self.uri} is a bucket without a path", hint=f"use a folder in the bucket: {uri}/FOLDER"
            )
        object.__setattr__(self, "uri", uri)

    @classmethod
    def of(cls, bucket: str, model: str, job_id: str) -> JobDir:
        """The job dir of a job in ``bucket``, which is a bare name, ``gs://name``, or ``gs://name/prefix``."""
        return cls(join(bucket_uri(bucket), check_model_name(model), job_id))

    @property
    def job_id(self) -> str:
        """The job id, which is the dir's name."""
        return self.uri.rsplit("/", 1)[1]

    @property
    def model_name(self) -> str:
        """The model's name, which is the name of the dir's parent."""
        return self.uri.rsplit("/", 2)[1]

    @property
    def bucket(self) -> str:
        """Everything before the model's name: ``gs://BUCKET``, or ``gs://BUCKET/prefix``."""
        return self.uri.rsplit("/", 2)[0]

    @property
    def claim(self) -> str:
        return join(self.uri, "job.json")

    def numbered(self, number: int) -> JobDir:
        """Candidate dir ``number`` of a job: ``D``, then ``D_2``, ``D_3`` if other jobs use the earlier ones."""
        return self if number == 1 else JobDir(f"{self.uri}_{number}")

    @property
    def train(self) -> str:
        return join(self.uri, "train/")

    @property
    def model(self) -> str:
        return join(self.uri, "model/")

    @property
    def logs(self) -> str:
        return join(self.uri, "logs/")

    @property
    def environment(self) -> str:
        """The list of packages installed in the job's environment, one ``name==version`` per line."""
        return join(self.uri, "logs", "environment.txt")

    @property
    def cursor(self) -> str:
        """The log cursor, which records how far the waiting task has logged the job's lines and progress.

        A restarted wait continues from there.
        """
        return join(self.uri, "logs", "cursor.json")

    @property
    def report(self) -> str:
        return join(self.uri, "report.json")

    @property
    def page(self) -> str:
        return join(self.uri, "report.html")

    @property
    def predictions(self) -> str:
        return join(self.uri, "predictions.parquet")

    @property
    def progress(self) -> str:
        return join(self.uri, "train", "progress.json")

    @property
    def metrics(self) -> str:
        return join(self.uri, "train", "metrics.jsonl")


def check_job_dir_name(job_dir: JobDir) -> None:
    """Check that the dir has a valid name for a job.

    :raises StorageError: lists of jobs would not show a job in this dir.
    """
    if job_dir.job_id in NO_JOBS:
        raise StorageError(
            f"a job dir cannot be called {job_dir.job_id}: {job_dir.uri}",
            hint=f"choose another name; {', '.join(sorted(NO_JOBS))} are reserved",
        )


def bucket_uri(bucket: str) -> str:
    """``name`` or ``gs://name[/prefix]`` as a validated ``gs://name[/prefix]`` without a trailing slash."""
    uri = bucket if bucket.startswith("gs://") else f"gs://{bucket}"
    split_uri(uri)
    return uri.rstrip("/")


def package_uri(staging: str, name: str, digest: str, filename: str) -> str:
    return join(bucket_uri(staging), "packages", name, digest, filename)


def dataset_dir(bucket: str, name: str, version: str) -> str:
    return join(bucket_uri(bucket), "datasets", name, version)


def datasets_prefix(bucket: str, name: str) -> str:
    return join(bucket_uri(bucket), "datasets", name) + "/"


def dataset_asset_name(name: str) -> str:
    """The name of a dataset's Airflow asset."""
    return f"dataset_{name}"


# The Airflow asset alias of the champions of all models.
CHAMPIONS_ALIAS = "mlengine_champions"


def champion_asset_name(model: str) -> str:
    """The name of the Airflow asset of a model's champion."""
    return f"champion_{model}"


def model_prefix(bucket: str, model: str) -> str:
    return join(bucket_uri(bucket), check_model_name(model)) + "/"


def champion(bucket: str, model: str) -> str:
    return join(bucket_uri(bucket), check_model_name(model), "champion.json")


def champion_entries(bucket: str, model: str) -> str:
    return join(model_prefix(bucket, model), "champions/")


def champion_entry(bucket: str, model: str, serial: int) -> str:
    return join(bucket_uri(bucket), check_model_name(model), "champions", f"{serial:06d}.json")


def validated_entries(bucket: str, model: str) -> str:
    return join(model_prefix(bucket, model), "validated/")


def validated(bucket: str, model: str, digest: str) -> str:
    return join(bucket_uri(bucket), check_model_name(model), "validated", f"{digest}.json")


def job_index(bucket: str) -> str:
    """The folder of the job index."""
    return join(bucket_uri(bucket), JOB_INDEX) + "/"


def job_index_shard(bucket: str, number: int) -> str:
    """The URI of one object (shard) of the job index."""
    return f"{job_index(bucket)}{number}.json.gz"
