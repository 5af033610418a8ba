"""The paired bootstrap of five metrics, compared with scikit-learn's functions in a loop over resampled rows.

mlengine computes all resamples; for scikit-learn, a few are timed and scaled. At a smaller size, both compute all
resamples, and their intervals are compared.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.validation_parts.figures import peak, timed, verdict
from mlengine.validation.metrics import bootstrap
from mlengine.validation.metrics.outcomes import Outcomes

METRICS = ("roc_auc", "average_precision", "log_loss", "accuracy", "f1")
CONFIDENCE = 0.95
SPEED_BUDGET = 50.0  # relative to scikit-learn's speed
MEMORY_BUDGET = 1024.0  # MiB more than after the imports
# The interval's ends are quantiles of few resamples. A difference of more standard errors than this is not random.
STANDARD_ERRORS = 4.0


def run(args: argparse.Namespace) -> bool:
    """Measure speed and memory of the comparison of two models, and check its result."""
    before = peak()
    challenger, champion = models(args.rows)
    given = sum(
        part.nbytes for one in (challenger, champion) for part in (one.values, one.predicted) if part is not None
    )
    # This times all resamples, including the sorting. Timing fewer and subtracting the sorting would be too noisy on a
    # busy machine.
    ours = timed(lambda: bootstrap.paired(challenger, champion, METRICS, resamples=args.resamples))
    used = peak() - before
    generator = np.random.default_rng(0)
    reference(challenger, champion, generator)  # warm-up: imports scikit-learn
    theirs = [timed(lambda: reference(challenger, champion, generator)) for _ in range(args.rounds)]
    wall, cpu = (min(getattr(one, name) for one in theirs) * args.resamples for name in ("wall", "cpu"))
    ratio, cpu_ratio = wall / ours.wall, cpu / ours.cpu
    print(f"{args.rows:,} rows, {len(METRICS)} metrics, two models, {args.resamples} resamples")
    print(f"{'mlengine':48}{ours.wall:10.1f} s  {ours.cpu:8.1f} CPU-s")
    scaled = f"scikit-learn, scaled from the fastest of {args.rounds}"
    print(f"{scaled:48}{wall:10.1f} s  {cpu:8.1f} CPU-s")
    print(f"{'memory over the import':48}{used:10.0f} MiB  (predictions: {given / 2**20:.0f} MiB)")
    print(f"ratio, scikit-learn to mlengine: {ratio:.0f}; of CPU: {cpu_ratio:.0f}")
    within = ratio >= SPEED_BUDGET and used <= MEMORY_BUDGET
    print(f"budget: {SPEED_BUDGET:.0f} times as fast, {MEMORY_BUDGET:.0f} MiB: {verdict(within)}")
    return same_intervals(args.small) and within


def same_intervals(rows: int, resamples: int = 400) -> bool:
    """Compare the ends of the intervals with those of scikit-learn's functions on resampled rows."""
    challenger, champion = models(rows)
    ours = bootstrap.paired(challenger, champion, METRICS, resamples=resamples, confidence=CONFIDENCE)
    generator = np.random.default_rng(1)
    gains = np.array([reference(challenger, champion, generator) for _ in range(resamples)])
    same = True
    print(f"{rows:,} rows, {resamples} resamples: interval of the gain, mlengine and scikit-learn")
    for name, values in zip(METRICS, gains.T, strict=True):
        low, high = np.quantile(values, [1 - CONFIDENCE, CONFIDENCE])
        # The standard error of the difference of two 5 % quantiles of a normal distribution.
        error = float(np.sqrt(2 * CONFIDENCE * (1 - CONFIDENCE) / resamples) / 0.1031 * values.std())
        apart = max(abs(ours[name].low - low), abs(ours[name].high - high)) / error
        same &= apart <= STANDARD_ERRORS
        print(
            f"  {name:20}{ours[name].low:+.5f} to {ours[name].high:+.5f}   {low:+.5f} to {high:+.5f}"
            f"   {apart:.1f} standard errors apart"
        )
    print(f"same intervals, up to {STANDARD_ERRORS:.0f} standard errors: {verdict(same)}")
    return same


def models(rows: int) -> tuple[Outcomes, Outcomes]:
    """Two models of a binary target with 20 % positive rows and correlated errors."""
    generator = np.random.default_rng(0)
    target = (generator.random(rows) < 0.2).astype(np.int64)
    common = generator.normal(size=rows)

    def model(noise: float) -> Outcomes:
        logit = 1.5 * target - 2 + 0.8 * common + noise * generator.normal(size=rows)
        values = 1 / (1 + np.exp(-logit))
        return Outcomes("binary", target, values, (values >= 0.5).astype(np.int64), None, 2)

    return model(0.6), model(0.65)


def reference(challenger: Outcomes, champion: Outcomes, generator: np.random.Generator) -> list[float]:
    """The gain in each metric in one stratified resample, computed with scikit-learn."""
    from sklearn import metrics as sklearn

    classes = [np.flatnonzero(challenger.target == one) for one in (0, 1)]
    rows = np.concatenate([generator.choice(one, len(one)) for one in classes])

    def scores(model: Outcomes) -> list[float]:
        assert model.values is not None and model.predicted is not None  # noqa: PT018
        target, values, predicted = model.target[rows], model.values[rows], model.predicted[rows]
        return [
            sklearn.roc_auc_score(target, values),
            sklearn.average_precision_score(target, values),
            -sklearn.log_loss(target, values),
            sklearn.accuracy_score(target, predicted),
            sklearn.f1_score(target, predicted),
        ]

    return [mine - theirs for mine, theirs in zip(scores(challenger), scores(champion), strict=True)]
