#!/usr/bin/env bash
# pyarrow 26.0.1: in a list of datetimes with and without a time zone, the first value decides what the others mean.
#
# With a naive value first, the column has no zone, and an aware value becomes its UTC wall time. With an aware value
# first, the column has that zone, and a naive value is taken as UTC: its wall time moves. So a table with a column of
# both kinds, written to Parquet, gets another type and other values when its rows are sorted differently. There is no
# error and no warning. pandas.to_datetime refuses such a list.
#
# Output seen:
#                naive first  timestamp[us]             12:00 07:00
#                aware first  timestamp[us, tz=+05:00]  12:00 17:00
#                Parquet file, naive row first          12:00 (no zone)
#                Parquet file, aware row first          17:00 UTC+05:00
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6
cat > "$work/times.py" <<'PY'
import sys
from datetime import datetime, timedelta, timezone

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

naive = datetime(2026, 1, 1, 12)
aware = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
found = []
for name, values in (("naive first", [naive, aware]), ("aware first", [aware, naive])):
    column = pa.array(values)
    times = [value.strftime("%H:%M") for value in column.to_pylist()]
    print(f"{name}  {column.type!s:<25} {' '.join(times)}")
    found.append((str(column.type), times))
for name, rows in (("naive", [(1, naive), (2, aware)]), ("aware", [(2, aware), (1, naive)])):
    file = f"{sys.argv[1]}/{name}.parquet"
    pd.DataFrame(rows, columns=["id", "at"]).to_parquet(file)
    row = next(row for row in pq.read_table(file).to_pylist() if row["id"] == 1)
    time = f"{row['at']:%H:%M} {row['at'].tzinfo or '(no zone)'}"
    print(f"Parquet file, {name} row first          {time}")
    found.append(time)
expected = [
    ("timestamp[us]", ["12:00", "07:00"]),
    ("timestamp[us, tz=+05:00]", ["12:00", "17:00"]),
    "12:00 (no zone)",
    "17:00 UTC+05:00",
]
sys.exit(0 if found == expected else 1)
PY
"$work/venv/bin/python" "$work/times.py" "$work" || { echo "changed: the times mean something else"; exit 1; }
