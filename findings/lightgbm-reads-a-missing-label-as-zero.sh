#!/usr/bin/env bash
# lightgbm 4.7.0: lightgbm.train() takes a NaN label as 0, without an error or a warning.
#
# A Dataset with NaN in its label trains exactly the model that zeros in these places give: a row without an answer becomes
# a negative example, or pulls a regression towards 0. LightGBM's own scikit-learn class refuses the same label, and so
# does XGBoost's native interface, so code that moves from LGBMRegressor.fit() to train() loses the check. Nothing is
# logged at the default verbosity; only Dataset.get_label() shows the zeros.
#
# Output seen:   train(), labels of about 100, every fourth NaN: mean prediction 74.9
#                largest difference from the model with zeros: 0.0
#                labels of the Dataset at NaN: 0.0
#                messages about it: 0
#                LGBMRegressor.fit(): ValueError
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q lightgbm==4.7.0 scikit-learn==1.9.1 numpy==2.4.6
cat > "$work/labels.py" <<'PY'
import sys

import lightgbm
import numpy as np


class Messages:
    def __init__(self):
        self.lines = []

    def info(self, text):
        self.lines.append(text)

    warning = info


messages = Messages()
lightgbm.register_logger(messages)
random = np.random.default_rng(0)
rows = random.normal(size=(400, 2))
label = rows[:, 0] + 100
label[::4] = np.nan


def predictions(values):
    return lightgbm.train({"num_threads": 1}, lightgbm.Dataset(rows, values), 20).predict(rows)


missing = predictions(label)
difference = abs(missing - predictions(np.nan_to_num(label))).max()
stored = lightgbm.Dataset(rows, label).construct().get_label()[np.isnan(label)]
about = sum("nan" in line.lower() or "label" in line.lower() for line in messages.lines)
print(f"train(), labels of about 100, every fourth NaN: mean prediction {missing.mean():.1f}")
print(f"largest difference from the model with zeros: {difference}")
print(f"labels of the Dataset at NaN: {' '.join(str(value) for value in np.unique(stored))}")
print(f"messages about it: {about}")
try:
    lightgbm.LGBMRegressor(n_estimators=2, n_jobs=1).fit(rows, label)
    refused = "no error"
except ValueError as error:
    refused = type(error).__name__
print(f"LGBMRegressor.fit(): {refused}")
same = difference == 0 and not stored.any() and about == 0 and 70 < missing.mean() < 80 and refused == "ValueError"
sys.exit(0 if same else 1)
PY
"$work/venv/bin/python" "$work/labels.py" || { echo "changed: train() refuses or reports a NaN label"; exit 1; }
