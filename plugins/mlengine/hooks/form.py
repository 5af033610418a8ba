"""The form of the connection type ``mlengine``, as provider metadata.

Every Airflow process reads this metadata, so this module contains only plain data.
"""

from __future__ import annotations

from typing import Any

from mlengine.settings import SETTINGS, Setting

CONNECTION_TYPE = "mlengine"
HOOK = "mlengine.hooks.training.TrainingHook"


def _text(label: str, description: str = "", **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["string", "null"], **schema}}


def _of_setting(setting: Setting) -> dict[str, Any]:
    label = setting.name.replace("_", " ").capitalize()
    if setting.kind == "string":
        return _text(label, setting.description, **({"format": "password"} if setting.sensitive else {}))
    kind = {"integer": "integer", "float": "number"}[setting.kind]
    description = f"{setting.description} If empty, Airflow's configuration applies."
    return {
        "label": label,
        "description": description,
        "schema": {"type": [kind, "null"], "minimum": setting.minimum},
    }


# The form's fields, by their keys in the connection's extra.
FIELDS: dict[str, dict[str, Any]] = {
    "project": _text("Project", "Google Cloud project in which jobs run."),
    "region": _text("Region", "Region of jobs whose job file names none, for example europe-west1."),
    "key_path": _text(
        "Key file path",
        "Path of a service account key on the machines that run Airflow. "
        "Without any key, application default credentials are used.",
    ),
    "keyfile_dict": _text("Key JSON", "Content of a service account key.", format="password"),
    "key_secret_name": _text("Secret Manager key name", "Secret that contains the service account key."),
    "key_secret_project_id": _text("Secret Manager project", "Google Cloud project of the secret."),
    "impersonation_chain": _text(
        "Impersonation chain", "Service account to impersonate, or several, separated by commas."
    ),
    "quota_project_id": _text("Quota project", "Google Cloud project that API calls are billed to."),
    "is_anonymous": {
        "label": "Anonymous credentials",
        "description": "Send no credentials, for servers that need none, such as an emulator. All keys are ignored.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
    **{
        setting.extra[0]: _of_setting(setting)
        for setting in SETTINGS.values()
        if setting.extra and setting.extra[0] not in {"project", "region"}
    },
}
# Airflow's standard fields are not used.
BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["host", "schema", "login", "password", "port", "extra"],
    "relabeling": {},
    "placeholders": {},
}
