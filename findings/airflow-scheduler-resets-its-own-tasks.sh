#!/usr/bin/env bash
# apache-airflow-core 3.3.2 with SQLite: a scheduler that waits for the database for longer than its health check allows
# resets its own running tasks, although it has just reported that it is alive.
#
# A scheduler marks each scheduler whose last heartbeat is older than `scheduler_health_check_threshold` (30 s) as
# failed, itself included, and resets its tasks. A heartbeat stores the time at which it was begun, not the time at which
# the database took it. If the commit waits for 45 s, the new heartbeat is 45 s old when it is stored, and the check of
# orphaned tasks that follows finds the scheduler dead. The running try is killed and a further one begins, also of a
# task without retries. Below, another process holds the lock of the database, and SQLite's timeout is 100 s.
#
# Output seen:   before: try 1 of a task without retries is running; 45 s later: try 2
#                scheduler: Marked 1 SchedulerJob instances as failed
#                scheduler: Reset the following 1 orphaned TaskInstances:
set -euo pipefail
work=$(mktemp -d)
ids=()
trap 'for id in "${ids[@]}"; do kill "$id" 2>/dev/null || true; done; wait; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q apache-airflow-core==3.3.2 apache-airflow-task-sdk==1.3.2 \
    apache-airflow-providers-standard==1.21.0
mkdir "$work/dags"
cat > "$work/dags/long.py" <<'PY'
import time

from airflow.sdk import DAG, task

with DAG("long", schedule=None, is_paused_upon_creation=False):

    @task(retries=0)
    def train():
        time.sleep(600)

    train()
PY
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export AIRFLOW_HOME="$work/airflow" PATH="$work/venv/bin:$PATH"
export AIRFLOW__CORE__DAGS_FOLDER="$work/dags" AIRFLOW__CORE__LOAD_EXAMPLES=False
export AIRFLOW__CORE__EXECUTION_API_SERVER_URL="http://127.0.0.1:$port/execution/"
export AIRFLOW__API_AUTH__JWT_SECRET=a-secret-of-this-folder-that-is-long-enough-for-a-signature-of-512-bits
export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="sqlite:///$work/airflow/airflow.db?timeout=100"
export AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL=10
airflow db migrate > "$work/migrate.log" 2>&1
airflow api-server --port "$port" --host 127.0.0.1 > "$work/api.log" 2>&1 & ids+=($!)
airflow scheduler --skip-serve-logs > "$work/scheduler.log" 2>&1 & ids+=($!)
airflow dag-processor > "$work/processor.log" 2>&1 & ids+=($!)
for _ in $(seq 120); do
    if airflow dags trigger long --run-id once > "$work/trigger.log" 2>&1; then break; fi
    sleep 2
done
python3 - "$work/airflow/airflow.db" "$work/scheduler.log" <<'PY'
import sqlite3
import sys
import time

database, log = sys.argv[1:]


def current():
    with sqlite3.connect(database, timeout=100) as connection:
        rows = connection.execute("select try_number, state from task_instance where run_id = 'once'").fetchall()
    return rows[0] if rows else (0, None)


def until(condition):
    limit = time.monotonic() + 240
    while not condition() and time.monotonic() < limit:
        time.sleep(1)


until(lambda: current() == (1, "running"))
before = current()
time.sleep(5)
lock = sqlite3.connect(database, timeout=100, isolation_level=None)
lock.execute("BEGIN IMMEDIATE")
time.sleep(45)
lock.execute("COMMIT")
lock.close()
until(lambda: current()[0] > 1)
after = current()
print(f"before: try {before[0]} of a task without retries is {before[1]}; 45 s later: try {after[0]}")
said = [line for line in open(log) if "Marked 1 SchedulerJob" in line or "Reset the following" in line]
for line in said:
    print("scheduler:", line.split("]", 1)[1].split("[")[0].strip())
if before != (1, "running") or after[0] != 2 or len(said) != 2:
    raise SystemExit("changed: a scheduler does not reset the tasks that it runs itself")
PY
