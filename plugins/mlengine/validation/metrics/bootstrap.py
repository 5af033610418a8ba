"""The paired bootstrap: the difference between challenger and champion, with a confidence interval.

For each resample, held-out rows are drawn with replacement, and a metric of both models is computed on the same rows. A
resample is stored as the number of times that each row is drawn, so that rows are sorted once, not for each resample.
For classification, the resamples are stratified: each has as many rows of each class as the held-out set. Two models
with equal predictions differ by exactly 0 in every resample.

A metric may be undefined in some resamples, such as the precision if no drawn row is predicted positive. The interval
is that of the other resamples, whose number is reported; if they are less than half of all, there is no interval.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlengine.validation.metrics.outcomes import Evaluate, Outcomes, UndefinedMetricError
from mlengine.validation.metrics.registry import prepare, user_info

if TYPE_CHECKING:
    import numpy as np

    from mlengine.validation.metrics.outcomes import Array

RESAMPLES = 1000
_MANY = 10_000
_THREADS = 4  # the maximum: each thread needs memory for the sorted weights of one resample
_MOST_STRATA = 1000  # with more classes, each class has too few rows


@dataclass(frozen=True)
class Difference:
    """The comparison of two models by one metric.

    :param gain: the difference by which the challenger is better; negative if it is worse.
    :param low: the lower confidence limit of the gain.
    :param high: the upper confidence limit of the gain.
    :param resamples: the number of resamples in which the metric was defined; 0 if none had to be drawn.
    :param drawn: the number of resamples that were drawn.
    :param undefined: the reason why there is no comparison; then all numbers are NaN.
    """

    metric: str
    challenger: float = math.nan
    champion: float = math.nan
    gain: float = math.nan
    low: float = math.nan
    high: float = math.nan
    resamples: int = 0
    drawn: int = 0
    undefined: str = ""

    @property
    def note(self) -> str:
        """A note that the metric was undefined in some resamples; empty if it was not."""
        if self.resamples == self.drawn:
            return ""
        return f"undefined in {self.drawn - self.resamples} of {self.drawn} resamples, which are left out"


def paired(
    challenger: Outcomes,
    champion: Outcomes,
    metrics: Sequence[str],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compare two models on the same rows, by several metrics in the same resamples.

    :param confidence: the one-sided confidence of each end of the interval.
    """
    order = _by_class(challenger)
    challenger, champion = challenger.take(order), champion.take(order)
    found = {name: _start(name, challenger, champion) for name in metrics}
    open_ = {name: item for name, item in found.items() if not isinstance(item, Difference)}
    gains: Iterable[Array] = _resample(challenger, list(open_.values()), resamples, seed) if open_ else ()
    results: dict[str, Difference] = {name: item for name, item in found.items() if isinstance(item, Difference)}
    for (name, pair), values in zip(open_.items(), gains, strict=True):
        results[name] = _difference(name, pair, values, challenger.weights, confidence)
    return {name: results[name] for name in metrics}


@dataclass(frozen=True)
class _Pair:
    """A metric prepared for both models.

    :param sign: 1 if a higher value is better, else -1.
    """

    challenger: Evaluate
    champion: Evaluate
    sign: float

    def gain(self, weights: Array) -> float:
        try:
            return self.sign * (self.challenger(weights) - self.champion(weights))
        except UndefinedMetricError:
            return math.nan


def _start(name: str, challenger: Outcomes, champion: Outcomes) -> _Pair | Difference:
    try:
        sign = 1.0 if user_info(name).higher_is_better else -1.0
        pair = _Pair(prepare(name, challenger), prepare(name, champion), sign)
        for evaluate in (pair.challenger, pair.champion):  # here, a user's metric that raises does so once
            evaluate(challenger.weights)
    except UndefinedMetricError as error:
        return Difference(name, undefined=str(error))
    return pair


def _difference(name: str, pair: _Pair, gains: Array, weights: Array, confidence: float) -> Difference:
    import numpy as np

    try:
        mine, theirs = pair.challenger(weights), pair.champion(weights)
    except UndefinedMetricError as error:
        return Difference(name, undefined=str(error))
    if not (math.isfinite(mine) and math.isfinite(theirs)):
        return Difference(name, mine, theirs, undefined="the rows do not determine it")
    known = gains[np.isfinite(gains)]
    if 2 * len(known) < len(gains):
        reason = f"it is undefined in {len(gains) - len(known)} of {len(gains)} resamples of the rows"
        return Difference(name, mine, theirs, resamples=len(known), drawn=len(gains), undefined=reason)
    low, high = (float(value) for value in np.quantile(known, [1 - confidence, confidence]))
    return Difference(name, mine, theirs, pair.sign * (mine - theirs), low, high, len(known), len(gains))


def _resample(outcomes: Outcomes, pairs: list[_Pair], resamples: int, seed: int) -> Array:
    """The gains in all resamples, (metrics, resamples)."""
    import numpy as np

    draw = _Draw(outcomes)
    gains = np.empty((len(pairs), resamples))
    generators = np.random.default_rng(seed).spawn(resamples)

    def one(number: int) -> None:
        weights = draw(generators[number])
        for at, pair in enumerate(pairs):
            gains[at, number] = pair.gain(weights) if weights.any() else math.nan

    threads = min(_THREADS, os.cpu_count() or 1) if outcomes.rows >= _MANY else 1
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(resamples)))
    return gains


def _by_class(outcomes: Outcomes) -> Array:
    """The rows in the order of their classes, so that each class is a slice.

    The rows of a class are in the order that rankings need, so that weights are read sequentially.
    """
    import numpy as np

    if outcomes.task == "regression":
        return np.arange(outcomes.rows)
    if outcomes.task == "binary" and outcomes.values is not None:
        return np.lexsort((-outcomes.values, outcomes.target))
    return np.argsort(outcomes.target, kind="stable")


class _Draw:
    """Draws rows with replacement, class by class; the rows are in the order of their classes."""

    def __init__(self, outcomes: Outcomes) -> None:
        import numpy as np

        self.rows = outcomes.rows
        self.weight = None if outcomes.weight is None else outcomes.weight.astype(np.float32)
        strata = [slice(0, self.rows)]
        if outcomes.task != "regression":
            starts = np.flatnonzero(np.diff(outcomes.target, prepend=-1))
            if len(starts) <= _MOST_STRATA:
                strata = [slice(*pair) for pair in itertools.pairwise([*starts.tolist(), self.rows])]
        self.strata = [(rows, _table(rows.stop - rows.start)) for rows in strata]

    def __call__(self, generator: np.random.Generator) -> Array:
        """The number of times that each row is drawn, multiplied by the row's weight."""
        import numpy as np

        drawn = np.empty(self.rows, np.uint8)
        for rows, table in self.strata:
            _draw(generator, drawn[rows], table)
        return drawn if self.weight is None else drawn * self.weight


def _draw(generator: np.random.Generator, drawn: Array, table: Array | None) -> None:
    """Draw as many rows as ``drawn`` has, and write the number of times that each was drawn into it.

    With a table, slightly fewer draws are made from a Poisson distribution, independently for each row, and the few
    that are missing are made one by one. The result is distributed as if all had been made one by one.
    """
    import numpy as np

    count = len(drawn)
    if table is None:
        drawn[:] = np.bincount(generator.integers(0, count, count), minlength=count)
        return
    missing = -1
    while missing < 0:  # once in millions of times, too many are drawn
        table.take(np.frombuffer(generator.bytes(2 * count), np.uint16), mode="clip", out=drawn)
        missing = count - int(drawn.sum())
    np.add.at(drawn, generator.integers(0, count, missing), 1)


def _table(rows: int) -> Array | None:
    """The number of draws of a row for each value of 16 random bits: Poisson-distributed, with a mean slightly below 1.

    ``None`` for few rows. The mean is five standard deviations of the number of draws below 1.
    """
    import numpy as np

    if rows < _MANY:
        return None
    mean = 1 - 5 / math.sqrt(rows)
    probabilities = np.array([math.exp(-mean) * mean**count / math.factorial(count) for count in range(9)])
    ends = np.round(np.cumsum(probabilities) * 65536)
    return np.searchsorted(ends, np.arange(65536), side="right").astype(np.uint8)
