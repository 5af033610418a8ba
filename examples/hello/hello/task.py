"""``python -m hello.task --max_steps 5 --job-dir gs://bucket/hello/job_1``: the minimum that a trainer has to do.

It reads its role from ``TF_CONFIG``, prints, reports its progress, and writes a result to ``<job dir>/model/``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from typing import Any

from hello import bucket
from hello.words.grammar import greeting


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="hello", allow_abbrev=False)
    parser.add_argument("--name", default="world")
    parser.add_argument("--max_steps", type=int, default=5)
    parser.add_argument("--step_seconds", type=float, default=0.05)
    parser.add_argument("--job-dir", required=True)
    args = parser.parse_args(argv)

    config: dict[str, Any] = json.loads(os.environ.get("TF_CONFIG") or "{}")
    task = config.get("task") or {"type": "chief", "index": 0}
    chief = task["type"] in {"chief", "master"}
    print(
        f"{task['type']}-{task['index']} of {sum(map(len, config.get('cluster', {}).values())) or 1} says:", flush=True
    )

    if task["type"] == "ps":
        # A parameter server runs until it is terminated.
        while True:
            time.sleep(3600)
    begun = time.monotonic()
    for step in range(1, args.max_steps + 1):
        print(f"step {step}: {greeting(step + task['index'], args.name)}", flush=True)
        time.sleep(args.step_seconds)
        if chief:
            bucket.write(args.job_dir, "train/progress.json", progress(step, args.max_steps, time.monotonic() - begun))
    if chief:
        result = {"greetings": [greeting(step, args.name) for step in range(args.max_steps)], "cluster": config}
        bucket.write(args.job_dir, "model/result.json", json.dumps(result, ensure_ascii=False).encode())
    return 0


def progress(step: int, of: int, seconds: float) -> bytes:
    """The progress that the waiting task shows of a running job."""
    rate = step / max(seconds, 1e-6)
    return json.dumps(
        {
            "step": step,
            "of": of,
            "examples_per_second": rate,
            "loss": 1.0 / step,
            "eta_seconds": (of - step) / rate,
            "updated": time.time(),
            "role": "chief",
        }
    ).encode()


if __name__ == "__main__":
    raise SystemExit(main())
