#!/usr/bin/env bash
# importlib_metadata 8.7 and 8.9: importing the backport changes what the standard library's importlib.metadata returns.
#
# The backport installs its own finder in sys.meta_path. After `import importlib_metadata`, anywhere in the process,
# `importlib.metadata.distributions(path=…)` yields the backport's objects. Their `metadata["Requires-Python"]` raises
# KeyError where the field is absent; the standard library's returns None. So code that uses only the standard library
# works alone, and fails in a process in which another package has imported the backport.
#
# Output seen (Python 3.11):   alone: None
#                              after import importlib_metadata: KeyError
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q importlib_metadata==8.7.0
mkdir -p "$work/site/demo-1.0.dist-info"
printf 'Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n' > "$work/site/demo-1.0.dist-info/METADATA"
cat > "$work/read.py" <<'PY'
import sys
from importlib.metadata import distributions


def read():
    (found,) = distributions(path=[sys.argv[1]])
    try:
        return repr(found.metadata["Requires-Python"])
    except KeyError as error:
        return type(error).__name__


alone = read()
import importlib_metadata  # noqa: E402, F401

after = read()
print(f"alone: {alone}\nafter import importlib_metadata: {after}")
sys.exit(0 if (alone, after) == ("None", "KeyError") else 1)
PY
"$work/venv/bin/python" -W ignore "$work/read.py" "$work/site" || { echo "changed: both return the same"; exit 1; }
