#!/usr/bin/env bash
# apache-airflow-core 3.3.2: the listener hook on_starting gets a Job that does not know yet which component it is.
#
# The hook's argument is documented as the component that starts, such as a scheduler. Airflow calls the hook in the
# constructor of Job, and the runner sets job_type afterwards. So a listener that compares the type with "SchedulerJob"
# never finds a scheduler.
#
# Output seen:   job_type in on_starting: None
#                job_type after the start: SchedulerJob
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2 \
    apache-airflow-providers-standard==1.21.0
mkdir -p "$work/airflow/plugins"
cat > "$work/airflow/plugins/starts.py" <<'PY'
from types import ModuleType

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


@hookimpl
def on_starting(component):
    print(f"job_type in on_starting: {component.job_type}")


listener = ModuleType("listener")
listener.on_starting = on_starting


class Starts(AirflowPlugin):
    name = "starts"
    listeners = [listener]
PY
cat > "$work/start.py" <<'PY'
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

runner = SchedulerJobRunner(job=Job())  # as the command `airflow scheduler` does
print(f"job_type after the start: {runner.job.job_type}")
PY
export AIRFLOW_HOME="$work/airflow" AIRFLOW__CORE__LOAD_EXAMPLES=False
"$work/venv/bin/python" "$work/start.py" 2> "$work/errors" | grep "^job_type" | tee "$work/out" || cat "$work/errors"
if [[ $(cat "$work/out") != $'job_type in on_starting: None\njob_type after the start: SchedulerJob' ]]; then
    echo "changed: the listener learns which component starts" >&2
    exit 1
fi
