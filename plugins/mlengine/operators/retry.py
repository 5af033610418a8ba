"""Which failures of a stage Airflow tries again: those that say they may pass by themselves."""

from __future__ import annotations

from typing import Any

from airflow.sdk import RetryPolicy
from airflow.sdk.definitions.retry_policy import RetryDecision

from mlengine.core.errors import MlengineError


class RetryByCause(RetryPolicy):
    """A wrong job file, a missing bucket or a corrupt dataset fails at once, with its remedy as the last words.

    Anything else is left to the task's ``retries``. It is the default of every operator here; pass another
    ``retry_policy`` to replace it.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 Airflow's signature
        max_tries: int,  # noqa: ARG002
        context: Any = None,  # noqa: ARG002
    ) -> RetryDecision:
        if isinstance(exception, MlengineError) and not exception.retryable:
            return RetryDecision.fail(reason=exception.message)
        return RetryDecision.default()
