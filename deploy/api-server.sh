#!/bin/sh
# Airflow's simple auth manager reads its passwords from a file: in memory, and readable by this container alone.
set -eu
umask 077
printf '%s' "$AIRFLOW_PASSWORDS" >/var/lib/airflow/passwords.json
unset AIRFLOW_PASSWORDS
exec airflow api-server --host 0.0.0.0 --port 8080
