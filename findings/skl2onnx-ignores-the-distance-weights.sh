#!/usr/bin/env bash
# skl2onnx 1.20.0, scikit-learn 1.9.1: a converted k-nearest-neighbours model with weights="distance" weighs all
# neighbours the same.
#
# The ONNX model computes what weights="uniform" would, for classes, probabilities and numbers. The conversion gives no
# error and no warning. For a regressor, the same parameter with a function as its value is refused.
#
# Output seen:   regression:    at most 0.535326 from the model, 0.000001 from the same model with uniform weights
#                probabilities: at most 0.353315 from the model, 0.000000 from the same model with uniform weights
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
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

random = np.random.default_rng(0)
known = random.normal(size=(400, 3)).astype(np.float32)
numbers = known @ np.array([1, 2, 3], np.float32) + 0.1 * random.normal(size=400).astype(np.float32)
classes = (numbers > 0).astype(int)
new = random.normal(size=(300, 3)).astype(np.float32)


def onnx_output(model, index, **options):
    converted = to_onnx(model, known[:1], options={id(model): options} if options else None)
    session = onnxruntime.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"X": new})[index]


def distances(what, found, weighted, uniform):
    own, other = abs(found - weighted).max(), abs(found - uniform).max()
    print(f"{what} at most {own:.6f} from the model, {other:.6f} from the same model with uniform weights")
    return own > 0.1 and other < 0.001


pairs = [[kind(5, weights=weights).fit(known, target) for weights in ("distance", "uniform")]
         for kind, target in ((KNeighborsRegressor, numbers), (KNeighborsClassifier, classes))]
(regressor, plain), (classifier, equal) = pairs
same = [
    distances("regression:   ", onnx_output(regressor, 0).ravel(), regressor.predict(new), plain.predict(new)),
    distances("probabilities:", onnx_output(classifier, 1, zipmap=False), classifier.predict_proba(new),
              equal.predict_proba(new)),
]
sys.exit(0 if all(same) else 1)
PY
"$work/venv/bin/python" -W ignore "$work/compare.py" || { echo "changed: the ONNX model uses the distances"; exit 1; }
