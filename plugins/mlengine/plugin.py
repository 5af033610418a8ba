"""The plugin for Airflow's plugin manager, which loads it from ``plugins/mlengine_plugin.py`` or by entry point."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from mlengine.links.job import JOB_LINKS
from mlengine.links.report import ReportLink
from mlengine.listeners import job_cleanup, preload, run_notes, trigger_logs
from mlengine.timetables import DatasetVersionTimetable
from mlengine.web import PREFIX
from mlengine.web import app as page


class MlenginePlugin(AirflowPlugin):
    """Registers everything that Airflow cannot find through operators.

    These are links, web pages, the timetable that the scheduler deserializes, and listeners: for the end of a run, for
    the modules that the scheduler imports before it starts tasks, and for the triggerer's log files.
    """

    name = "mlengine"
    operator_extra_links = [*JOB_LINKS, ReportLink()]  # noqa: RUF012 Airflow's own contract
    fastapi_apps = [{"app": page, "url_prefix": PREFIX, "name": "mlengine"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "Models & jobs",
            "href": f"{PREFIX}/page",
            "destination": "nav",
            "category": "browse",
            "url_route": "mlengine",
        },
        {
            "name": "Training job",
            "href": PREFIX + "/page?dag_id={DAG_ID}&run_id={RUN_ID}",
            "destination": "dag_run",
            "url_route": "mlengine-run",
        },
    ]
    timetables = [DatasetVersionTimetable]  # noqa: RUF012
    listeners = [job_cleanup, run_notes, preload, trigger_logs]  # noqa: RUF012
