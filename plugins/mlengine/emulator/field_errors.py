r"""Errors of single fields, with the messages of the services, which name fields in snake_case.

Vertex AI's format is known from public reports:
``List of found errors:\t1.Field: job_spec.worker_pool_specs[0].machine_spec.machine_type; Message: …\t``. Paths of a
job spec's fields begin with ``job_spec``; those of a resource begin with the resource's name:
``training_pipeline.model_to_upload.labels``. The services list all errors of a request; the emulator lists the first
one.
"""

from __future__ import annotations

import re

from mlengine.core.errors import EmulatorApiError, JobFileError

REQUIRED = "Required field is not set."
LABELS = (
    "There can be no more than 64 labels attached to a single resource. Label keys and values can only contain"
    " lowercase letters, numbers, dashes and underscores. Label keys must start with a letter or number, must be less"
    " than 64 characters in length, and must be less that 128 bytes in length when encoded in UTF-8. Label values must"
    " be less than 64 characters in length, and must be less that 128 bytes in length when encoded in UTF-8."
)
_FIELD = re.compile(r"(?P<path>[A-Za-z]\w*(?:\.[^\s:]+|\[\d+\])*): (?P<what>.+)", re.DOTALL)


def snake(path: str) -> str:
    """A field's path in snake_case: ``jobSpec.workerPoolSpecs[0]`` → ``job_spec.worker_pool_specs[0]``."""
    return re.sub(r"(?<=[a-z0-9])[A-Z]", lambda hit: "_" + hit[0].lower(), path)


def vertex(field: str, message: str, hint: str = "") -> EmulatorApiError:
    """Vertex AI's error for one field."""
    field = snake(field)
    text = f"List of found errors:\t1.Field: {field}; Message: {message}\t"
    return EmulatorApiError(text, hint=hint, violation=(field, message))


def vertex_of(error: JobFileError, where: str) -> EmulatorApiError:
    """Vertex AI's error for an error of the job file's checks.

    :param where: the name that the checks used for the request, which is the resource's name in the API.
    """
    path, what = _split(error, where)
    in_spec = path.partition(".")[0] == "jobSpec"
    return vertex(path if in_spec else f"{where}.{path}" if path else where, what, error.hint)


def mlengine(field: str, message: str, *, status: str = "INVALID_ARGUMENT", hint: str = "") -> EmulatorApiError:
    """ML Engine's error for one field."""
    field = snake(field)
    return EmulatorApiError(f"Field: {field} Error: {message}", status=status, hint=hint, violation=(field, message))


def mlengine_of(error: JobFileError, where: str = "job") -> EmulatorApiError:
    """ML Engine's error for an error of the job file's checks."""
    path, what = _split(error, where)
    if what == "unknown field":
        parent, _, name = path.rpartition(".")
        return unknown(name, f"{where}.{parent}" if parent else where, error.hint)
    return mlengine(f"{where}.{path}" if path else where, what, hint=error.hint)


def unknown(name: str, parent: str, hint: str = "") -> EmulatorApiError:
    """The error of Google's API front end for a field that does not exist.

    :param name: the field's name as the client wrote it.
    :param parent: the path of the message that has no such field; empty for the request.
    """
    place = snake(parent)
    where = f" at '{place}'" if place else ""
    message = f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'
    return EmulatorApiError(message, hint=hint, violation=(place, message))


def invalid(path: str, type_name: str, shown: str) -> EmulatorApiError:
    """The error of Google's API front end for a value of the wrong type.

    :param path: the path of the field, in snake_case.
    :param shown: the value as JSON.
    """
    message = f"Invalid value at '{path}' ({type_name}), {shown}"
    return EmulatorApiError(message, violation=(path, message))


def _split(error: JobFileError, where: str) -> tuple[str, str]:
    """The path and the description in an error of :class:`~mlengine.core.job_file.located.Located`."""
    text = error.message.removeprefix(f"{where}: ")
    match = _FIELD.fullmatch(text)
    return (match["path"], match["what"]) if match else ("", text)
