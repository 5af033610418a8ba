"""Fields that the trigger forms of retraining DAGs have in common, as :class:`airflow.sdk.Param`.

Each has a default that trains, so that schedules, asset events and backfills need no form. A wrong value is refused by
the form, by Airflow's API, and once more by the first task of the run. The pipeline reads them as templates
(``{{ params.backend or '' }}``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Param

from mlengine import backends
from mlengine.core.job_file.tiers import TIERS
from mlengine.core.spec import Role
from mlengine.datasets.version_hints import known_versions

_BACKENDS = {"local": "This machine: real processes", "vertex": "Vertex AI"}
_ROLES = {Role.CHIEF: "chief", Role.WORKER: "worker", Role.PS: "parameter server", Role.EVALUATOR: "evaluator"}
_VERSION = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$"  # as mlengine.core.dataset has it, in JSON Schema's words


def dataset_version(dataset: str, section: str = "") -> Param:
    """Which version of ``dataset``: those this machine knows of are proposed, and any other may be written.

    A choice among a fixed list would refuse a version that was registered a moment ago.

    :param dataset: the dataset's name.
    :param section: heading under which the form shows the field.
    """
    proposed = known_versions(dataset)
    return Param(
        None,
        type=["null", "string"],
        title="Dataset version",
        description="Such as 2026-11-01. Empty: the run's partition key, or else the newest.",
        pattern=_VERSION,
        **_given(examples=proposed, section=section),
    )


def force_retrain(section: str = "") -> Param:
    """Whether to train although a job with the same inputs was accepted before; by default not.

    :param section: heading under which the form shows the field.
    """
    return Param(
        False,
        type="boolean",
        title="Train again",
        description="Even if a model of the same package, data, arguments and cluster was accepted before.",
        **_given(section=section),
    )


def backend(section: str = "") -> Param:
    """Where to train; empty: as ``[mlengine] backend`` says.

    :param section: heading under which the form shows the field.
    """
    names = backends.names()
    return Param(
        None,
        type=["null", "string"],
        enum=[None, *names],
        values_display={"None": "As this Airflow is set up", **{name: _BACKENDS.get(name, name) for name in names}},
        title="Where",
        description="The same job file trains in either place; Vertex AI needs a project and a region in the settings.",
        **_given(section=section),
    )


def scale_tier(tiers: Sequence[str] = ("BASIC", "STANDARD_1", "PREMIUM_1"), section: str = "") -> Param:
    """The cluster's size by ML Engine's names; empty: by the numbers in the form's other fields.

    :param tiers: the names that the form offers.
    :param section: heading under which the form shows the field.
    """
    return Param(
        None,
        type=["null", "string"],
        enum=[None, *tiers],
        values_display={"None": "By number, as written below", **{name: _tier(name) for name in tiers}},
        title="Scale tier",
        description="A ready-made cluster. This machine may run fewer of them at once; the log of submit says so.",
        **_given(section=section),
    )


def _tier(name: str) -> str:
    parts = (f"{pool.count} {_ROLES[pool.role]}{'s' * (pool.count > 1)}" for pool in TIERS[name])
    return f"{name}: {', '.join(parts)}"


def _given(**words: Any) -> dict[str, Any]:
    """Those that say anything: the form shows an empty section, and an empty list of proposals, as such."""
    return {name: word for name, word in words.items() if word}
