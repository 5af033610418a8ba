#!/usr/bin/env bash
# skl2onnx 1.20.0, scikit-learn 1.9.1: a converted tree or forest sends every missing value to the right branch.
#
# Trees and forests of scikit-learn accept NaN, and learn for each split whether NaN goes left or right
# (tree_.missing_go_to_left). The converter writes nodes_missing_value_tracks_true = 0 for every node. The conversion gives
# no error and no warning, and the ONNX model agrees on all complete rows, so a comparison on rows without gaps passes.
#
# Output seen:   complete rows: 0 of 800 labels differ
#                rows with NaN: 190 of 800 labels differ
#                splits that send NaN left: 61 in scikit-learn, 0 in ONNX
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
from sklearn.ensemble import RandomForestClassifier

random = np.random.default_rng(0)
complete = random.normal(size=(800, 3)).astype(np.float32)
gaps = np.where(random.random(complete.shape) < 0.2, np.float32("nan"), complete)
target = (complete[:, 0] + complete[:, 1] > 0.5).astype(int)
forest = RandomForestClassifier(10, max_depth=4, random_state=0).fit(gaps, target)
converted = to_onnx(forest, complete[:1])
session = onnxruntime.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"])


def differing(rows):
    return int((session.run(None, {"X": rows})[0] != forest.predict(rows)).sum())


left = 0
for member in forest.estimators_:
    inner = member.tree_.children_left != -1
    left += int(member.tree_.missing_go_to_left[inner].sum())
(tracks,) = [a.ints for n in converted.graph.node for a in n.attribute if a.name == "nodes_missing_value_tracks_true"]
print(f"complete rows: {differing(complete)} of 800 labels differ")
print(f"rows with NaN: {differing(gaps)} of 800 labels differ")
print(f"splits that send NaN left: {left} in scikit-learn, {sum(tracks)} in ONNX")
sys.exit(0 if differing(complete) == 0 and differing(gaps) > 50 and left > 0 and sum(tracks) == 0 else 1)
PY
"$work/venv/bin/python" -W ignore "$work/compare.py" || { echo "changed: the ONNX model treats NaN differently"; exit 1; }
