"""The base classes of the operators: credentials, settings, results of earlier tasks, retries.

:class:`MlengineOperator` is the base of every operator, and :class:`BackendOperator` of those that talk to a training
backend. The sensor has the same bases.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import DAG, Context, RetryPolicy
from airflow.sdk.definitions.retry_policy import RetryDecision

from mlengine import settings
from mlengine.connections import CloudAccess, resolve_connection
from mlengine.core.errors import MlengineError, XComMissingError
from mlengine.core.job import ACCESS_KEY
from mlengine.operators._rendering import TextRendering, is_template
from mlengine.operators.lineage import tasks as lineage

if TYPE_CHECKING:
    from mlengine.operators.lineage.tasks import Lineage

_CLEAR = (
    "clear the task that returns it, so that it runs; a task that was skipped, or manually marked as successful, "
    "returns nothing"
)
_OTHER_TASK = "pass the output of the task that the documentation of {} names"
_LONGEST = 500  # the limit of a message that quotes a value, in characters
# Options of backends that may contain secrets. They are not needed to find a job.
_SECRET_OPTIONS = frozenset({"token", "headers", "env", "raw"})


@dataclass(frozen=True)
class RetryByCause(RetryPolicy):
    """Fails the task without a retry if a retry cannot help: an invalid job file, a missing bucket, a corrupt dataset.

    For other errors, the task's ``retries`` apply. This policy is the default of all operators of mlengine; pass
    another ``retry_policy``, or ``None``, to replace it.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 Airflow's signature
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Fail for errors that are not retryable; otherwise apply the task's retries."""
        if isinstance(exception, MlengineError) and not exception.retryable:
            return RetryDecision.fail(reason=exception.message)
        return RetryDecision.default()


_RETRY_BY_CAUSE = RetryByCause()


class MlengineOperator(TextRendering):
    """Base of the operators.

    An argument that is not given has the value of its setting (:mod:`mlengine.settings`), so that a DAG's
    ``default_args`` apply.

    :param gcp_conn_id: Airflow connection whose credentials are used; the setting ``[mlengine] gcp_conn_id`` if empty,
        and the application default credentials if ``None``.
    :param impersonation_chain: service account to impersonate, or a chain of them of which each may impersonate the
        next one, as in Google's operators.
    :param retry_policy: decides whether a failed task is retried; by default :class:`RetryByCause`.
    """

    template_fields: Sequence[str] = ("gcp_conn_id", "impersonation_chain")
    # Functions that parse arguments, by the names of the arguments. See `check_literals`.
    parsers: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}
    # Set by ``execute``: a function that returns what the task has read and written.
    _lineage: Callable[[], Lineage] | None = None

    def __init__(
        self,
        *,
        gcp_conn_id: str | None = "",
        impersonation_chain: str | Sequence[str] | None = None,
        # Airflow takes a mapped task's retry policy from this signature, before it creates the operator.
        retry_policy: RetryPolicy | None = _RETRY_BY_CAUSE,
        **kwargs: Any,
    ) -> None:
        super().__init__(retry_policy=retry_policy, **kwargs)
        self.gcp_conn_id = gcp_conn_id
        self.impersonation_chain = impersonation_chain

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """The first half of ``partial(…).expand(…)``, as for every operator."""
        made = super().partial(**kwargs)
        _check_literals(cls.parsers, made.kwargs, made.kwargs["task_id"], made.kwargs.get("dag"))
        return made

    def check_literals(self) -> None:
        """Parse the arguments that are not templates, when the DAG file is parsed.

        An invalid argument is then an error of the DAG file, and not of a task that runs after the training.

        :raises MlengineError: an argument is invalid; the message names the task.
        """
        if not getattr(self, "_BaseOperator__from_mapped", False):  # the task runs, and parses the arguments itself
            dag = self.dag if self.has_dag() else None  # type: ignore[no-untyped-call]
            _check_literals(self.parsers, vars(self), self.task_id, dag)

    def parsed(self, field: str) -> Any:
        """The parsed value of an argument.

        :raises MlengineError: the value is invalid.
        :raises XComMissingError: see :meth:`given`.
        """
        self.given(field)
        return self.parsers[field](getattr(self, field))

    @property
    def access(self) -> CloudAccess:
        """The credentials and settings of this task."""
        return CloudAccess(self.gcp_conn_id, self.impersonation_chain)

    def after_rendering(self) -> None:
        """Resolve the connection, so that the rendered fields contain it.

        The listener that cancels orphaned jobs reads it there.
        """
        self.gcp_conn_id = resolve_connection(self.gcp_conn_id)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Lineage:  # noqa: ARG002 the provider's
        """The data that the task read and wrote, for Airflow's OpenLineage provider, even after a failure or a skip."""
        return self._lineage() if self._lineage else lineage.no_lineage()

    def given(self, field: str) -> Any:
        """The value of an argument that may be or contain an earlier task's output; ``None`` if it was not given.

        :raises XComMissingError: the argument is or contains a task's output, and that task returned nothing.
        """
        if tasks := self._missing_xcoms.get(field):
            raise XComMissingError(
                f"{self.task_id} has no {field}: {', '.join(map(repr, tasks))} returned nothing", hint=_CLEAR
            )
        value = getattr(self, field)
        return value if settings.is_given(value) else None

    def returned(self, field: str, *keys: str) -> dict[str, Any]:
        """The output of an earlier task.

        :param field: the argument of this operator.
        :param keys: the keys that the output must have.
        :raises XComMissingError: there is no output, or it is that of another kind of task.
        """
        value = self.given(field)
        if value is None:
            raise XComMissingError(f"{self.task_id} has no {field}", hint=_CLEAR)
        if not isinstance(value, Mapping):
            raise XComMissingError(
                f"{self.task_id}: {field} must be a mapping, not {value!r}"[:_LONGEST], hint=_OTHER_TASK.format(field)
            )
        if missing := [key for key in keys if key not in value]:
            raise XComMissingError(
                f"{self.task_id}: {field} has no {', '.join(missing)}: {value!r}"[:_LONGEST],
                hint=_OTHER_TASK.format(field),
            )
        return dict(value)

    def returned_or_none(self, field: str, *keys: str) -> dict[str, Any] | None:
        """The output of an earlier task, for an optional argument."""
        return None if self.given(field) is None else self.returned(field, *keys)

    def returned_or_uri(self, field: str, *keys: str) -> dict[str, Any] | str:
        """The output of an earlier task, for an argument that may also be a ``gs://`` URI."""
        value = self.given(field)
        return value if isinstance(value, str) else self.returned(field, *keys)

    def relative_to_dag(self, path: str | Path) -> str | Path:
        """Resolve ``path`` relative to the folder of the DAG's file.

        Absolute paths and ``gs://`` URIs are unchanged.
        """
        if isinstance(path, str) and path.startswith("gs://"):
            return path
        fileloc = getattr(self.dag, "fileloc", None) if self.has_dag() else None  # type: ignore[no-untyped-call]
        return Path(fileloc).parent / path if fileloc else Path(path)


def _check_literals(
    parsers: Mapping[str, Callable[[Any], Any]], values: Mapping[str, Any], task_id: str, dag: DAG | None
) -> None:
    if dag is not None and dag.jinja_environment_kwargs:
        return  # the DAG's templates may have other delimiters
    for name, parse in parsers.items():
        if name in values and not is_template(values[name]):
            try:
                parse(values[name])
            except MlengineError as error:
                raise type(error)(f"task {task_id}: {error.message}", hint=error.hint) from error


class BackendOperator(MlengineOperator):
    """Base of the operators that talk to a training backend.

    :param project_id: Google Cloud project of the job; the setting ``[mlengine] vertex_project`` if empty.
    :param region: region of the job; it has precedence over the job file's. By default the setting ``[mlengine]
        vertex_region``. The local backend has neither project nor region.
    :param backend_options: keyword arguments of the backend.
    """

    template_fields: Sequence[str] = (*MlengineOperator.template_fields, "project_id", "region", "backend_options")

    def __init__(
        self,
        *,
        project_id: str | None = None,
        region: str | None = None,
        backend_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.project_id = project_id
        self.region = region
        self.backend_options = backend_options

    def keep_access(self, context: Context, **more: Any) -> None:
        """Store the fields by which this task accesses its job, for the listener that cancels orphaned jobs.

        They are kept in the task's state store. Options that may contain secrets are left out.

        :param more: further fields.
        """
        from airflow.sdk.exceptions import AirflowRuntimeError
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        store = context.get("task_state_store")
        if store is None:
            return
        options = {name: value for name, value in self.access.options.items() if name not in _SECRET_OPTIONS}
        fields = {name: getattr(self, name) for name in BackendOperator.template_fields}
        kept = json.loads(json.dumps({**fields, "backend_options": options, **more}, default=str))
        try:
            store.set(ACCESS_KEY, kept, retention=NEVER_EXPIRE)
        except AirflowRuntimeError as error:
            self.log.warning(
                "Could not store the settings for accessing the job; if it is orphaned, run `mlengine jobs reap`: %s",
                error,
            )

    @property
    def access(self) -> CloudAccess:
        """The credentials, settings and location of this task."""
        return CloudAccess(
            self.gcp_conn_id,
            self.impersonation_chain,
            self.project_id,
            self.region,
            self.backend_options,
        )
