"""DAGs that publish models whose names are known only at run time, and one that follows such a model."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, CronPartitionTimetable, Param, get_current_context, task

from mlengine.assets import champion_asset, champions_alias
from mlengine.core.xcoms import PublicationXCom
from mlengine.operators.publish import PublishModelOperator
from mlengine.task_groups import RetrainingTaskGroup

HELLO = Path(__file__).parents[4] / "examples" / "hello"
OWN = Asset(name="own_champion")
JOB: dict[str, Any] = {"job": Param(None, type=["null", "string"])}


def pipeline(model: str) -> None:
    """A pipeline that trains a model in a second, without a dataset."""
    RetrainingTaskGroup(
        model=model,
        trainer=HELLO,
        job_file={"trainingInput": {"pythonModule": "hello.task"}},
        args=["--max_steps", "1"],
        validation_level="files",
        require_comparison=False,
    )


with DAG("country_churn", schedule=None, catchup=False, params={"country": Param("de", type="string")}):
    pipeline("{{ params.country }}_churn")

# How new a model is follows from its run: from the partition key in one DAG, and from the logical date in the other.
with DAG("by_partition", schedule=CronPartitionTimetable("0 0 1 * *", timezone="UTC", key_format="%Y-%m-%d")):
    pipeline("by_partition")

with DAG("by_date", schedule="0 0 1 * *", catchup=False):
    pipeline("by_date")

with DAG("serve_de", schedule=[champion_asset("de_churn")], catchup=False):

    @task(inlets=[champion_asset("de_churn")])
    def served() -> dict[str, Any]:
        """Return the extra of the publication's event."""
        return dict(get_current_context()["inlet_events"][champion_asset("de_churn")][-1].extra or {})

    served()


class KilledOnce(PublishModelOperator):
    """Kills its first try after the champion's pointer was swapped and before Airflow has received the event."""

    def execute(self, context: Any) -> PublicationXCom:
        result = super().execute(context)
        if context["ti"].try_number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


publication: dict[str, Any] = {"task_id": "publish", "outlets": [champions_alias(), OWN], "gcp_conn_id": None}
with DAG("killed", schedule=None, catchup=False, params=JOB):
    KilledOnce(job="{{ params.job }}", retries=1, retry_delay=timedelta(seconds=1), **publication)

with DAG("again", schedule=None, catchup=False, params=JOB):
    PublishModelOperator(job="{{ params.job }}", **publication)

with DAG("mapped", schedule=None, catchup=False, params={"jobs": Param([], type="array")}):

    @task
    def jobs() -> list[str]:
        """Return the jobs whose models are to be published."""
        return list(get_current_context()["params"]["jobs"])

    PublishModelOperator.partial(**publication).expand(job=jobs())
