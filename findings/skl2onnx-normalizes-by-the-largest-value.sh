#!/usr/bin/env bash
# skl2onnx 1.20.0, scikit-learn 1.9.1: Normalizer(norm="max") divides by another number after the conversion.
#
# scikit-learn divides a row by its largest absolute value. The converter writes ONNX's Normalizer with
# norm MAX, which divides by the largest value. Rows whose value of largest magnitude is negative differ, also in sign.
# Rows without negative values agree, so a comparison on counts or pixels passes.
#
# Output seen:   rows without negative values: 0 of 400 differ
#                rows of both signs:          194 of 400 differ
#                [-4, 2] becomes [-1.0, 0.5] in scikit-learn, [-2.0, 1.0] in ONNX
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
from sklearn.preprocessing import Normalizer

random = np.random.default_rng(0)
rows = random.normal(size=(400, 2)).astype(np.float32)
normalizer = Normalizer("max").fit(rows)
converted = to_onnx(normalizer, rows[:1])
session = onnxruntime.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"])


def both(values):
    return normalizer.transform(values), session.run(None, {"X": values})[0]


def differing(values):
    ours, theirs = both(values)
    return int((~np.isclose(ours, theirs, atol=1e-5)).any(axis=1).sum())


print(f"rows without negative values: {differing(abs(rows))} of 400 differ")
print(f"rows of both signs:          {differing(rows)} of 400 differ")
ours, theirs = (found[0].tolist() for found in both(np.array([[-4, 2]], np.float32)))
print(f"[-4, 2] becomes {ours} in scikit-learn, {theirs} in ONNX")
sys.exit(0 if differing(abs(rows)) == 0 and differing(rows) > 100 and ours == [-1.0, 0.5] and theirs == [-2.0, 1.0] else 1)
PY
"$work/venv/bin/python" -W ignore "$work/compare.py" || { echo "changed: the ONNX model divides by the largest absolute value"; exit 1; }
