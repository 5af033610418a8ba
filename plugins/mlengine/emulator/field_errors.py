"""Errors of single fields in the words of the services, which name fields in snake_case.

Vertex AI's format is known from public reports:
``List of found errors:\\t1.Field: job_spec.worker_pool_specs[0].machine_spec.machine_type; Message: …\\t``. Fields of a
job's spec are named from ``job_spec`` on, those of a resource with its name: ``model.labels``. The services list all
errors of a request; the emulator lists the first one.
"""

from __future__ import annotations

import re

from mlengine.core.errors import EmulatorApiError, JobFileError

REQUIRED = "Required field is not set."
_FIELD = re.compile(r"(?P<path>[A-Za-z]\w*(?:\.[^\s:]+|\[\d+\])*): (?P<what>.+)", re.DOTALL)


def snake(path: str) -> str:
    """``jobSpec.workerPoolSpecs[0]`` → ``job_spec.worker_pool_specs[0]``."""
    return re.sub(r"(?<=[a-z0-9])[A-Z]", lambda hit: "_" + hit[0].lower(), path)


def vertex(field: str, message: str, hint: str = "") -> EmulatorApiError:
    """Vertex AI's error for one field."""
    return EmulatorApiError(f"List of found errors:\t1.Field: {snake(field)}; Message: {message}\t", hint=hint)


def vertex_of(error: JobFileError, where: str) -> EmulatorApiError:
    """The same for an error of the job file's checks.

    :param where: what the checks were told to name the request; the resource in the API's words.
    """
    path, what = _split(error, where)
    in_spec = path.partition(".")[0] == "jobSpec"
    return vertex(path if in_spec else f"{where}.{path}" if path else where, what, error.hint)


def mlengine_of(error: JobFileError, where: str = "job") -> EmulatorApiError:
    """ML Engine's error for an error of the job file's checks."""
    path, what = _split(error, where)
    if what == "unknown field":
        parent, _, name = path.rpartition(".")
        place = snake(f"{where}.{parent}" if parent else where)
        return EmulatorApiError(
            f"Invalid JSON payload received. Unknown name \"{name}\" at '{place}': Cannot find field.", hint=error.hint
        )
    return EmulatorApiError(f"Field: {snake(f'{where}.{path}' if path else where)} Error: {what}", hint=error.hint)


def _split(error: JobFileError, where: str) -> tuple[str, str]:
    """Path and description of an error of :class:`~mlengine.core.job_file.located.Located`."""
    text = error.message.removeprefix(f"{where}: ")
    match = _FIELD.fullmatch(text)
    return (match["path"], match["what"]) if match else ("", text)
