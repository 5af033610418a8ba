"""``python -m report.task --dataset gs://… --job-dir gs://…``: a plain script that counts the labels of a version.

A directory with an ``__init__.py`` is a trainer; it needs no build file. The two requests below replace
``google-cloud-storage``, which ``requirements=["google-cloud-storage"]`` of the task group would install.
"""

from __future__ import annotations

import argparse
import json
import os
import urllib.parse
import urllib.request
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--job-dir", required=True)
    args = parser.parse_args()
    config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    task = config.get("task", {"type": "chief", "index": 0})
    if task["type"] not in {"chief", "master"}:
        return  # only the first replica writes the model
    manifest = json.loads(request(f"{args.dataset}/manifest.json"))
    statistics = manifest["splits"]["train"]["statistics"]["label"]
    counts = [rows for _, rows in sorted(statistics["top"])]
    request(f"{args.job_dir}/model/counts.json", json.dumps(counts).encode())
    print(f"{task['type']}: {sum(counts)} rows of {len(counts)} classes", flush=True)


def request(uri: str, data: bytes | None = None) -> Any:
    """Read or write an object, without credentials: works for a public bucket or the server of ``make run``."""
    host = os.environ.get("STORAGE_EMULATOR_HOST", "https://storage.googleapis.com")
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    name = urllib.parse.quote(path, safe="")
    read, write = (
        f"/storage/v1/b/{bucket}/o/{name}?alt=media",
        f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}",
    )
    with urllib.request.urlopen(urllib.request.Request(host + (read if data is None else write), data)) as answer:
        return answer.read()


if __name__ == "__main__":
    main()
