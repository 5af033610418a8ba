#!/usr/bin/env bash
# numpy 2.4: the stream of Generator.integers depends on how the draws are divided into calls, for small dtypes only.
#
# Several integers of the dtype uint8 or uint16 are cut from one 32-bit number of the generator, and the rest of
# that number is dropped at the end of each call. So two calls of 3 and 5 values give other values than one call of 8,
# and leave the generator in another state. With int64, and with random(), both ways give the same values. A loader
# that draws in batches is reproducible only for the same batch size.
#
# Output seen:   uint8: differs   uint16: differs   int64: equal   random: equal
#                the next random(): differs after uint8, equal after int64
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q numpy==2.4.6
cat > "$work/draw.py" <<'PY'
import sys

import numpy as np


def draws(draw):
    """Whether 3 and 5 values are the same as 8, and whether the next number is the same."""
    parts, whole = np.random.default_rng(7), np.random.default_rng(7)
    divided = np.concatenate([draw(parts, 3), draw(parts, 5)])
    together = draw(whole, 8)
    return bool((divided == together).all()), parts.random() == whole.random()


found = {dtype: draws(lambda source, count: source.integers(0, 256, count, dtype=dtype)) for dtype in ("uint8", "uint16", "int64")}
found["random"] = draws(lambda source, count: source.random(count))
word = {True: "equal", False: "differs"}
print("   ".join(f"{name}: {word[same]}" for name, (same, _) in found.items()))
print(f"the next random(): {word[found['uint8'][1]]} after uint8, {word[found['int64'][1]]} after int64")
right = found["uint8"] == (False, False) and not found["uint16"][0] and found["int64"] == found["random"] == (True, True)
sys.exit(0 if right else 1)
PY
"$work/venv/bin/python" "$work/draw.py" || { echo "changed: small integers do not depend on the size of a call"; exit 1; }
