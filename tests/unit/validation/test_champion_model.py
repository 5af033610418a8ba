"""The champion in a validation: the held-out rows on which it can be evaluated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from mlengine.champions.history import Action, Champion
from mlengine.core.dataset import Column, Manifest, Schema, Split
from mlengine.storage.client import Storage
from mlengine.validation.champion_model import ChampionModel

CHAMPION = Champion(
    model="flights",
    serial=1,
    action=Action.PUBLISHED,
    job_id="flights_2014_01_01",
    job_dir="gs://bkt/flights/flights_2014_01_01",
    model_uri="gs://bkt/flights/flights_2014_01_01/model",
    verdict="first",
    metric="roc_auc",
    metric_value=0.71,
    by="a dag run",
    why="There is no champion yet.",
    at="2026-11-23T12:00:00+00:00",
    fingerprint="f00",
    dataset={"name": "flights", "version": "2014-01-01"},
)
VERSION = Manifest(
    name="flights",
    version="2013-08-01",
    created="2026-11-01T02:03:04+00:00",
    license="internal",
    source="airports",
    format="parquet",
    schema=Schema((Column("late", "int64"),), target="late", classes=(0, 1)),
    splits={"train": Split(rows=10, files=(), statistics={}), "heldout": Split(rows=5, files=(), statistics={})},
    task="binary",
    heldout_policy="rolling",
)


def _champion(dataset: dict[str, str]) -> ChampionModel:
    return ChampionModel(cast(Storage, None), replace(CHAMPION, dataset=dataset), Path())


def test_a_champion_of_a_newer_version_may_have_been_trained_on_rolling_held_out_rows() -> None:
    why = _champion({"name": "flights", "version": "2014-01-01"}).may_know(VERSION)
    assert why == (
        "The champion flights_2014_01_01 was trained on the newer version 2014-01-01, whose training rows may include "
        "the held-out rows of 2013-08-01."
    )


@pytest.mark.parametrize(
    ("dataset", "policy"),
    [
        ({"name": "flights", "version": "2013-07-01"}, "rolling"),
        ({"name": "flights", "version": "2013-08-01"}, "rolling"),
        ({"name": "flights", "version": "2014-01-01"}, "fixed"),
        ({"name": "trains", "version": "2014-01-01"}, "rolling"),
        ({"name": "flights"}, "rolling"),
    ],
    ids=["older", "same", "fixed rows", "other dataset", "no version"],
)
def test_other_champions_are_evaluated(dataset: dict[str, str], policy: str) -> None:
    assert _champion(dataset).may_know(replace(VERSION, heldout_policy=policy)) == ""
