#!/usr/bin/env bash
# onnxmltools 1.16.0, lightgbm 4.7.0: four valid LightGBM parameters are lost in the ONNX model, and its predictions are wrong.
#
# convert_lightgbm() copies splits and leaf values. What else belongs to a prediction is left out without an error or a
# warning: with linear_tree=True the linear models in the leaves; with reg_sqrt=True the square of the sum; with
# zero_as_missing=True the branch of a 0; with boosting_type="rf" the average is taken twice, so that ten trees predict a
# tenth. With the default parameters both agree, and the converter refuses other cases (objective="cross_entropy").
#
# Output seen (the first row):
#                defaults            LightGBM 9.307   ONNX 9.307   same
#                linear_tree         LightGBM 9.038   ONNX 9.372   different
#                reg_sqrt            LightGBM 9.446   ONNX 3.073   different
#                rf                  LightGBM 8.490   ONNX 0.849   different
#                zero_as_missing     LightGBM 9.469   ONNX 9.469   different (in other rows)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q lightgbm==4.7.0 onnxmltools==1.16.0 skl2onnx==1.20.0 onnx==1.23.2 onnxruntime==1.32.0 \
    scikit-learn==1.9.1 numpy==2.4.6
cat > "$work/compare.py" <<'PY'
import sys
import warnings

import numpy as np
import onnxruntime
from lightgbm import LGBMRegressor
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

onnxruntime.set_default_logger_severity(3)
random = np.random.default_rng(0)
rows = random.normal(size=(400, 2)).astype(np.float32)
target = rows[:, 0] * 3 + rows[:, 1] + 10
rows[random.random(rows.shape) < 0.4] = 0
cases = {
    "defaults": {},
    "linear_tree": {"linear_tree": True},
    "reg_sqrt": {"reg_sqrt": True},
    "rf": {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
    "zero_as_missing": {"zero_as_missing": True},
}
seen = []
for name, parameters in cases.items():
    model = LGBMRegressor(n_estimators=10, n_jobs=1, verbose=-1, **parameters).fit(rows, target)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        converted = convert_lightgbm(model, initial_types=[("x", FloatTensorType([None, 2]))], target_opset=15)
    warned = any(name in str(warning.message) for warning in caught)
    session = onnxruntime.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"])
    ours, theirs = model.predict(rows), session.run(None, {"x": rows})[0].ravel()
    same = bool(np.allclose(ours, theirs, rtol=1e-4))
    seen.append((same, warned))
    note = "same" if same else "different" if abs(ours[0] - theirs[0]) > 1e-3 else "different (in other rows)"
    print(f"{name:<18}  LightGBM {ours[0]:.3f}   ONNX {theirs[0]:.3f}   {note}")
sys.exit(0 if seen == [(True, False)] + [(False, False)] * 4 else 1)
PY
"$work/venv/bin/python" -W ignore "$work/compare.py" || { echo "changed: the converter honours, reports or refuses a parameter"; exit 1; }
