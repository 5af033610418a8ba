"""The exceptions of this project.

Each error says what happened and where, and has a ``hint``: what to do next. ``retryable`` says whether the same call
can succeed later without a change. No other module defines an exception that crosses a module boundary.
"""

from __future__ import annotations

from typing import ClassVar

from mlengine.core.plaintext import visible


class MlengineError(Exception):
    """Base class of all errors of this project.

    :param message: what happened, with the id, path or line.
    :param hint: what to do next; printed after the message.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        # The message may quote the output of other programs, which may contain terminal escapes.
        message = visible(message)
        super().__init__(message)
        self.message = message
        self.hint = visible(hint)

    def __str__(self) -> str:
        return f"{self.message}\n  What to do: {self.hint}" if self.hint else self.message


class UsageError(MlengineError):
    """The arguments of a command are inconsistent. The error names the argument; nothing was changed."""


class SettingError(MlengineError):
    """A setting has an invalid value. The error names the setting, the value and its source."""


class XComMissingError(MlengineError):
    """An operator did not get the result of an earlier task. The error names the field and the task."""


class JobFileError(MlengineError):
    """The job file, or a value that replaces one of its fields, is invalid.

    The error names ``file:line`` if there is a file.

    """


class PackageError(MlengineError):
    """The trainer cannot be packaged: a missing ``__init__.py``, a missing module, or an error of the build tool."""


class StorageError(MlengineError):
    """Cloud Storage rejected a request, or an object is not as expected."""


class BucketMissingError(StorageError):
    """The bucket does not exist, or is not visible with these credentials."""


class StorageForbiddenError(StorageError):
    """The credentials lack a permission."""


class ObjectMissingError(StorageError):
    """The object does not exist."""


class StorageConflictError(StorageError):
    """A precondition failed: another process wrote the object first. The caller reads it again."""


class StorageUnavailableError(StorageError):
    """Cloud Storage did not respond, or responded with 429 or 5xx, until the deadline."""

    retryable = True


class DatasetError(MlengineError):
    """A dataset version is missing, incomplete, corrupt or has the wrong shape. The error names the file and the
    reason.
    """


class AirflowError(MlengineError):
    """Airflow's API server cannot be reached, or rejects a request.

    :param status: the HTTP status; ``None`` if there was no response.
    """

    def __init__(self, message: str, *, hint: str = "", status: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class AnnounceError(MlengineError):
    """No DAG is scheduled on the dataset. The new version is registered."""


class EnvironmentBuildError(MlengineError):
    """The trainer's environment could not be built. The error includes the installer's output."""


class BackendError(MlengineError):
    """A training backend rejected a request."""


class BackendUnavailableError(BackendError):
    """A training backend could not be reached, or asked to retry later. The job's state is unknown."""

    retryable = True


class NoCapacityError(BackendUnavailableError):
    """A training backend refused to create a job for lack of quota or machines. No job was created."""


# The errors of an outage of a service or of the bucket. A call that raised one of them is retried.
UNAVAILABLE = (BackendUnavailableError, StorageUnavailableError)


class BackendThrottledError(BackendUnavailableError):
    """A quota of requests per minute is exceeded.

    :param retry_after: the pause in seconds that the service asked for; ``None`` if it did not.
    """

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class NoQuotaError(BackendError):
    """A training backend did not create a job, because the limit of a quota that the job needs is 0."""


class EmulatorError(MlengineError):
    """The emulator cannot start, because of a port, the state directory, or an option."""


class EmulatorApiError(EmulatorError):
    """The emulator rejects a request in the same way as the emulated service.

    :param status: the status, a name of ``google.rpc.Code``.
    :param violation: the name of the invalid field and the reason; ``None`` if the error is not about a field.
    """

    def __init__(
        self,
        message: str,
        *,
        status: str = "INVALID_ARGUMENT",
        hint: str = "",
        violation: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.violation = violation


class JobConflictError(MlengineError):
    """A job with the same key was submitted with other inputs. The error names them, with the old and new values."""


class JobFailedError(MlengineError):
    """The job ended without success. The error has the replica, its exit code, its last log lines, and the cause."""


class JobLostError(JobFailedError):
    """The job was preempted, lost its launcher, or failed by an error of the service."""

    retryable = True


class JobDeadlineError(JobFailedError):
    """The job exceeded a time limit and was cancelled."""


class ModelError(MlengineError):
    """A model's files are missing, incomplete, changed, or not a SavedModel. The error names the file and reason."""


class PublishError(MlengineError):
    """The champion cannot be changed as requested."""


class RegistryError(MlengineError):
    """An external model registry rejected a champion. The champion itself is unchanged."""


class RegistryUnavailableError(RegistryError):
    """An external model registry does not respond, or asked to retry later."""

    retryable = True


class StackError(MlengineError):
    """A process of ``make run`` or of a test did not start, has ended, or did not finish in time."""


class ComponentFailedError(StackError):
    """A component of the Airflow of ``make run`` or of a test keeps failing. The error includes the last lines of its
    log.
    """
