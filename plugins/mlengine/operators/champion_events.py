"""The asset events of a publication: one event if the task made its job the champion, otherwise none.

Airflow sends an event for each asset in the outlets of a successful task, and for each asset that the task adds to an
alias. A task that did not change the champion must succeed without an event.

A try may crash after it changed the champion and before Airflow has received its event. The next try finds that its job
is already the champion and sends the event, because no earlier try succeeded. A cleared task may have succeeded before,
so it asks Airflow whether there is an event for the entry.

Limitation: if another model became champion in the meantime, the missing event is not sent. A DAG that follows the
champion would otherwise return to the older model.
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
from mlengine.promotion.outcome import Outcome, PublishDecision

log = logging.getLogger(__name__)

# The maximum clock difference between this machine and Airflow's database.
_SKEW = timedelta(hours=1)


def publisher(context: Context) -> dict[str, Any]:
    """The identity of the publishing task, for the champion's history. A clear changes its generation, a retry not."""
    return asdict(replace(job_key(context), run_uid=run_uid(context)))


def announce(task: Any, context: Context, outcome: Outcome, extra: Mapping[str, Any]) -> None:
    """Prepare the events of ``outcome``, which Airflow sends when ``task`` succeeds.

    Outlets without an event are removed from the task; Airflow reads the outlets after the task has run.

    :param extra: the content of the events.
    """
    outlets = []
    for outlet in task.outlets:
        if not isinstance(outlet, Asset | AssetAlias | AssetRef):
            outlets.append(outlet)
            continue
        champion = champion_asset(str(extra["model"]))
        asset = champion if isinstance(outlet, AssetAlias) else outlet
        if not _should_send(outcome, asset, publisher(context)):
            log.info("no event for %s: this task did not change the champion, or the event was already sent", asset)
            continue
        outlets.append(outlet)
        if isinstance(outlet, AssetAlias):
            context["outlet_events"][outlet].add(champion, extra=dict(extra))
        else:
            context["outlet_events"][outlet].extra.update(extra)
    task.outlets = outlets


def _should_send(outcome: Outcome, asset: Asset | AssetRef, task: Mapping[str, Any]) -> bool:
    champion = outcome.champion
    if champion is None or not outcome.swapped:
        return False
    retried = champion.publisher.get("generation") == task["generation"]
    return outcome.decision is PublishDecision.PUBLISHED or retried or not _sent(asset, champion)


def _sent(asset: Asset | AssetRef, champion: Champion) -> bool:
    """Whether Airflow has an event for this entry. False if Airflow fails: a duplicate is better than no event.

    Airflow 3.3.2 responds with 500 while a DAG run that one of the events started is queued, because its model of a run
    requires a start date.
    """
    from airflow.sdk.execution_time.context import InletEventsAccessor

    since = (datetime.fromisoformat(champion.at) - _SKEW).isoformat()
    name, uri = getattr(asset, "name", None), getattr(asset, "uri", None)
    try:
        events = list(InletEventsAccessor(asset_name=name, asset_uri=uri).after(since))
    except Exception:  # Airflow's supervisor raises various errors; `dag.test()` has no supervisor
        log.warning("could not list Airflow's events for %s; sending an event", asset, exc_info=True)
        return False
    entry = (champion.serial, champion.job_dir)
    extras = [event.extra or {} for event in events]
    return any((extra.get("serial"), extra.get("job_dir")) == entry for extra in extras)
