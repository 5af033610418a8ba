"""The Airflow assets of datasets and champions. Producers and consumers use the same names because they import them."""

from __future__ import annotations

from airflow.sdk import Asset, AssetAlias

from mlengine.core.dataset import check_dataset_name
from mlengine.core.layout import CHAMPIONS_ALIAS, champion_asset_name, check_model_name, dataset_asset_name


def dataset_asset(name: str) -> Asset:
    """The asset of the dataset ``name``. Its events carry the version as their partition key.

    The asset does not depend on the bucket of the data, which a DAG file does not know. It has a name but no URI: for
    a URI with a scheme, Airflow 3.3 imports every provider that handles a scheme when it parses the DAG file,
    including Google's storage client.

    :raises DatasetError: ``name`` is not a valid dataset name, so there will be no event.
    """
    return Asset(name=dataset_asset_name(check_dataset_name(name)))


def champion_asset(model: str) -> Asset:
    """The asset of a model's champion. Each publication emits an event with the model's URI and metrics in ``extra``.

    If the publishing run has a partition key, the event has it too. For an event with a key, Airflow 3.3 starts only
    DAGs with a ``PartitionedAssetTimetable``; for an event without a key, it starts only the other DAGs.

    :param model: the model's name as rendered when the task runs: ``de_churn``, not ``{{ params.country }}_churn``.
    :raises StorageError: ``model`` is not a valid model name.
    """
    return Asset(name=champion_asset_name(check_model_name(model)))


def champions_alias() -> AssetAlias:
    """The outlet of publishing tasks. At run time, it resolves to the :func:`champion_asset` of the published model.

    An asset in a task's outlets gets an event whenever the task succeeds, and its name is fixed when the DAG file is
    parsed. With an alias, only the assets that the task adds at run time get an event. A DAG with
    ``schedule=champions_alias()`` follows the champions of all models.
    """
    return AssetAlias(name=CHAMPIONS_ALIAS)
