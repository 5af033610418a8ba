"""The Airflow plugin. Airflow's plugin manager loads it through ``plugins/mlengine_plugin.py`` or an entry point."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from mlengine.links.job import JOB_LINKS
from mlengine.links.page import page_path
from mlengine.links.report import ReportLink
from mlengine.listeners import installation, job_cleanup, preload, run_notes, trigger_logs
from mlengine.timetables import DatasetVersionTimetable
from mlengine.web import PREFIX
from mlengine.web import app as page


class MlenginePlugin(AirflowPlugin):
    """Registers the parts of mlengine that Airflow cannot find through operators.

    These are links, web pages, the timetable that the scheduler deserializes, and the listeners for the end of a run,
    for the imports of the scheduler, and for the log files of the triggerer.
    """

    name = "mlengine"
    operator_extra_links = [*JOB_LINKS, ReportLink()]  # noqa: RUF012 as Airflow's base class declares it
    fastapi_apps = [{"app": page, "url_prefix": PREFIX, "name": "mlengine"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "Models & jobs",
            "href": page_path(),  # Airflow does not add the path of its base URL
            "destination": "nav",
            "category": "browse",
            "url_route": "mlengine",
        },
        {
            "name": "Training job",
            "href": page_path() + "?dag_id={DAG_ID}&run_id={RUN_ID}",
            "destination": "dag_run",
            "url_route": "mlengine-run",
        },
    ]
    timetables = [DatasetVersionTimetable]  # noqa: RUF012
    listeners = [job_cleanup, run_notes, preload, trigger_logs, installation]  # noqa: RUF012
