#!/usr/bin/env bash
# apache-airflow-core 3.3.2: when a task defers a second time, the triggerer overwrites the log of the first deferral.
#
# The name of a trigger's log file consists of the task's try and the id of the triggerer. Both are the same for every
# deferral of one try. The file is opened for writing, not for appending. So a task that defers in a loop keeps only
# what its last trigger logged. The lines of the worker between the deferrals are kept. The DAG below runs in a real
# scheduler and triggerer.
#
# Output seen:   deferrals: 2
#                lines of the triggers in the task's log: ['from deferral 2']
#                lines of the worker: ['resumed after 1', 'resumed after 2']
set -euo pipefail
work=$(mktemp -d)
ids=()
trap 'for id in "${ids[@]}"; do kill "$id" 2>/dev/null || true; done; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2 \
    apache-airflow-providers-standard==1.21.0
mkdir "$work/dags"
cat > "$work/dags/twice.py" <<'PY'
import asyncio

from airflow.sdk import DAG, BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent


class Short(BaseTrigger):
    def __init__(self, number):
        super().__init__()
        self.number = number

    def serialize(self):
        return "twice.Short", {"number": self.number}

    async def run(self):
        self.log.info("from deferral %d", self.number)
        await asyncio.sleep(8)
        yield TriggerEvent(self.number)


class Twice(BaseOperator):
    def execute(self, context):
        self.defer(trigger=Short(1), method_name="resumed")

    def resumed(self, context, event):
        self.log.info("resumed after %d", event)
        if event == 1:
            self.defer(trigger=Short(2), method_name="resumed")


with DAG("twice", schedule=None, is_paused_upon_creation=False):
    Twice(task_id="wait")
PY
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export AIRFLOW_HOME="$work/airflow" PYTHONPATH="$work/dags" PATH="$work/venv/bin:$PATH"
export AIRFLOW__CORE__DAGS_FOLDER="$work/dags" AIRFLOW__CORE__LOAD_EXAMPLES=False
export AIRFLOW__CORE__EXECUTION_API_SERVER_URL="http://127.0.0.1:$port/execution/"
export AIRFLOW__API_AUTH__JWT_SECRET=a-secret-of-this-folder-that-is-long-enough-for-a-signature-of-512-bits
airflow db migrate > "$work/migrate.log" 2>&1
airflow api-server --port "$port" --host 127.0.0.1 > "$work/api.log" 2>&1 & ids+=($!)
airflow scheduler --skip-serve-logs > "$work/scheduler.log" 2>&1 & ids+=($!)
airflow triggerer --skip-serve-logs > "$work/triggerer.log" 2>&1 & ids+=($!)
airflow dag-processor > "$work/processor.log" 2>&1 & ids+=($!)
for _ in $(seq 120); do
    if airflow dags trigger twice --run-id once > "$work/trigger.log" 2>&1; then break; fi
    sleep 2
done
folder="$AIRFLOW_HOME/logs/dag_id=twice/run_id=once/task_id=wait"
for _ in $(seq 240); do
    if grep -qs "resumed after 2" "$folder/attempt=1.log"; then break; fi
    sleep 1
done
python3 - "$folder" <<'PY'
import glob
import json
import sys


def events(pattern):
    lines = [line for name in glob.glob(f"{sys.argv[1]}/{pattern}") for line in open(name)]
    found = [json.loads(line).get("event", "") for line in lines if line.startswith("{")]
    return [event for event in found if event.startswith(("from deferral", "resumed after"))]


worker, triggers = events("attempt=1.log"), events("attempt=1.log.trigger.*")
print(f"deferrals: {len(worker)}")
print(f"lines of the triggers in the task's log: {triggers}")
print(f"lines of the worker: {worker}")
if worker != ["resumed after 1", "resumed after 2"] or triggers != ["from deferral 2"]:
    raise SystemExit("changed: the log of the first deferral is kept")
PY
