"""Where links on tasks lead: computed in the worker from what the task has at hand. Nothing is asked of anybody."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from mlengine import settings
from mlengine.core.layout import JobDir, split_uri

PREFIX = "/mlengine"
_CONSOLE = "https://console.cloud.google.com/storage/browser/"


def job_dir_of(operator: Any) -> JobDir | None:
    """The job that a task is about: what its ``execute`` has set, or what it was given; ``None`` if it has none yet."""
    given = getattr(operator, "job_dir", None) or getattr(operator, "job", None)
    if isinstance(given, Mapping):
        given = given.get("job_dir")
    return JobDir(given.rstrip("/")) if isinstance(given, str) and given.startswith("gs://") else None


def job_page(job_dir: JobDir) -> str:
    """The job's page. Without a host: whoever sees the link is at the right one, whatever it is called there."""
    model = job_dir.uri.rsplit("/", 2)[1]
    return f"{_root()}{PREFIX}/page?job={quote(model)}/{quote(job_dir.job_id)}"


def tensorboard(job_dir: JobDir) -> str:
    """The setting ``tensorboard_url`` is a TensorBoard that shows all jobs: it is asked for the runs of this one.

    Without it, the job's page, which says how to start one.
    """
    base = settings.get("tensorboard_url").rstrip("/")
    return f"{base}/?runFilter={quote(job_dir.job_id)}" if base else f"{job_page(job_dir)}&at=tensorboard"


def folder(uri: str) -> str:
    """A folder of the bucket in Google's console, or as the server that stands in for Google lists it."""
    bucket, path = split_uri(uri)
    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    if emulator:
        return f"{emulator}/storage/v1/b/{quote(bucket)}/o?prefix={quote(path, safe='')}"
    return f"{_CONSOLE}{quote(bucket)}/{quote(path)}"


def _root() -> str:
    """The path below which this Airflow is served, where it is not the root."""
    from airflow.sdk.configuration import conf

    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
