"""What Airflow's plugin manager loads: from ``plugins/mlengine_plugin.py`` in a plugins folder, or by entry point."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from mlengine.links.job import JobLink
from mlengine.links.report import ReportLink
from mlengine.timetables import DatasetVersionTimetable


class MlenginePlugin(AirflowPlugin):
    """Registers what operators alone cannot: links, and the timetable, which the scheduler reads back."""

    name = "mlengine"
    operator_extra_links = [JobLink(), ReportLink()]  # noqa: RUF012 Airflow's own contract
    timetables = [DatasetVersionTimetable]  # noqa: RUF012
