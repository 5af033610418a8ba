#!/usr/bin/env bash
# proto-plus 1.29.0, google-api-core 2.44.0: a DatetimeWithNanoseconds loses its nanoseconds in a message, or keeps them.
#
# Each package has its own class of this name, with the same methods. A proto-plus message keeps the nanoseconds only of
# its own class; it takes the other one for a plain datetime and cuts it to microseconds, without an error. So the time of
# a log entry that one Google library returned changes when it is written into the request of another. In both classes,
# two times that differ in nanoseconds are equal and neither is greater, and a deep copy has lost them as well.
#
# Output seen:   proto-plus         …00.123456999Z   in a message: …00.123456999Z   its deep copy: …00.123456Z
#                google-api-core    …00.123456999Z   in a message: …00.123456Z      its deep copy: …00.123456Z
#                .123456001 == .123456999: True in both
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q proto-plus==1.29.0 google-api-core==2.44.0 protobuf==7.36.2
cat > "$work/times.py" <<'PY'
import copy
import sys

import proto
from google.api_core import datetime_helpers as api_core
from google.protobuf.timestamp_pb2 import Timestamp
from proto import datetime_helpers as proto_plus


class Entry(proto.Message):
    at = proto.Field(Timestamp, number=1)


text = "2026-01-01T00:00:00.123456999Z"
seen, equal = [], []
for name, module in (("proto-plus", proto_plus), ("google-api-core", api_core)):
    time = module.DatetimeWithNanoseconds.from_rfc3339(text)
    earlier = module.DatetimeWithNanoseconds.from_rfc3339(text.replace("999Z", "001Z"))
    written, copied = Entry(at=time).at.rfc3339(), copy.deepcopy(time).rfc3339()
    seen.append((time.rfc3339() == text, written == text, copied == text))
    equal.append(time == earlier and not time > earlier)
    short = [value.replace("2026-01-01T00:00:", "…") for value in (time.rfc3339(), written, copied)]
    print(f"{name:<17}  {short[0]}   in a message: {short[1]:<16} its deep copy: {short[2]}")
print(f".123456001 == .123456999: {'True in both' if all(equal) else equal}")
sys.exit(0 if seen == [(True, True, False), (True, False, False)] and all(equal) else 1)
PY
"$work/venv/bin/python" "$work/times.py" || { echo "changed: the nanoseconds are kept"; exit 1; }
