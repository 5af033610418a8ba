"""DAGs with every kind of wait, for jobs that a test has submitted. The run's configuration identifies the job.

A ``late`` wait polls its job once, and then not for ten minutes: it does not see what happens in between.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from airflow.sdk import DAG, Context, task
from airflow.sdk.exceptions import AirflowFailException

from mlengine.operators.run_identity import job_key
from mlengine.operators.submit import SubmitTrainingJobOperator
from mlengine.sensors.training_job import TrainingJobSensor


def wait(dag_id: str, *, dagrun_timeout: timedelta | None = None, retries: int = 1, **options: Any) -> DAG:
    with DAG(dag_id, schedule=None, render_template_as_native_obj=True, dagrun_timeout=dagrun_timeout) as dag:
        TrainingJobSensor(
            task_id="wait",
            job="{{ dag_run.conf['job'] }}",
            backend_options="{{ dag_run.conf['options'] }}",
            gcp_conn_id="waits",
            retries=retries,
            retry_delay=timedelta(seconds=1),
            **options,
        )
    return dag


# A task's timeout must not pass before the task defers, even on a busy machine. The limit of a late wait must not pass
# before its job has finished; the "later" variants are for busy machines.
for suffix, poll, limit, run_limit in (("", 1.0, 10, 40), ("_late", 600.0, 45, 50), ("_later", 600.0, 240, 240)):
    wait(f"wait_plain{suffix}", poll_interval_seconds=poll)
    wait(
        f"wait_deadline{suffix}",
        poll_interval_seconds=poll,
        queued_timeout_seconds=5.0,
        running_timeout_seconds=float(limit),
    )
    wait(f"wait_limit{suffix}", poll_interval_seconds=poll, execution_timeout=timedelta(seconds=max(limit, 30)))
    wait(f"wait_dagtimeout{suffix}", poll_interval_seconds=poll, dagrun_timeout=timedelta(seconds=run_limit))
wait("wait_dagtimeout_slow", poll_interval_seconds=1.0, dagrun_timeout=timedelta(seconds=240))
# The DAG must be paused before the limit passes; the "later" variants are for busy machines.
for suffix, limit in (("", 30), ("_later", 150)):
    wait(
        f"wait_paused_deadline{suffix}",
        poll_interval_seconds=1.0,
        queued_timeout_seconds=5.0,
        running_timeout_seconds=float(limit),
    )
    wait(f"wait_paused_limit{suffix}", poll_interval_seconds=1.0, execution_timeout=timedelta(seconds=limit))
with DAG("wait_gap", schedule=None, render_template_as_native_obj=True):
    submit = SubmitTrainingJobOperator(
        task_id="submit",
        job="{{ dag_run.conf['dir'] }}",
        job_file="{{ dag_run.conf['job_file'] }}",
        backend="local",
        backend_options="{{ dag_run.conf['options'] }}",
        gcp_conn_id="waits",
    )

    @task
    def hold() -> None:
        """Keeps the run between submission and wait."""
        time.sleep(600)

    wait_later = TrainingJobSensor(task_id="wait", job=submit.output, gcp_conn_id="waits")
    submit >> hold() >> wait_later

for name, pause in (("wait_keys", 60), ("wait_keys_soon", 5)):
    with DAG(name, schedule=None):

        @task(retries=2, retry_delay=timedelta(seconds=pause))
        def keys(**context: Any) -> None:
            """Record the key of each try.

            The run's configuration determines how the first try ends, or that it does not end.
            """
            conf = context["dag_run"].conf
            with Path(conf["file"]).open("a") as notes:
                notes.write(f"{job_key(cast(Context, context)).generation}\n")
            then = conf["then"] if context["ti"].try_number == 1 else "success"
            if then == "running":
                time.sleep(600)
            if then == "up_for_retry":
                raise RuntimeError("try again")
            if then == "failed":
                raise AirflowFailException("not again")

        keys()

with DAG("wait_retry", schedule=None):

    @task(retries=2, retry_delay=timedelta(seconds=1))
    def again(**context: Any) -> None:
        """Record the key of each try, and succeed with the third."""
        with Path(context["dag_run"].conf["file"]).open("a") as notes:
            notes.write(f"{job_key(cast(Context, context)).generation}\n")
        if context["ti"].try_number < 3:
            raise RuntimeError("try again")

    again()

for mode in ("poke", "reschedule"):
    seconds = 1.0 if mode == "poke" else 3.0
    wait(f"wait_{mode}", poll_interval_seconds=seconds, deferrable=False, mode=mode)
    wait(
        f"wait_{mode}_deadline",
        poll_interval_seconds=seconds,
        deferrable=False,
        mode=mode,
        queued_timeout_seconds=5.0,
        running_timeout_seconds=5.0,
    )
wait(
    "wait_poke_limit", poll_interval_seconds=1.0, deferrable=False, mode="poke", execution_timeout=timedelta(seconds=8)
)


with wait("wait_and_other", poll_interval_seconds=3.0, deferrable=False, mode="reschedule"):

    @task.sensor(task_id="other", mode="reschedule", poke_interval=600.0)
    def other() -> bool:
        """Keeps the run active, regardless of the state of the wait."""
        return False

    other()


def note_processes(context: Any) -> None:
    """Record the PIDs of the task's process and of its worker."""
    notes = Path(context["dag_run"].conf["pids"])
    partial = notes.with_suffix(".part")
    partial.write_text(f"{os.getpid()} {os.getppid()}")
    partial.rename(notes)


wait(
    "wait_last_try",
    retries=0,
    poll_interval_seconds=1.0,
    deferrable=False,
    mode="poke",
    on_execute_callback=note_processes,
)

# Between two polls no process of Airflow is attached to the run, so that its DAG can be deleted.
for name in ("wait_gone", "wait_stays"):
    with DAG(name, schedule=None, render_template_as_native_obj=True):
        trained = SubmitTrainingJobOperator(
            task_id="submit",
            job="{{ dag_run.conf['dir'] }}",
            job_file="{{ dag_run.conf['job_file'] }}",
            backend="local",
            backend_options="{{ dag_run.conf['options'] }}",
            gcp_conn_id="waits",
        )
        TrainingJobSensor(
            task_id="wait",
            job=trained.output,
            backend_options="{{ dag_run.conf['options'] }}",
            gcp_conn_id="waits",
            deferrable=False,
            mode="reschedule",
            poll_interval_seconds=600.0,
        )
