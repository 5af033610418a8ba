#!/usr/bin/env bash
# apache-airflow-core 3.3.2: with remote logging, a triggerer that is stopped does not upload the logs of the triggers
# that still run.
#
# Airflow uploads the log of a trigger when the trigger ends. If the triggerer stops in an orderly way before, for
# example because its machine is replaced, the next triggerer continues the trigger and writes a file of its own, whose
# name has the id of that triggerer. Only that file is uploaded. The lines until the restart exist only on the disk of
# the first triggerer. Below, the remote log is a folder, by Airflow's documented interface.
#
# Output seen:   on the disk of the first triggerer: ['before the restart']
#                uploaded: ['after the restart']
set -euo pipefail
work=$(mktemp -d)
ids=()
trap 'for id in "${ids[@]}"; do kill "$id" 2>/dev/null || true; done; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2 \
    apache-airflow-providers-standard==1.21.0
mkdir "$work/dags" "$work/remote"
cat > "$work/dags/folder_logs.py" <<'PY'
import os
import shutil
from pathlib import Path

from airflow.config_templates.airflow_local_settings import DEFAULT_LOGGING_CONFIG as LOGGING_CONFIG

LOCAL, REMOTE = Path(os.environ["AIRFLOW_HOME"], "logs"), Path(os.environ["REMOTE_LOGS"])


class FolderLogs:
    processors = ()

    def upload(self, path, ti=None):
        (REMOTE / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(LOCAL / path, REMOTE / path)

    def read(self, relative_path, ti):
        return [], None


REMOTE_TASK_LOG = FolderLogs()
DEFAULT_REMOTE_CONN_ID = None
PY
cat > "$work/dags/long.py" <<'PY'
import asyncio
import os
from pathlib import Path

from airflow.sdk import DAG, BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

FOLDER = Path(os.environ["REMOTE_LOGS"]).parent


class Long(BaseTrigger):
    def serialize(self):
        return "long.Long", {}

    async def run(self):
        if not (FOLDER / "begun").exists():
            self.log.info("before the restart")
            (FOLDER / "begun").touch()
            await asyncio.sleep(3600)
        self.log.info("after the restart")
        yield TriggerEvent("done")


class Wait(BaseOperator):
    def execute(self, context):
        self.defer(trigger=Long(), method_name="resumed")

    def resumed(self, context, event):
        self.log.info("resumed")


with DAG("long", schedule=None, is_paused_upon_creation=False):
    Wait(task_id="wait")
PY
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export AIRFLOW_HOME="$work/airflow" PYTHONPATH="$work/dags" PATH="$work/venv/bin:$PATH" REMOTE_LOGS="$work/remote"
export AIRFLOW__CORE__DAGS_FOLDER="$work/dags" AIRFLOW__CORE__LOAD_EXAMPLES=False
export AIRFLOW__CORE__EXECUTION_API_SERVER_URL="http://127.0.0.1:$port/execution/"
export AIRFLOW__API_AUTH__JWT_SECRET=a-secret-of-this-folder-that-is-long-enough-for-a-signature-of-512-bits
export AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS=folder_logs.LOGGING_CONFIG
airflow db migrate > "$work/migrate.log" 2>&1
airflow api-server --port "$port" --host 127.0.0.1 > "$work/api.log" 2>&1 & ids+=($!)
airflow scheduler --skip-serve-logs > "$work/scheduler.log" 2>&1 & ids+=($!)
airflow dag-processor > "$work/processor.log" 2>&1 & ids+=($!)
airflow triggerer --skip-serve-logs > "$work/triggerer1.log" 2>&1 &
first=$!
for _ in $(seq 120); do
    if airflow dags trigger long --run-id once > "$work/trigger.log" 2>&1; then break; fi
    sleep 2
done
for _ in $(seq 240); do
    if [ -e "$work/begun" ]; then break; fi
    sleep 1
done
sleep 5
kill -TERM "$first"
wait "$first" || true
airflow triggerer --skip-serve-logs > "$work/triggerer2.log" 2>&1 & ids+=($!)
folder="dag_id=long/run_id=once/task_id=wait"
for _ in $(seq 240); do
    if grep -qs '"resumed"' "$work/remote/$folder/attempt=1.log"; then break; fi
    sleep 1
done
python3 - "$AIRFLOW_HOME/logs/$folder" "$work/remote/$folder" <<'PY'
import glob
import json
import sys


def events(folder):
    lines = [line for name in sorted(glob.glob(f"{folder}/*.trigger.*")) for line in open(name)]
    return [event for line in lines if (event := json.loads(line)["event"]).endswith("the restart")]


local, remote = (events(folder) for folder in sys.argv[1:])
print(f"on the disk of the first triggerer: {local[:1]}")
print(f"uploaded: {remote}")
if local != ["before the restart", "after the restart"] or remote != ["after the restart"]:
    raise SystemExit("changed: a triggerer that stops uploads the logs of its triggers")
PY
