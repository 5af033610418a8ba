"""Fields for the trigger forms of retraining DAGs, as :class:`airflow.sdk.Param`.

Each field has a default, so runs from schedules, asset events and backfills need no input. The form, Airflow's API and
the first task of a run reject invalid values. A DAG passes the values to its task group as templates, such as
``{{ params.backend or '' }}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Param

from mlengine import backends
from mlengine.core.dataset import check_dataset_name
from mlengine.core.errors import MlengineError
from mlengine.core.job_file.tiers import TIERS
from mlengine.core.spec import Role
from mlengine.datasets.version_hints import known_versions

_BACKENDS = {"local": "This machine", "ray": "Ray cluster", "vertex": "Vertex AI"}
_ROLES = {Role.CHIEF: "chief", Role.WORKER: "worker", Role.PS: "parameter server", Role.EVALUATOR: "evaluator"}
_VERSION = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$"  # the same rule as in mlengine.core.dataset, for JSON Schema


def dataset_version(dataset: str, section: str = "") -> Param:
    """A field for the dataset version to train on. The form suggests the versions that are known on this machine.

    The field also accepts other versions, because a new version may not be known on this machine yet.

    :param dataset: the dataset's name.
    :param section: heading under which the form shows the field.
    :raises DatasetError: ``dataset`` is not a valid dataset name.
    """
    suggestions = known_versions(check_dataset_name(dataset))
    return Param(
        None,
        type=["null", "string"],
        title="Dataset version",
        description="For example 2026-11-01. If empty, the run's partition key is used, or else the newest version.",
        pattern=_VERSION,
        **_non_empty(examples=suggestions, section=section),
    )


def force_retrain(section: str = "") -> Param:
    """A field that forces a training even if a model with the same inputs was accepted before. Off by default.

    :param section: heading under which the form shows the field.
    """
    return Param(
        False,
        type="boolean",
        title="Force retraining",
        description="Train even if a model with the same package, dataset, arguments and cluster was accepted before.",
        **_non_empty(section=section),
    )


def backend(section: str = "") -> Param:
    """A field for the backend to train on. If it is empty, the setting ``[mlengine] backend`` is used.

    :param section: heading under which the form shows the field.
    """
    names = backends.names()
    return Param(
        None,
        type=["null", "string"],
        enum=[None, *names],
        values_display={"None": "Airflow's default", **{name: _BACKENDS.get(name, name) for name in names}},
        title="Backend",
        description="Where to train. Vertex AI needs a project and a region in the settings or the connection.",
        **_non_empty(section=section),
    )


def scale_tier(tiers: Sequence[str] = ("BASIC", "STANDARD_1", "PREMIUM_1"), section: str = "") -> Param:
    """A field for the cluster size, as one of ML Engine's scale tiers.

    If it is empty, the replica counts in other fields of the form are used.

    :param tiers: the names of the scale tiers that the form offers.
    :param section: heading under which the form shows the field.
    """
    return Param(
        None,
        type=["null", "string"],
        enum=[None, *tiers],
        values_display={"None": "Custom: use the counts below", **{name: _tier(name) for name in tiers}},
        title="Scale tier",
        description="Predefined cluster size. The local backend may run fewer replicas; the log of submit reports it.",
        **_non_empty(section=section),
    )


def _tier(name: str) -> str:
    """The label of a scale tier, with the number of replicas of each role.

    :raises MlengineError: there is no such tier with a fixed cluster.
    """
    if name not in TIERS:
        raise MlengineError(
            f"{name!r} is not a scale tier with a fixed cluster", hint=f"use one or more of {', '.join(TIERS)}"
        )
    parts = (f"{pool.count} {_ROLES[pool.role]}{'s' * (pool.count > 1)}" for pool in TIERS[name])
    return f"{name}: {', '.join(parts)}"


def _non_empty(**options: Any) -> dict[str, Any]:
    """The options that have a value. With empty ones, the form would show an empty section or list of suggestions."""
    return {name: value for name, value in options.items() if value}
