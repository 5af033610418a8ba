"""What can go wrong in a training, and the exit code that says so to whoever started the process."""

from __future__ import annotations

EXIT_OK = 0
EXIT_ERROR = 1  # the trainer's or the user's own mistake: running again does not help
EXIT_RETRY = 75  # EX_TEMPFAIL: nothing wrong with the training; run it again, it goes on from its checkpoint
EXIT_PREEMPTED = 143  # 128 + SIGTERM: was asked to stop, saved what there was; run it again


class TrainerError(Exception):
    """Root of the errors that end a replica with a message instead of a stack trace."""

    exit_code = EXIT_ERROR


class UsageError(TrainerError):
    """Arguments or ``TF_CONFIG`` make no sense together."""


class DatasetError(TrainerError):
    """The dataset version is missing, incomplete, corrupt or of the wrong shape. Names the file and the reason."""


class LossNotFiniteError(TrainerError):
    """The loss became NaN or infinite. The last checkpoint is from before that."""


class StorageError(TrainerError):
    """Files could not be read or written, after retries."""

    exit_code = EXIT_RETRY


class StorageForbiddenError(StorageError):
    """The credentials, or the file's permissions, do not allow it: repeating the job does not help."""

    exit_code = EXIT_ERROR


class MissingError(StorageError):
    """There is no such file."""

    exit_code = EXIT_ERROR


class ReplicaLostError(TrainerError):
    """Another replica did not come up, or did not come back, within the patience."""

    exit_code = EXIT_RETRY


class PreemptedError(TrainerError):
    """SIGTERM: stop now, save first."""

    exit_code = EXIT_PREEMPTED
