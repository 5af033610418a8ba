"""The errors of a training, and their exit codes."""

from __future__ import annotations

EXIT_OK = 0
EXIT_ERROR = 1  # an error of the trainer or the user: a retry does not help
EXIT_RETRY = 75  # EX_TEMPFAIL: not an error of the training; a retry continues from the checkpoint
EXIT_PREEMPTED = 143  # 128 + SIGTERM: the process was stopped, and has saved a checkpoint; retry


class TrainerError(Exception):
    """Base class of the errors that end a replica with a message instead of a stack trace."""

    exit_code = EXIT_ERROR


class UsageError(TrainerError):
    """The arguments or ``TF_CONFIG`` are invalid, or contradict each other."""


class DatasetError(TrainerError):
    """The dataset version is missing, incomplete, corrupt or of the wrong shape. The message names file and reason."""


class AcceleratorMissingError(TrainerError):
    """TensorFlow does not see the accelerators that this replica was given."""


class LossNotFiniteError(TrainerError):
    """The loss became NaN or infinite. The newest checkpoint was saved before that."""


class StorageError(TrainerError):
    """Files could not be read or written, even after retries."""

    exit_code = EXIT_RETRY


class StorageForbiddenError(StorageError):
    """The credentials or file permissions do not allow the operation. A retry does not help."""

    exit_code = EXIT_ERROR


class MissingError(StorageError):
    """The file does not exist."""

    exit_code = EXIT_ERROR


class DamagedError(StorageError):
    """The data that was read is not what was written. A retry does not help."""

    exit_code = EXIT_ERROR


class ReplicaLostError(TrainerError):
    """Another replica did not start, or did not return, within the patience."""

    exit_code = EXIT_RETRY


class PreemptedError(TrainerError):
    """SIGTERM was received: save a checkpoint and stop."""

    exit_code = EXIT_PREEMPTED
