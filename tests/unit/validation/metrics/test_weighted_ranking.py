"""Ranking metrics with resampling weights, ties and any share of positives, compared with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn

from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.metrics.registry import prepare


@pytest.mark.parametrize("decimals", [1, 2, 9])  # many ties, some, none
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("ordered", [False, True])
def test_ranking_metrics_equal_scikit_learns(decimals: int, share: float, ordered: bool) -> None:
    generator = np.random.default_rng(int(decimals * 100 + share * 100))
    target = (generator.random(400) < share).astype(np.int64)
    values = np.round(np.clip(target * 0.2 + generator.random(400) * 0.8, 0, 1), decimals)
    if ordered:  # as the bootstrap orders rows: the weights of positive and negative rows are slices
        order = np.lexsort((-values, target))
        target, values = target[order], values[order]
    outcomes = Outcomes("binary", target, values, (values >= 0.5).astype(np.int64), None, 2)
    area, average = prepare("roc_auc", outcomes), prepare("average_precision", outcomes)
    recall = prepare("recall@precision=0.5", outcomes)
    for weights in (np.ones(400), generator.poisson(1, 400).astype(np.uint8), generator.random(400)):
        assert area(weights) == pytest.approx(sklearn.roc_auc_score(target, values, sample_weight=weights), abs=1e-6)
        expected = sklearn.average_precision_score(target, values, sample_weight=weights)
        assert average(weights) == pytest.approx(expected, abs=1e-6)
        precisions, recalls, _ = sklearn.precision_recall_curve(target, values, sample_weight=weights)
        assert recall(weights) == pytest.approx(recalls[precisions >= 0.5].max(), abs=1e-6)
