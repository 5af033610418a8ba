#!/usr/bin/env bash
# scikit-learn 1.9.1: class_weight="balanced" counts sample weights in some estimators, and rows in others.
#
# A row with the weight 3 should be worth three equal rows. Without class_weight it is, in each estimator below. With
# class_weight="balanced", LogisticRegression and RandomForestClassifier still give the same model for both forms of the
# data. DecisionTreeClassifier, RidgeClassifier and HistGradientBoostingClassifier do not: they compute the share of each
# class from the number of rows. So a forest of one tree, without bootstrap, is not the tree with the same parameters.
#
# Output seen (largest difference between weighted rows and repeated rows):
#                LogisticRegression              none: no    balanced: no
#                RandomForestClassifier          none: no    balanced: no
#                DecisionTreeClassifier          none: no    balanced: yes
#                RidgeClassifier                 none: no    balanced: yes
#                HistGradientBoostingClassifier  none: no    balanced: yes
#                one tree of the forest equals the tree: none: yes   balanced: no
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q scikit-learn==1.9.1 numpy==2.4.6
cat > "$work/balance.py" <<'PY'
import sys

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.tree import DecisionTreeClassifier

random = np.random.default_rng(0)
rows = random.normal(size=(60, 2))
target = (rows[:, 0] + random.normal(size=60) > 0.5).astype(int)
weight = random.integers(1, 4, 60)
repeated = np.repeat(rows, weight, axis=0), np.repeat(target, weight)
forest = RandomForestClassifier(1, bootstrap=False, max_features=None, max_depth=2, random_state=0)
tree = DecisionTreeClassifier(max_depth=2, random_state=0)


def scores(model):
    return model.predict_proba(rows) if hasattr(model, "predict_proba") else model.decision_function(rows)


def weighted(estimator, balance):
    return scores(clone(estimator).set_params(class_weight=balance).fit(rows, target, sample_weight=weight))


def differs(estimator, balance):
    twin = scores(clone(estimator).set_params(class_weight=balance).fit(*repeated))
    return bool(abs(weighted(estimator, balance) - twin).max() > 1e-4)


estimators = [
    LogisticRegression(tol=1e-10, max_iter=1000),
    forest,
    tree,
    RidgeClassifier(),
    HistGradientBoostingClassifier(min_samples_leaf=1, max_iter=3),
]
word = {False: "no", True: "yes"}
seen = []
for estimator in estimators:
    plain, balanced = differs(estimator, None), differs(estimator, "balanced")
    seen.append((plain, balanced))
    print(f"{type(estimator).__name__:<30}  none: {word[plain]:<5} balanced: {word[balanced]}")
equal = [bool(np.allclose(weighted(forest, balance), weighted(tree, balance))) for balance in (None, "balanced")]
print(f"one tree of the forest equals the tree: none: {word[equal[0]]:<5} balanced: {word[equal[1]]}")
sys.exit(0 if seen == [(False, False)] * 2 + [(False, True)] * 3 and equal == [True, False] else 1)
PY
"$work/venv/bin/python" "$work/balance.py" || { echo "changed: the estimators treat weights differently from the list above"; exit 1; }
