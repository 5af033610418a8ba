"""A trainer without dependencies that logs, reports progress, and exits when a file with its exit code appears."""

from __future__ import annotations

import gzip
import io
import tarfile
import textwrap

# A build backend inside the package, so that no build tool is downloaded. If a build file is given, it waits for that
# file.
_BUILD = """
import time, zipfile
from pathlib import Path

BUILD_FILE = {build_file!r}

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    while BUILD_FILE and not Path(BUILD_FILE).exists():
        time.sleep(0.1)
    name = "idle_trainer-{version}-py3-none-any.whl"
    info = "idle_trainer-{version}.dist-info"
    with zipfile.ZipFile(Path(wheel_directory, name), "w") as wheel:
        wheel.write("idle_trainer.py", "idle_trainer.py")
        wheel.writestr(f"{{info}}/METADATA", "Metadata-Version: 2.1\\nName: idle_trainer\\nVersion: {version}\\n")
        kind = "Wheel-Version: 1.0\\nGenerator: make\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr(f"{{info}}/WHEEL", kind)
        wheel.writestr(f"{{info}}/RECORD", "")
    return name
"""

# Logs, reports progress, and ends with the exit code in its file.
_TRAINER = """
import argparse, json, os, sys, time, urllib.parse, urllib.request
from pathlib import Path

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("--until")
parser.add_argument("--job-dir")
args = parser.parse_args()
task = (json.loads(os.environ.get("TF_CONFIG") or "{}")).get("task", {"type": "chief", "index": 0})
me = f"{task['type']}-{task['index']}"
bucket, _, folder = args.job_dir.removeprefix("gs://").partition("/")

def report(step):
    name = urllib.parse.quote(f"{folder.rstrip('/')}/train/progress.json", safe="")
    url = f"{os.environ['STORAGE_EMULATOR_HOST']}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"
    body = {"step": step, "of": 1000, "examples_per_second": 12345.6, "loss": 1 / (step + 1), "eta_seconds": 61.0}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).read()

print(f"{me} says hello", flush=True)
count = 0
end = Path(args.until)
while not end.exists():
    print(f"{me} line {count}", flush=True)
    if task["type"] != "worker" and count % 10 == 0:
        report(count)
    count += 1
    time.sleep(0.5)
code = int(end.read_text() or 0)
print(f"{me} said {count} lines and ends with {code}", flush=True)
sys.exit(code)
"""


def idle_trainer(build_file: str = "", version: str = "1.0") -> bytes:
    """A source distribution. If ``build_file`` is given, its build waits until that file exists."""
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "make"\nbackend-path = ["."]\n'
        f'[project]\nname = "idle_trainer"\nversion = "{version}"\n',
        "PKG-INFO": f"Metadata-Version: 2.1\nName: idle_trainer\nVersion: {version}\n",
        "make.py": textwrap.dedent(_BUILD.format(build_file=build_file, version=version)),
        "idle_trainer.py": _TRAINER,
    }
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"idle_trainer-{version}/{name}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()
