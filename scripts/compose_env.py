"""``make compose-env``: the two files that docker-compose.yaml needs, made once, readable by their owner only.

``.env`` holds passwords, keys, ports and limits: docker compose reads it, and hands each service what it needs of it.
``mlengine.env`` holds what every service may know: where the bucket is and where jobs run. Neither is ever committed,
and neither is overwritten: what is there may be somebody's.

Needs nothing but Python, as the machine that runs the stack needs nothing but Docker.
"""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_SECRETS = """\
# Read by docker compose. Holds secrets: keep it to yourself, and back it up with the database, which is sealed with
# AIRFLOW_FERNET_KEY. docs/deploy.md names what else may stand here.

# local: Cloud Storage, emulator and MNIST on this machine. celery: workers of their own (AIRFLOW_EXECUTOR too).
COMPOSE_PROFILES=local
COMPOSE_PROJECT_NAME=mlengine
#AIRFLOW_EXECUTOR=CeleryExecutor

# Who may log in, as name:role (viewer, user, op, admin), and with which passwords.
AIRFLOW_USERS=admin:admin
AIRFLOW_PASSWORDS='{{"admin": "{password}"}}'

POSTGRES_PASSWORD={postgres}
REDIS_PASSWORD={redis}
AIRFLOW_FERNET_KEY={fernet}
AIRFLOW_SECRET_KEY={secret}
AIRFLOW_JWT_SECRET={jwt}

# On which address of this machine, and on which ports. Another address than loopback wants TLS before it.
BIND=127.0.0.1
AIRFLOW_PORT={airflow_port}
AIRFLOW_URL=http://localhost:{airflow_port}
TENSORBOARD_PORT={tensorboard_port}
GCS_PORT={gcs_port}
"""
_SETTINGS = """\
# What every service may know. Settings of mlengine go here under their own names: AIRFLOW__MLENGINE__<NAME>.

# This machine stands in for Google Cloud (profile local).
STORAGE_EMULATOR_HOST=http://gcs:9023
GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false
GOOGLE_CLOUD_PROJECT=local
AIRFLOW__MLENGINE__BUCKET=gs://mlengine
AIRFLOW__MLENGINE__BACKEND=vertex
AIRFLOW__MLENGINE__VERTEX_PROJECT=local
AIRFLOW__MLENGINE__VERTEX_REGION=europe-west1
AIRFLOW__MLENGINE__VERTEX_ENDPOINT=http://trainer:9000
AIRFLOW__MLENGINE__VERTEX_HTTP_HOSTS=trainer
AIRFLOW__MLENGINE__TENSORBOARD_URL=http://localhost:{tensorboard_port}
AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT='{{"conn_type": "mlengine", "extra": {{"is_anonymous": true, "project": "local"}}}}'

# The real Google Cloud: in place of all of the above (docs/deploy.md), and without `local` in COMPOSE_PROFILES.
#AIRFLOW__MLENGINE__BUCKET=gs://my-bucket
#AIRFLOW__MLENGINE__BACKEND=vertex
#AIRFLOW__MLENGINE__VERTEX_PROJECT=my-project
#AIRFLOW__MLENGINE__VERTEX_REGION=europe-west1
#AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT='{{"conn_type": "google_cloud_platform"}}'
"""


def write(folder: Path, ports: Mapping[str, int] | None = None) -> list[Path]:
    """Make the files that are not there; returns those that were made."""
    given = {"airflow_port": 8080, "tensorboard_port": 6006, "gcs_port": 9023, **(ports or {})}
    made = {
        "password": secrets.token_urlsafe(12),
        "postgres": secrets.token_hex(24),  # both stand in URLs
        "redis": secrets.token_hex(24),
        "fernet": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "secret": secrets.token_urlsafe(32),
        "jwt": secrets.token_urlsafe(48),
    }
    written = []
    for name, template in ((".env", _SECRETS), ("mlengine.env", _SETTINGS)):
        if _write_private(folder / name, template.format(**given, **made)):
            written.append(folder / name)
    return written


def _write_private(path: Path, text: str) -> bool:
    """Readable by its owner alone from the first byte on; ``False`` if it is there already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as sink:
        sink.write(text)
    return True


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Make .env and mlengine.env for docker compose, once.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT)
    written = write(parser.parse_args(argv).folder)
    for path in written:
        sys.stdout.write(f"made {path}, mode 600\n")
    if not written:
        sys.stdout.write("nothing made: .env and mlengine.env are there, and are kept\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
