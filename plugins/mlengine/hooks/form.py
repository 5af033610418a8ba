"""The form of the connection type ``mlengine``, as provider metadata: data that every process reads."""

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
        return _text(label, setting.description)
    kind = {"integer": "integer", "float": "number"}[setting.kind]
    description = f"{setting.description} Empty: as in Airflow's configuration."
    return {
        "label": label,
        "description": description,
        "schema": {"type": [kind, "null"], "minimum": setting.minimum},
    }


# What the form shows, by the name in the connection's extra.
FIELDS: dict[str, dict[str, Any]] = {
    "project": _text("Project", "The Google Cloud project of the jobs."),
    "region": _text("Region", "Of jobs whose job file names none, e.g. europe-west1."),
    "key_path": _text("Key file", "Its path where Airflow runs. Without any key: application default credentials."),
    "keyfile_dict": _text("Key as JSON", format="password"),
    "key_secret_name": _text("Key's name in Secret Manager"),
    "key_secret_project_id": _text("Project of that secret"),
    "impersonation_chain": _text("Impersonated service account", "Or a chain of them, separated by commas."),
    "quota_project_id": _text("Project of the quota"),
    "is_anonymous": {
        "label": "Anonymous",
        "description": "Without credentials, for servers that ask for none; all other credentials are ignored.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
    **{
        setting.extra[0]: _of_setting(setting)
        for setting in SETTINGS.values()
        if setting.extra and setting.extra[0] not in {"project", "region"}
    },
}
# Airflow's own fields mean nothing here.
BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["host", "schema", "login", "password", "port", "extra"],
    "relabeling": {},
    "placeholders": {},
}
