"""A secrets backend for Airflow (``[secrets] backend``) with a single value."""

from __future__ import annotations

from airflow.secrets import BaseSecretsBackend


class OneSecret(BaseSecretsBackend):
    """A backend whose only value is ``ray/token``."""

    def get_config(self, key: str) -> str | None:
        return "of the backend" if key == "ray/token" else None
