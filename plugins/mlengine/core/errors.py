"""The one tree of errors.

Each error says what happened and where, and carries a ``hint``: what the reader does next. ``retryable`` answers
whether the same call can succeed later with nothing changed. Nothing else in this project defines an exception that
crosses a module boundary.
"""

from __future__ import annotations

from typing import ClassVar

from mlengine.core.plaintext import visible


class MlengineError(Exception):
    """Root of all errors of this project.

    :param message: what happened, with the id, path or line it happened at.
    :param hint: what the reader does next; printed after the message.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        # It may quote a builder, a trainer or a service: shown in logs and terminals, and obeyed by neither.
        message = visible(message)
        super().__init__(message)
        self.message = message
        self.hint = visible(hint)

    def __str__(self) -> str:
        return f"{self.message}\n  What to do: {self.hint}" if self.hint else self.message


class UsageError(MlengineError):
    """The arguments of a command do not fit together. Names the argument; nothing was changed."""


class SettingError(MlengineError):
    """A setting has a value that cannot be used. Names the setting, the value and where the value was found."""


class XComMissingError(MlengineError):
    """An operator did not get what an earlier task should have returned. Names the field and that task."""


class JobFileError(MlengineError):
    """The job file, or the spec made from it, is wrong. The message has ``file:line`` where there is one."""


class PackageError(MlengineError):
    """The trainer cannot be packaged: missing ``__init__.py``, module not inside, or the builder's own words."""


class StorageError(MlengineError):
    """The bucket refused, or an object is not what was expected."""


class BucketMissingError(StorageError):
    """The bucket does not exist, or is hidden from these credentials."""


class StorageForbiddenError(StorageError):
    """The credentials may not do this."""


class ObjectMissingError(StorageError):
    """No such object."""


class StorageConflictError(StorageError):
    """A precondition did not hold: somebody else wrote the object first. The caller re-reads and decides."""


class StorageUnavailableError(StorageError):
    """The service did not answer, or kept answering 429/5xx, until the deadline."""

    retryable = True


class DatasetError(MlengineError):
    """A dataset version is missing, incomplete, corrupt or of the wrong shape. Names the file and the reason."""


class AirflowError(MlengineError):
    """Airflow's API server cannot be reached, or refuses a request.

    :param status: the HTTP status it refused with, where it answered at all.
    """

    def __init__(self, message: str, *, hint: str = "", status: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class AnnounceError(MlengineError):
    """Nobody waits for a new dataset version. The version is registered all the same."""


class EnvironmentBuildError(MlengineError):
    """The trainer's environment could not be built. Carries the installer's own words."""


class BackendError(MlengineError):
    """A training backend refused a call for good."""


class BackendUnavailableError(BackendError):
    """A training backend could not be reached, or asked to come back later. Never decides a job's outcome."""

    retryable = True


class EmulatorError(MlengineError):
    """The emulator cannot start: a port, the state directory, or an option."""


class EmulatorApiError(EmulatorError):
    """The emulator rejects a request, as the service that it emulates does.

    :param status: the name of a ``google.rpc.Code``.
    """

    def __init__(self, message: str, *, status: str = "INVALID_ARGUMENT", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class JobConflictError(MlengineError):
    """A job of the same name was submitted with other inputs. Says which, with the old and the new value."""


class JobFailedError(MlengineError):
    """The job ended without success. Says which replica, its exit code, its last lines, and what that means."""


class JobLostError(JobFailedError):
    """The job ended through no fault of the trainer (preempted, launcher lost, service error): try again."""

    retryable = True


class JobDeadlineError(JobFailedError):
    """Our own deadline passed; the job was cancelled."""


class ModelError(MlengineError):
    """A model's files are missing, incomplete, changed, or not a SavedModel. Names the file and the reason."""


class PublishError(MlengineError):
    """The champion cannot be changed as asked."""


class RegistryError(MlengineError):
    """A model registry elsewhere refused a champion for good. The champion here is not touched by that."""


class RegistryUnavailableError(RegistryError):
    """A model registry does not answer, or asks to come back later."""

    retryable = True


class StackError(MlengineError):
    """What ``make run`` or a test started did not come up, has ended, or does not get done in time."""


class ComponentFailedError(StackError):
    """A component of the Airflow of ``make run`` or of a test keeps ending. Carries the last lines of its log."""
