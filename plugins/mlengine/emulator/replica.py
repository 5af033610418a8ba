"""One replica of a foreign job, as Vertex AI or ML Engine would start it. Runs in the trainer's environment.

The local launcher starts every replica of a job alike: ``python -m MODULE ARGS --job-dir DIR``. A client may have
asked for something else: another command for each pool, no ``--job-dir``, a container's own command. That comes here as
a plan in JSON, the first argument; this drops what the launcher added, sets what the service would have, and becomes
the process that was asked for.
"""

import json
import os
import re
import sys
from typing import Any, Dict, List  # noqa: UP035 - the trainer's Python may be an old one

_POOLS = {"chief": "workerpool0", "master": "workerpool0", "worker": "workerpool1", "ps": "workerpool2"}
_POOLS["evaluator"] = "workerpool3"
_PYTHON = re.compile(r"(/\S+/)?python(3(\.\d+)?)?")


def environment(plan: Dict[str, Any], pool: Dict[str, Any], config: Dict[str, Any]) -> None:  # noqa: UP006
    """Vertex AI's variables, or none where ML Engine had none."""
    for name in [name for name in os.environ if name.startswith("AIP_")]:
        del os.environ[name]
    for name in ("MODEL", "CHECKPOINT", "TENSORBOARD_LOG"):
        if plan["dirs"].get(name):
            os.environ[f"AIP_{name}_DIR"] = plan["dirs"][name]
    if plan["face"] == "vertex":
        task = config.get("task", {"type": "chief", "index": 0})
        cluster = {_POOLS[role]: addresses for role, addresses in config.get("cluster", {}).items()}
        spec = {
            "cluster": cluster or {"workerpool0": ["127.0.0.1:2222"]},
            "environment": "cloud",
            "task": {"type": _POOLS[task["type"]], "index": task["index"]},
            "job": json.dumps(plan["job"]),
        }
        os.environ["CLUSTER_SPEC"] = json.dumps(spec)
    for variable in pool["env"]:
        os.environ[variable["name"]] = expand(variable.get("value", ""))


def expand(text: str) -> str:
    """As :func:`mlengine.core.expansion.expand` does, which cannot be imported where this runs."""

    def replace(match: "re.Match[str]") -> str:
        return "$" if match[0] == "$$" else os.environ.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", replace, text)


def command(pool: Dict[str, Any]) -> List[str]:  # noqa: UP006
    """What to run. The environment's own Python stands in for the image's."""
    words = [expand(word) for word in pool["command"]]
    if _PYTHON.fullmatch(words[0]):
        words[0] = sys.executable
    return words


def main() -> None:
    plan = json.loads(sys.argv[1])
    config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    role = config.get("task", {}).get("type", "chief")
    pool = plan["pools"]["chief" if role == "master" else role]
    environment(plan, pool, config)
    words = command(pool)
    sys.stdout.flush()
    try:
        os.execvp(words[0], words)  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"{words[0]} cannot be run on this machine, which runs commands and no images: {error}\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
