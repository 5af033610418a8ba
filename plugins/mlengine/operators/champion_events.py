"""Asset events of a publication: one if the task made its job the champion, none otherwise.

Airflow sends an event for each asset among the outlets of a task that succeeds, and for each asset that the task adds
to an alias. A task that changed nothing, such as one that finds its job champion already, must succeed without one.

A try may die after it swapped the champion's pointer and before Airflow has taken its event. The next try finds its job
champion already, and sends the event: no try before it succeeded. A task that was cleared may have succeeded before, so
it asks Airflow whether there is an event of the entry. One thing is not made up for: if another model has become
champion meanwhile, the event of the earlier one is not sent: a DAG that follows the champion would go back to it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Asset, AssetAlias, Context
from airflow.sdk.definitions.asset import AssetRef

from mlengine.assets import champion_asset
from mlengine.champions.history import Champion
from mlengine.operators.run_identity import job_key, run_uid
from mlengine.promotion.outcome import Outcome, Word

log = logging.getLogger(__name__)

# By which the clocks of this machine and of Airflow's database may differ.
_SKEW = timedelta(hours=1)


def publisher(context: Context) -> dict[str, Any]:
    """The task that publishes, as the champion's history has it. A clear changes its generation, a retry does not."""
    return asdict(replace(job_key(context), run_uid=run_uid(context)))


def announce(task: Any, context: Context, outcome: Outcome, extra: Mapping[str, Any]) -> None:
    """Have Airflow send the events of ``outcome`` when ``task`` succeeds.

    Outlets that must not get an event are taken from the task: Airflow reads them again when it has run.

    :param extra: what the events carry.
    """
    outlets = []
    for outlet in task.outlets:
        if not isinstance(outlet, Asset | AssetAlias | AssetRef):
            outlets.append(outlet)
            continue
        champion = champion_asset(str(extra["model"]))
        asset = champion if isinstance(outlet, AssetAlias) else outlet
        if not _due(outcome, asset, publisher(context)):
            log.info("no event of %s: the champion was not changed by this task, or the event was sent before", asset)
            continue
        outlets.append(outlet)
        if isinstance(outlet, AssetAlias):
            context["outlet_events"][outlet].add(champion, extra=dict(extra))
        else:
            context["outlet_events"][outlet].extra.update(extra)
    task.outlets = outlets


def _due(outcome: Outcome, asset: Asset | AssetRef, task: Mapping[str, Any]) -> bool:
    champion = outcome.champion
    if champion is None or not outcome.swapped:
        return False
    retried = champion.publisher.get("generation") == task["generation"]
    return outcome.word is Word.PUBLISHED or retried or not _sent(asset, champion)


def _sent(asset: Asset | AssetRef, champion: Champion) -> bool:
    """Whether Airflow has an event of this entry. If it does not answer: no, since twice is better than never.

    Airflow 3.3.2 answers 500 while a DAG run that one of the events started is queued: its model of a run requires a
    start date.
    """
    from airflow.sdk.execution_time.context import InletEventsAccessor

    since = (datetime.fromisoformat(champion.at) - _SKEW).isoformat()
    name, uri = getattr(asset, "name", None), getattr(asset, "uri", None)
    try:
        events = list(InletEventsAccessor(asset_name=name, asset_uri=uri).after(since))
    except Exception:  # Airflow's supervisor raises many things, and there is none in `dag.test()`
        log.warning("Airflow does not answer which events of %s it has; sending one", asset, exc_info=True)
        return False
    entry = (champion.serial, champion.job_dir)
    extras = [event.extra or {} for event in events]
    return any((extra.get("serial"), extra.get("job_dir")) == entry for extra in extras)
