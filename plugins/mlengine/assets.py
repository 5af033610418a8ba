"""What datasets and champions are called as assets of Airflow's, so that who announces and who waits agree."""

from __future__ import annotations

from airflow.sdk import Asset, AssetAlias

from mlengine.core.layout import CHAMPIONS_ALIAS, champion_asset_name, check_model_name, dataset_asset_name


def dataset_asset(name: str) -> Asset:
    """The asset of the dataset ``name``. Its events carry the version as their partition key.

    It is the same asset whatever bucket the data lies in: a DAG file does not know that. And it has a name only: for an
    address with a scheme, Airflow 3.3 imports every provider that knows one, Google's storage client among them, when
    the DAG file is parsed.
    """
    return Asset(name=dataset_asset_name(name))


def champion_asset(model: str) -> Asset:
    """The asset of a model's champion: an event for each publication, with the model's URI and figures in ``extra``.

    It has the partition key of the run that published, if that has one: Airflow 3.3 starts those DAGs alone on it that
    wait with a ``PartitionedAssetTimetable``, and on an event without a key the others.

    :param model: the model's name as it is when the task runs: ``de_churn``, not ``{{ params.country }}_churn``.
    :raises StorageError: it is no model's name.
    """
    return Asset(name=champion_asset_name(check_model_name(model)))


def champions_alias() -> AssetAlias:
    """The outlet of publications: when the task runs, it stands for :func:`champion_asset` of the model published.

    An asset among a task's outlets gets an event whenever the task succeeds, and its name is fixed when the DAG file is
    parsed. An alias gets one only for the assets that the task adds to it. A DAG with ``schedule=champions_alias()``
    follows the champions of all models.
    """
    return AssetAlias(name=CHAMPIONS_ALIAS)
