"""The Airflow provider metadata of the installed package: settings, operators, links and the connection type."""

from __future__ import annotations

from typing import Any

from mlengine.hooks import form
from mlengine.settings import SETTINGS

_OPERATORS = ("package", "dataset", "prepare", "submit", "validate", "publish", "register")
_INTEGRATION = "mlengine"


def get_provider_info() -> dict[str, Any]:
    """The provider metadata, in the format of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "mlengine",
        "name": "mlengine",
        "description": "Retrain models on a schedule with distributed jobs, on this machine, on Ray and on Vertex AI.",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://cloud.google.com/vertex-ai/docs/training/overview",
                "tags": ["google", "gcp", "machine-learning"],
            }
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [f"mlengine.operators.{name}" for name in _OPERATORS],
            }
        ],
        "sensors": [{"integration-name": _INTEGRATION, "python-modules": ["mlengine.sensors.training_job"]}],
        "triggers": [{"integration-name": _INTEGRATION, "python-modules": ["mlengine.triggers.training_job"]}],
        "hooks": [{"integration-name": _INTEGRATION, "python-modules": ["mlengine.hooks.training"]}],
        "connection-types": [
            {
                "connection-type": form.CONNECTION_TYPE,
                "hook-class-name": form.HOOK,
                "hook-name": "mlengine (training jobs)",
                "ui-field-behaviour": form.BEHAVIOUR,
                "conn-fields": form.FIELDS,
            }
        ],
        "extra-links": [
            *(f"mlengine.links.job.{name}" for name in ("JobLink", "ConsoleLink", "TensorBoardLink", "ModelDirLink")),
            "mlengine.links.report.ReportLink",
        ],
        "config": {
            "mlengine": {
                "description": "Training jobs.",
                "options": {
                    setting.name: {
                        "description": setting.description,
                        "version_added": "0.1.0",
                        "type": setting.kind,
                        "example": None,
                        "default": setting.default,
                        **({"sensitive": True} if setting.sensitive else {}),
                    }
                    for setting in SETTINGS.values()
                },
            }
        },
    }
