"""The URLs of links on tasks. They are computed in the worker, without requests."""

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
    """The directory of a task's job; ``None`` if the task has no job yet.

    The task's ``execute`` sets it, or it is in the argument ``job``.
    """
    given = getattr(operator, "job_dir", None) or getattr(operator, "job", None)
    if isinstance(given, Mapping):
        given = given.get("job_dir")
    return JobDir(given.rstrip("/")) if isinstance(given, str) and given.startswith("gs://") else None


def job_page(job_dir: JobDir) -> str:
    """The URL of the job's page. It contains no host, so that it works under each host name of the API server."""
    model = job_dir.uri.rsplit("/", 2)[1]
    return f"{page_path()}?job={quote(model)}/{quote(job_dir.job_id)}"


def tensorboard(job_dir: JobDir) -> str:
    """The URL of the job in TensorBoard, with a filter for the job's runs.

    The server is the one in the setting ``tensorboard_url``. Without this setting, the URL leads to the section of the
    job's page that explains how to start TensorBoard.
    """
    base = settings.get("tensorboard_url").rstrip("/")
    return f"{base}/?runFilter={quote(job_dir.job_id)}" if base else f"{job_page(job_dir)}&at=tensorboard"


def folder(uri: str) -> str:
    """The URL of a directory of the bucket in Google's console or, with the emulator, of the emulator's listing."""
    bucket, path = split_uri(uri)
    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    if emulator:
        return f"{emulator}/storage/v1/b/{quote(bucket)}/o?prefix={quote(path, safe='')}"
    return f"{_CONSOLE}{quote(bucket)}/{quote(path)}"


def page_path() -> str:
    """The path of the page. It begins with the path of Airflow's base URL, under which a proxy may serve Airflow."""
    from airflow.sdk.configuration import conf

    root = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
    return f"{root}{PREFIX}/page"
