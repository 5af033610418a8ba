"""Vertex AI's protobuf messages, with which the emulator validates requests as the service does.

Google's generated classes are imported on first use, which takes seconds. :func:`load` imports them earlier.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator.field_errors import snake
from mlengine.emulator.json_problems import find_problem

_OUTPUTS = ("name", "state", "create_time", "start_time", "end_time", "update_time", "error")


@cache
def custom_job_type() -> Any:
    """The class of ``CustomJob``."""
    from google.cloud.aiplatform_v1.types import custom_job  # noqa: TID251 - the emulator validates requests with it

    return type(custom_job.CustomJob.pb(custom_job.CustomJob()))


@cache
def model_type() -> Any:
    """The class of ``Model``."""
    from google.cloud.aiplatform_v1.types import model  # noqa: TID251 - the emulator validates requests with it

    return type(model.Model.pb(model.Model()))


@cache
def upload_model_request_type() -> Any:
    """The class of ``UploadModelRequest``."""
    from google.cloud.aiplatform_v1.types import model_service  # noqa: TID251 - the emulator validates requests with it

    return type(model_service.UploadModelRequest.pb(model_service.UploadModelRequest()))


@cache
def custom_job_spec_type() -> Any:
    """The class of ``CustomJobSpec``."""
    from google.cloud.aiplatform_v1.types import custom_job  # noqa: TID251 - the emulator validates requests with it

    return type(custom_job.CustomJobSpec.pb(custom_job.CustomJobSpec()))


@cache
def training_pipeline_type() -> Any:
    """The class of ``TrainingPipeline``."""
    from google.cloud.aiplatform_v1.types import training_pipeline  # noqa: TID251 - the emulator validates with it

    return type(training_pipeline.TrainingPipeline.pb(training_pipeline.TrainingPipeline()))


def load() -> None:
    """Import the classes now, so that no request waits for the import, because clients may have short timeouts."""
    for kind in (custom_job_type, custom_job_spec_type, training_pipeline_type, model_type, upload_model_request_type):
        kind()


def read_custom_job(data: Mapping[str, Any]) -> dict[str, Any]:
    """A client's ``CustomJob`` in canonical form: camelCase, enums by name, without output-only fields.

    :raises EmulatorApiError: a field is unknown, or a value has the wrong type.
    """
    return _read(data, custom_job_type(), "custom_job", "web_access_uris")


def read_training_pipeline(data: Mapping[str, Any]) -> dict[str, Any]:
    """A client's ``TrainingPipeline`` in canonical form, except for ``trainingTaskInputs``, which is unchanged.

    :raises EmulatorApiError: a field is unknown, or a value has the wrong type.
    """
    return _read(data, training_pipeline_type(), "training_pipeline", "training_task_metadata")


def _read(data: Mapping[str, Any], kind: Any, root: str, *outputs: str) -> dict[str, Any]:
    message = parse(data, kind, root)
    for output in (*_OUTPUTS, *outputs):
        message.ClearField(output)
    return to_dict(message)


def with_numbers(resource: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """The resource with enums as numbers, for clients that request them.

    :param kind: the resource's message class.
    """
    return to_dict(parse(resource, kind), numbers=True)


class FieldMask:
    """The fields of a message that a request's ``readMask`` selects.

    :param text: comma-separated paths such as ``name,jobSpec.scheduling``, in camelCase or snake_case. Empty or ``*``
        selects all fields.
    :param kind: the message class.
    :raises EmulatorApiError: the message has no field at one of the paths.
    """

    def __init__(self, text: str, kind: Any) -> None:
        self._kind, self._mask = kind, None
        if text in {"", "*"}:
            return
        from google.protobuf.field_mask_pb2 import FieldMask

        paths = [snake(path.strip()) for path in text.split(",")]
        for path in paths:
            if not path or not FieldMask(paths=[path]).IsValidForDescriptor(kind.DESCRIPTOR):
                name = kind.DESCRIPTOR.name
                raise EmulatorApiError(f"Invalid value at 'read_mask' (FieldMask): {name} has no field '{path}'.")
        self._mask = FieldMask(paths=paths)

    def apply(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The selected fields of ``data``."""
        if self._mask is None:
            return dict(data)
        message = self._kind()
        self._mask.MergeMessage(parse(data, self._kind), message)
        return to_dict(message)


def parse(data: Mapping[str, Any], kind: Any, root: str = "") -> Any:
    """``data`` as a protobuf message.

    :param root: the name of the request's field that contains ``data``; empty for the request itself.
    :raises EmulatorApiError: a field is unknown, or a value has the wrong type.
    """
    from google.protobuf import json_format

    try:
        return json_format.ParseDict(dict(data), kind())
    except json_format.ParseError as error:
        problem = find_problem(data, kind, root)
        raise problem or EmulatorApiError(f"Invalid JSON payload received. {error}") from error


def to_dict(message: Any, *, numbers: bool = False) -> dict[str, Any]:
    """A protobuf message as JSON.

    :param numbers: write enums as numbers.
    """
    from google.protobuf import json_format

    plain: dict[str, Any] = json_format.MessageToDict(message, use_integers_for_enums=numbers)
    return plain
