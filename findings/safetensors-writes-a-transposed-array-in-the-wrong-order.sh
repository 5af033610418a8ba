#!/usr/bin/env bash
# safetensors 0.8.0, numpy 2.4.6: safetensors.numpy.save() stores a transposed array with its elements in the wrong order.
#
# It writes the bytes in the order in which they are in memory, with the shape of the transposed array. The file is valid,
# loading it gives no error, and shape, type, sum and mean are right; only the elements have changed places. Weights that
# are transposed for another framework (`kernel.T`) are such arrays. numpy.save() stores the same array correctly.
#
# Output seen:   saved:   [[0, 3], [1, 4], [2, 5]]
#                loaded:  [[0, 1], [2, 3], [4, 5]]
#                copied to C order first: [[0, 3], [1, 4], [2, 5]]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q safetensors==0.8.0 numpy==2.4.6
cat > "$work/transpose.py" <<'PY'
import sys

import numpy as np
from safetensors.numpy import load, save

kernel = np.arange(6, dtype=np.float32).reshape(2, 3).T
stored = load(save({"kernel": kernel}))["kernel"]
copied = load(save({"kernel": np.ascontiguousarray(kernel)}))["kernel"]


def text(array):
    return array.astype(int).tolist()


print(f"saved:   {text(kernel)}\nloaded:  {text(stored)}\ncopied to C order first: {text(copied)}")
same = stored.shape == kernel.shape and text(stored) == [[0, 1], [2, 3], [4, 5]] and np.array_equal(copied, kernel)
sys.exit(0 if same else 1)
PY
"$work/venv/bin/python" "$work/transpose.py" || { echo "changed: the array is stored in order, or refused"; exit 1; }
