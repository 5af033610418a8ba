"""Arguments that several commands of ``mlengine models`` share."""

from __future__ import annotations

import argparse

from mlengine.core.layout import JobDir


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the argument MODEL to a command."""
    parser.add_argument("model", metavar="MODEL", help="name of the model")


def add_job(parser: argparse.ArgumentParser) -> None:
    """Add the argument JOB to a command."""
    parser.add_argument("job", metavar="JOB", help="job id, or the job dir as gs://…")


def job_dir(bucket: str, model: str, job: str) -> JobDir:
    """The job dir of a job, which is given by its id or by its URI."""
    return JobDir(job.rstrip("/")) if job.startswith("gs://") else JobDir.of(bucket, model, job)
