"""What a dataset is called as an asset of Airflow's, so that those who announce a version and those who wait agree."""

from __future__ import annotations

from airflow.sdk import Asset

from mlengine.core.layout import dataset_asset_name


def dataset_asset(name: str) -> Asset:
    """The asset of the dataset ``name``. Its events carry the version as their partition key.

    It is the same asset whatever bucket the data lies in: a DAG file does not know that. And it has a name only: for an
    address with a scheme, Airflow 3.3 imports every provider that knows one, Google's storage client among them, when
    the DAG file is parsed.
    """
    return Asset(name=dataset_asset_name(name))
