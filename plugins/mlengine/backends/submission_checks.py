"""Checks of a submission that are common to the backends that run replicas themselves: ``local`` and ``ray``."""

from __future__ import annotations

from mlengine.backends import Submission
from mlengine.core.errors import BackendError
from mlengine.core.spec import Role


def check_submission(submission: Submission) -> None:
    """Check that the replicas of a submission can be run.

    :raises BackendError: the job has not exactly one chief, no package, or an invalid attempt.
    """
    spec = submission.spec
    if spec.count(Role.CHIEF) != 1:
        raise BackendError(
            f"{submission.job_id}: a job must have one chief, not {spec.count(Role.CHIEF)}", hint="correct the job file"
        )
    if not spec.package_uris:
        raise BackendError(
            f"{submission.job_id}: no package contains {spec.module}: packageUris is empty",
            hint="set packageUris in the job file, or package the trainer first",
        )
    if submission.attempt < 1:
        raise BackendError(f"{submission.job_id}: the first attempt is number 1, not {submission.attempt}")
