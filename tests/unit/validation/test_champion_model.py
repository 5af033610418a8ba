"""The champion in a validation: the held-out rows on which it can be evaluated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from mlengine.champions.history import Action, Champion
from mlengine.core.dataset import Column, DataFile, Manifest, Schema, Split
from mlengine.core.errors import ObjectMissingError
from mlengine.storage.client import Storage
from mlengine.validation.champion_model import ChampionModel
from mlengine.validation.heldout import Heldout
from mlengine.validation.measured import Measured
from mlengine.validation.serving_signature import ServingSignature

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


class Objects:
    """A bucket that has one object."""

    def __init__(self, uri: str, data: bytes) -> None:
        self.uri, self.data = uri, data

    def read(self, uri: str) -> bytes:
        if uri != self.uri:
            raise ObjectMissingError(uri)
        return self.data


@pytest.mark.parametrize(
    ("trained_on", "dataset", "compared"),
    [
        (("a", "b", "c"), ("a", "b", "c"), True),
        ((0, 1, 2), ("0", "1", "2"), True),
        (("a", "b", "c"), ("a", "c", "d"), False),
        (("a", "b", "c"), ("c", "b", "a"), False),
        (None, ("a", "b", "c"), True),
    ],
    ids=["equal", "of another type", "other", "in another order", "unknown"],
)
def test_a_champion_of_other_classes_is_not_compared(
    trained_on: tuple[Any, ...] | None, dataset: tuple[Any, ...], compared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "gs://bkt/datasets/flights/2013-08-01"
    splits = {name: Split(5, (DataFile(f"{name}/x.parquet", 9, sha256=64 * "0"),)) for name in VERSION.splits}
    schema = replace(VERSION.schema, classes=trained_on)
    manifest = replace(VERSION, schema=schema, task="multiclass", splits=splits)
    storage = Objects(f"{uri}/manifest.json" if trained_on else "", manifest.to_bytes())
    champion = ChampionModel(cast(Storage, storage), replace(CHAMPION, dataset={"uri": uri}), Path())
    monkeypatch.setattr(ChampionModel, "_recorded", lambda _: (ServingSignature(), ""))
    heldout = Heldout(Path(), 3, {}, "multiclass", dataset, target=np.arange(3))
    found, why = champion.outcomes(Measured(baseline_outputs=np.eye(3)), heldout, None)
    assert (found is not None) == compared
    if not compared:
        listed = ", ".join(map(str, dataset))
        assert f"predicts the classes a, b, c, and the dataset has {listed}." in why
