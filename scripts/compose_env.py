"""``make compose-env``: create the two files that docker-compose.yaml needs, readable only by their owner.

``.env`` has passwords, keys, ports and limits. Docker Compose reads it, and passes to each service only what it needs.
``mlengine.env`` has the settings of all services: the bucket, and the backend of jobs. Existing files are not
overwritten. Neither file may be committed.

This script uses only the standard library, because the machine that runs the stack needs only Docker.
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
# Read by docker compose. It has secrets: keep it private, and back it up together with the database, whose secrets are
# encrypted with AIRFLOW_FERNET_KEY. docs/deploy.md lists more variables.

# local: Cloud Storage, emulator and MNIST on this machine. celery: separate workers (set AIRFLOW_EXECUTOR too).
# ray: a Ray cluster on this machine (set the backend in mlengine.env too).
COMPOSE_PROFILES=local
COMPOSE_PROJECT_NAME=mlengine
#AIRFLOW_EXECUTOR=CeleryExecutor

# Users as name:role (viewer, user, op, admin), and their passwords.
AIRFLOW_USERS=admin:admin
AIRFLOW_PASSWORDS='{{"admin": "{password}"}}'

POSTGRES_PASSWORD={postgres}
REDIS_PASSWORD={redis}
AIRFLOW_FERNET_KEY={fernet}
AIRFLOW_SECRET_KEY={secret}
AIRFLOW_JWT_SECRET={jwt}

# Address and ports on this machine. Any other address than loopback needs a TLS proxy in front of it.
BIND=127.0.0.1
AIRFLOW_PORT={airflow_port}
AIRFLOW_URL=http://localhost:{airflow_port}
TENSORBOARD_PORT={tensorboard_port}
GCS_PORT={gcs_port}
"""
_SETTINGS = """\
# The settings of all services. Settings of mlengine are named AIRFLOW__MLENGINE__<NAME>.

# Emulators on this machine replace Google Cloud (profile local).
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

# Ray instead of Vertex AI: jobs run on the cluster of the profile ray, or on another one (docs/ray.md).
#AIRFLOW__MLENGINE__BACKEND=ray
#AIRFLOW__MLENGINE__RAY_ADDRESS=http://ray-head:8265
#AIRFLOW__MLENGINE__RAY_RESOURCES='{{"CPU": 1}}'

# Google Cloud: replace all of the above (docs/deploy.md), and remove `local` from COMPOSE_PROFILES.
#AIRFLOW__MLENGINE__BUCKET=gs://my-bucket
#AIRFLOW__MLENGINE__BACKEND=vertex
#AIRFLOW__MLENGINE__VERTEX_PROJECT=my-project
#AIRFLOW__MLENGINE__VERTEX_REGION=europe-west1
#AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT='{{"conn_type": "google_cloud_platform"}}'
"""


def write(folder: Path, ports: Mapping[str, int] | None = None) -> list[Path]:
    """Create the files that do not exist. Returns those that were created."""
    given = {"airflow_port": 8080, "tensorboard_port": 6006, "gcs_port": 9023, **(ports or {})}
    made = {
        "password": secrets.token_urlsafe(12),
        "postgres": secrets.token_hex(24),  # hexadecimal, because both are parts of URLs
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
    """Create a file that only its owner can read. Returns ``False`` if it already exists."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as sink:
        sink.write(text)
    return True


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Create .env and mlengine.env for docker compose.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT)
    written = write(parser.parse_args(argv).folder)
    for path in written:
        sys.stdout.write(f"created {path}, mode 600\n")
    if not written:
        sys.stdout.write("nothing created: .env and mlengine.env exist already\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
