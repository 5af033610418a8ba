#!/usr/bin/env bash
# pyarrow 26.0.1: one partition key above 2,147,483,647 turns the whole column of keys from int32 into text.
#
# The type of a Hive partition column is inferred from all directories, as int32 or else as string; int64 is not tried.
# So a new directory changes the type, and the order, of the keys that were there: "the newest partition" is another one.
# A file with the same numbers in a column has int64, and so has a column of a CSV file.
#
# Output seen:   keys 900000000, 1200000000:             int32, the largest is 1200000000
#                keys 900000000, 1200000000, 3000000000: string, the largest is 900000000
#                the same numbers as CSV:                int64, the largest is 3000000000
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pyarrow==26.0.1
cat > "$work/keys.py" <<'PY'
import io
import pathlib
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet

KEYS = [900_000_000, 1_200_000_000, 3_000_000_000]
root = pathlib.Path(sys.argv[1])


def read(count):
    for key in KEYS[:count]:
        folder = root / str(count) / f"key={key}"
        folder.mkdir(parents=True)
        pa.parquet.write_table(pa.table({"x": [1]}), folder / "part.parquet")
    return pa.dataset.dataset(root / str(count), partitioning="hive").to_table()["key"]


def shown(what, column):
    largest = pc.max(column).as_py()
    print(f"{what:<39} {column.type}, the largest is {largest}")
    return str(column.type), largest


text = "key\n" + "\n".join(map(str, KEYS))
found = [
    shown("keys 900000000, 1200000000:", read(2)),
    shown("keys 900000000, 1200000000, 3000000000:", read(3)),
    shown("the same numbers as CSV:", pa.csv.read_csv(io.BytesIO(text.encode()))["key"]),
]
sys.exit(0 if found == [("int32", KEYS[1]), ("string", str(KEYS[0])), ("int64", KEYS[2])] else 1)
PY
"$work/venv/bin/python" "$work/keys.py" "$work/data" || { echo "changed: large partition keys have another type"; exit 1; }
