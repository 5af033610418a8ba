#!/usr/bin/env bash
# LightGBM 4.7 with pandas: a categorical column whose categories have another type predicts as if it were missing.
#
# A booster stores the categories of the training frame. If a frame for prediction has the same categories as strings
# ("1", "2") instead of integers (1, 2), as after a CSV file or a JSON request, none is recognized. There is no error
# and no warning: each row gets the prediction of a missing value.
#
# Output seen:   integers: 0.01 0.99   strings: 0.99 0.99   missing: 0.99 0.99   warnings: 0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q lightgbm==4.7.0 pandas==3.1.1 numpy==2.4.6
cat > "$work/categories.py" <<'PY'
import sys
import warnings

import lightgbm
import pandas as pd

rows = 1000
codes = [1 + row % 2 for row in range(rows)]
train = pd.DataFrame({"plan": pd.Categorical(codes)})
booster = lightgbm.train(
    {"objective": "binary", "verbosity": -1, "min_data_in_leaf": 5},
    lightgbm.Dataset(train, [code - 1 for code in codes]),
    num_boost_round=40,
)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    given = {
        "integers": booster.predict(pd.DataFrame({"plan": pd.Categorical([1, 2])})),
        "strings": booster.predict(pd.DataFrame({"plan": pd.Categorical(["1", "2"])})),
        "missing": booster.predict(pd.DataFrame({"plan": pd.Categorical([None, None], categories=[1, 2])})),
    }
print("   ".join(f"{name}: {low:.2f} {high:.2f}" for name, (low, high) in given.items()), f"  warnings: {len(caught)}")
silent = list(given["strings"]) == list(given["missing"]) and given["integers"][1] - given["integers"][0] > 0.9
sys.exit(0 if silent and not caught else 1)
PY
"$work/venv/bin/python" "$work/categories.py" || { echo "changed: categories of another type are recognized, or refused"; exit 1; }
