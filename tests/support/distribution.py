"""A pytest plugin that distributes tests over processes: ``make test`` runs ``pytest -n 3 --dist loadgroup``.

Tests of one module run in one process, in their order, so that module fixtures are created once. Modules that use an
expensive shared fixture form one group for the same reason. Long groups start first and unit tests last, so that no
process is idle at the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import pytest

# Fixtures that start Airflow or hold environments with TensorFlow, and the modules that use each.
GROUPS = {
    "live_airflow": ("e2e/live_airflow/*",),
    "stack": ("e2e/stack/*",),
    "pipelines": ("e2e/pipelines/*",),
    # These modules build the same two environments.
    "validation_state_dir": (
        "integration/test_validation",
        "integration/test_predict",
        "integration/test_own_model",
        "integration/test_any_model",
    ),
}
# Groups and modules that take longer than 10 s, the longest first. The other modules run after them, unit tests last.
LONGEST = (
    "live_airflow",
    "pipelines",
    "test_ray_cluster",
    "test_ray_nodes",
    "validation_state_dir",
    "test_trainer_corpus",
    "stack",
    "test_flights",
    "test_framework_examples",
    "test_vertex_stack",
    "test_ray_backend",
    "test_lineage",
    "test_emulator_clients",
    "test_examples",
    "test_emulator_ci",
    "test_packaging_projects",
    "test_packaging_git",
    "test_local_outcomes",
    "test_ml_engine_trainers",
    "test_job_tasks",
    "test_emulator_replica",
    "test_storage_faults",
    "test_vertex_endings",
    "test_submission",
    "test_vertex_walk",
    "test_vertex_backend",
    "test_local_environment",
    "test_local_crash",
    "test_failed_stack",
)


def own_airflow_home() -> None:
    """Give each worker process an Airflow home: Airflow writes its configuration into it when it is imported."""
    worker, home = os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("AIRFLOW_HOME")
    if worker and home:
        os.environ["AIRFLOW_HOME"] = f"{home}-{worker}"


own_airflow_home()


def group_of(nodeid: str) -> str:
    """The group of a test: the shared fixture of its module, or the module itself."""
    module = PurePosixPath(nodeid.partition("::")[0]).with_suffix("")
    return next((group for group, names in GROUPS.items() if any(module.match(name) for name in names)), str(module))


def rank(nodeid: str) -> int:
    """The position of the test's group in :data:`LONGEST`; after all of them if it is not listed."""
    group = group_of(nodeid)
    name = group.rpartition("/")[2]
    return LONGEST.index(name) if name in LONGEST else len(LONGEST) + group.startswith("tests/unit/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distribute groups. xdist's own ``loadgroup`` has no effect with pytest 9.2 (pytest-xdist issue 1386)."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):  # type: ignore[misc,unused-ignore]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log) if config.getoption("dist") == "loadgroup" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest groups first, in xdist's worker processes."""
    check_groups(items)
    if getattr(config.option, "loadgroup", False):
        items.sort(key=lambda item: rank(item.nodeid))


def check_groups(items: Iterable[pytest.Item]) -> None:
    """Check that each module that uses a fixture of :data:`GROUPS` is listed there.

    :raises pytest.UsageError: a module is not listed, so its tests would start a second Airflow.
    """
    for item in items:
        used = [name for name in GROUPS if name in getattr(item, "fixturenames", ())]
        if any(name != group_of(item.nodeid) for name in used):
            raise pytest.UsageError(f"{item.nodeid} uses {used}: list its module in {__name__}.GROUPS")
