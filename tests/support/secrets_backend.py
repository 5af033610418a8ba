"""A secrets backend for Airflow, ``[secrets] backend``, with one value."""

from __future__ import annotations

from airflow.secrets import BaseSecretsBackend


class OneSecret(BaseSecretsBackend):
    """``ray/token`` is its only value."""

    def get_config(self, key: str) -> str | None:
        return "of the backend" if key == "ray/token" else None
