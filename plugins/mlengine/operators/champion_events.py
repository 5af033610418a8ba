"""Asset events of a publication: one if the task made its job the champion, none otherwise.

Airflow sends an event for each asset among the outlets of a task that succeeds, and for each asset that the task adds
to an alias. A task that changed nothing, such as one that finds its job champion already, must succeed without one.

A try may die after it swapped the champion's pointer and before Airflow has taken its event. So a later try of the same
task, a retry or a clear, asks Airflow whether there is an event of the entry, and sends it only if there is none. One
thing is not made up for: if another model has become champion meanwhile, the event of the earlier one is not sent,
since whoever follows the champion would go back to it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Asset, AssetAlias
from airflow.sdk.definitions.asset import AssetRef

from mlengine.assets import champion_asset
from mlengine.champions.history import Champion
from mlengine.promotion.outcome import Outcome, Word

log = logging.getLogger(__name__)

# By which the clocks of this machine and of Airflow's database may differ.
_SKEW = timedelta(hours=1)


def publisher(context: Any) -> dict[str, Any]:
    """The task that publishes, as the champion's history has it; the same in each try, and after a clear."""
    ti = context["ti"]
    return {
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": -1 if ti.map_index is None else int(ti.map_index),
    }


def announce(task: Any, context: Any, outcome: Outcome, extra: Mapping[str, Any]) -> None:
    """Have Airflow send the events of ``outcome`` when ``task`` succeeds.

    Outlets that must not get an event are taken from the task: Airflow reads them again when it has run.

    :param extra: what the events carry.
    """
    outlets = []
    for outlet in task.outlets:
        if not isinstance(outlet, Asset | AssetAlias | AssetRef):
            outlets.append(outlet)
            continue
        asset = champion_asset(str(extra["model"])) if isinstance(outlet, AssetAlias) else outlet
        if not _due(outcome, asset):
            log.info("no event of %s: the champion was not changed by this task, or the event was sent before", asset)
            continue
        outlets.append(outlet)
        if isinstance(outlet, AssetAlias):
            context["outlet_events"][outlet].add(asset, extra=dict(extra))
        else:
            context["outlet_events"][outlet].extra.update(extra)
    task.outlets = outlets


def _due(outcome: Outcome, asset: Asset | AssetRef) -> bool:
    if outcome.champion is None or not outcome.swapped:
        return False
    return outcome.word is Word.PUBLISHED or not _sent(asset, outcome.champion)


def _sent(asset: Asset | AssetRef, champion: Champion) -> bool:
    """Whether Airflow has an event of this entry. If it cannot be asked: no, since twice is better than never."""
    from airflow.sdk.execution_time.context import InletEventsAccessor

    since = (datetime.fromisoformat(champion.at) - _SKEW).isoformat()
    name, uri = getattr(asset, "name", None), getattr(asset, "uri", None)
    try:
        events = list(InletEventsAccessor(asset_name=name, asset_uri=uri).after(since))
    except Exception:  # Airflow's supervisor raises many things, and there is none in `dag.test()`
        log.warning("Airflow cannot tell which events of %s it has; sending one", asset, exc_info=True)
        return False
    entry = (champion.serial, champion.job_dir)
    extras = [event.extra or {} for event in events]
    return any((extra.get("serial"), extra.get("job_dir")) == entry for extra in extras)
