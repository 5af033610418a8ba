"""The examples that ``make run EXAMPLE=NAME`` trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from scripts import flights, mnist


@dataclass(frozen=True)
class Example:
    """An example.

    :param dag: the DAG that retrains its model.
    :param model: the model's name in the bucket.
    :param load: a function that registers the versions of its dataset in a bucket.
    :param rows: a noun for the rows of its held-out set.
    """

    dag: str
    model: str
    load: Callable[..., list[str]]
    rows: str


DEFAULT = "mnist"
EXAMPLES: Mapping[str, Example] = MappingProxyType(
    {
        DEFAULT: Example("mnist_retraining", "mnist", mnist.ensure, "digits"),
        "flights": Example("flights_retraining", "flights", flights.ensure, "flights"),
        "flights-xgboost": Example("flights_xgboost", "flights_xgboost", flights.ensure, "flights"),
    }
)
