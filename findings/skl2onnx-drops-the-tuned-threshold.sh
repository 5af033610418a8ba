#!/usr/bin/env bash
# skl2onnx 1.20.0, scikit-learn 1.9.1: the ONNX model of a TunedThresholdClassifierCV predicts without the tuned threshold.
#
# The class exists only to choose the threshold, and skl2onnx lists it as supported. The ONNX model has the probabilities
# of the inner classifier, and its labels are those of the inner classifier at 0.5. There is no warning. The sibling
# class FixedThresholdClassifier is refused with an exception, so the tuned one looks as if it were handled.
#
# Output seen:   tuned threshold: 0.113
#                positives in scikit-learn: 371; in ONNX: 52; at the threshold 0.5: 52
#                largest difference of a probability: below 1e-5
#                FixedThresholdClassifier: MissingShapeCalculator
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q scikit-learn==1.9.1 skl2onnx==1.20.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$work/compare.py" <<'PY'
import sys

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV

random = np.random.default_rng(0)
rows = random.normal(size=(1000, 2)).astype(np.float32)
target = (rows[:, 0] + random.normal(size=1000) > 1.5).astype(int)
tuned = TunedThresholdClassifierCV(LogisticRegression(), scoring="balanced_accuracy").fit(rows, target)
session = onnxruntime.InferenceSession(to_onnx(tuned, rows[:1]).SerializeToString(), providers=["CPUExecutionProvider"])
labels, probabilities = session.run(None, {"X": rows})
if isinstance(probabilities, list):
    probabilities = np.array([[row[0], row[1]] for row in probabilities])
difference = abs(probabilities - tuned.predict_proba(rows)).max()
ours, theirs, plain = (int(values.sum()) for values in (tuned.predict(rows), labels, tuned.estimator_.predict(rows)))
print(f"tuned threshold: {tuned.best_threshold_:.3f}")
print(f"positives in scikit-learn: {ours}; in ONNX: {theirs}; at the threshold 0.5: {plain}")
print(f"largest difference of a probability: {'below' if difference < 1e-5 else 'above'} 1e-5")
try:
    to_onnx(FixedThresholdClassifier(LogisticRegression(), threshold=0.1).fit(rows, target), rows[:1])
    fixed = "converted"
except Exception as error:
    fixed = type(error).__name__
print(f"FixedThresholdClassifier: {fixed}")
same = difference < 1e-5 and theirs == plain and ours > 2 * theirs and fixed == "MissingShapeCalculator"
sys.exit(0 if same else 1)
PY
"$work/venv/bin/python" -W ignore "$work/compare.py" || { echo "changed: the threshold reaches the ONNX model, or the class is refused"; exit 1; }
