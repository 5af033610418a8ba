#!/usr/bin/env bash
# Keras 3.15.1 with matplotlib 3.11.2: `import keras` imports matplotlib.pyplot, in each process that loads a model.
#
# Keras needs matplotlib only for its functions that draw, and refuses these without it. It does not wait until one is
# called: wherever matplotlib is installed, the import of Keras also imports it, and pyplot above it, which reads the
# user's matplotlibrc and the list of fonts. Training and prediction never use them. `tf.keras` pays as well.
#
# Output seen:   without matplotlib: 0 modules of matplotlib; with it: pyplot and more than 50 modules
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q keras==3.15.1 numpy==2.4.6 jax==0.10.2
cat > "$work/count.py" <<'PY'
import sys

import keras

found = [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]
print(len(found), "matplotlib.pyplot" in found)
PY
export KERAS_BACKEND=jax KERAS_HOME="$work/keras" MPLCONFIGDIR="$work/matplotlib"
read -r without _ < <("$work/venv/bin/python" "$work/count.py" 2> "$work/log") || { tail -3 "$work/log"; exit 1; }
"$work/venv/bin/pip" install -q matplotlib==3.11.2
read -r with pyplot < <("$work/venv/bin/python" "$work/count.py" 2> "$work/log") || { tail -3 "$work/log"; exit 1; }
echo "without matplotlib: $without modules of matplotlib; with it: $with modules, pyplot: $pyplot"
if [ "$without" != 0 ] || [ "$pyplot" != True ] || [ "$with" -le 50 ]; then
    echo "changed: Keras does not import matplotlib before it draws"
    exit 1
fi
