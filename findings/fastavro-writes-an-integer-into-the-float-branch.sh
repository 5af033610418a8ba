#!/usr/bin/env bash
# fastavro 1.13.1, avro 1.12.2: an integer in a union of float and long is rounded by one library and kept by the other.
#
# For the schema ["null", "float", "long"], fastavro takes the first branch that accepts the value. An integer is accepted
# by "float", a 32-bit type, so 16777217 is stored as 16777216.0 although "long" would hold it. Apache's own avro writes
# the long. With the order ["null", "long", "float"] both are right, so the order of two branches, which Avro does not
# give a meaning, decides whether an identifier survives. ["null", "double", "long"] rounds in the same way above 2**53.
#
# Output seen:   fastavro, float first: 16777216.0
#                fastavro, long first:  16777217
#                avro, float first:     16777217
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q fastavro==1.13.1 avro==1.12.2
cat > "$work/union.py" <<'PY'
import io
import json
import sys

import avro.io
import avro.schema
import fastavro


def schema(*branches):
    return {"type": "record", "name": "Row", "fields": [{"name": "id", "type": list(branches)}]}


def with_fastavro(written, value):
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(written), {"id": value})
    buffer.seek(0)
    return fastavro.schemaless_reader(buffer, written)["id"]


def with_avro(written, value):
    parsed, buffer = avro.schema.parse(json.dumps(written)), io.BytesIO()
    avro.io.DatumWriter(parsed).write({"id": value}, avro.io.BinaryEncoder(buffer))
    buffer.seek(0)
    return avro.io.DatumReader(parsed).read(avro.io.BinaryDecoder(buffer))["id"]


value = 2**24 + 1
first = with_fastavro(schema("null", "float", "long"), value)
second = with_fastavro(schema("null", "long", "float"), value)
third = with_avro(schema("null", "float", "long"), value)
print(f"fastavro, float first: {first}\nfastavro, long first:  {second}\navro, float first:     {third}")
same = (first, type(first)) == (16777216.0, float) and second == third == value and type(third) is int
sys.exit(0 if same else 1)
PY
"$work/venv/bin/python" "$work/union.py" || { echo "changed: both libraries keep the integer"; exit 1; }
