"""What Vertex AI would refuse, or would take and never run, said before anything is paid for.

Reads the finished request, so that the raw pass-through is checked too. Knows only combinations that cannot work; what
is merely unwise goes through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlengine.backends.vertex import accelerators
from mlengine.backends.vertex.accelerators import Problems
from mlengine.backends.vertex.prices import DEFAULT_TIMEOUT_SECONDS
from mlengine.core.errors import BackendError

_FLEX_START = frozenset({"NVIDIA_L4", "NVIDIA_TESLA_A100", "NVIDIA_A100_80GB", "NVIDIA_H100_80GB"}) | frozenset(
    {"NVIDIA_H100_MEGA_80GB", "NVIDIA_H200_141GB", "NVIDIA_B200"}
)
_LABEL = re.compile(r"[a-z0-9_-]{0,63}")
_MAX_PACKAGES, _MAX_LABELS = 100, 64


def check(job_id: str, body: Mapping[str, Any]) -> None:
    """:raises BackendError: naming the combination that cannot work, and what to change."""
    spec = body["jobSpec"]
    pools = [pool for pool in spec["workerPoolSpecs"] if pool]
    for problem, remedy in (
        *_labels(body),
        *_chief(spec),
        *[found for pool in pools for found in accelerators.of_pool(pool)],
        *accelerators.tpu(pools),
        *_scheduling(spec, pools),
        *_identity(spec),
    ):
        raise BackendError(f"job {job_id}: {problem}", remedy=remedy)


def _labels(body: Mapping[str, Any]) -> Problems:
    labels = body.get("labels", {})
    found: Problems = [
        (f"not a label: {name}={value}", "labels have at most 63 of a-z 0-9 _ -, names start with a letter")
        for name, value in labels.items()
        if not (_LABEL.fullmatch(value) and _LABEL.fullmatch(name) and name[:1].isalpha())
    ]
    if len(labels) > _MAX_LABELS:
        found.append((f"{len(labels)} labels", f"the service takes {_MAX_LABELS}"))
    return found


def _chief(spec: Mapping[str, Any]) -> Problems:
    chief = spec["workerPoolSpecs"][0]
    found: Problems = []
    if int(chief.get("replicaCount", 0)) != 1:
        found.append(("the first worker pool is the chief's and has exactly one replica", "set its replicaCount to 1"))
    uris = chief.get("pythonPackageSpec", {}).get("packageUris", ())
    if len(uris) > _MAX_PACKAGES:
        found.append((f"{len(uris)} packages", f"the service takes {_MAX_PACKAGES}; merge some into one sdist"))
    return found


def _scheduling(spec: Mapping[str, Any], pools: list[Mapping[str, Any]]) -> Problems:
    scheduling = spec.get("scheduling", {})
    strategy = scheduling.get("strategy", "STANDARD")
    timeout = float(str(scheduling.get("timeout", f"{DEFAULT_TIMEOUT_SECONDS}s")).rstrip("s"))
    reserved = any("reservationAffinity" in pool["machineSpec"] for pool in pools)
    persistent = spec.get("persistentResourceId")
    found: Problems = []
    if strategy in {"SPOT", "FLEX_START"} and (reserved or persistent):
        what = "a reservation" if reserved else "a persistent resource"
        found.append((f"{strategy} machines cannot come from {what}", f"drop {strategy.lower()}, or {what}"))
    if strategy == "FLEX_START":
        found += _flex_start(pools, timeout)
    if scheduling.get("disableRetries") and scheduling.get("restartJobOnWorkerRestart"):
        found.append(
            ("disable_retries excludes restart_on_worker_restart", "set one of them: the service ignores the other")
        )
    if "maxWaitDuration" in scheduling and strategy != "FLEX_START":
        found.append(("max_wait_seconds works with flex_start only", "set flex_start, or drop the wait limit"))
    return found


def _flex_start(pools: list[Mapping[str, Any]], timeout: float) -> Problems:
    found: Problems = []
    kinds = {pool["machineSpec"].get("acceleratorType") for pool in pools}
    if not kinds <= _FLEX_START:
        found.append(
            ("flex-start is for L4, A100, H100, H200 and B200 GPUs in every pool", "drop flex_start, or take such GPUs")
        )
    machines = [pool["machineSpec"] for pool in pools]
    if any(machine != machines[0] for machine in machines):
        found.append(("flex-start wants the same machine in every pool", "name one machine type for all roles"))
    if timeout > DEFAULT_TIMEOUT_SECONDS:
        found.append(("flex-start machines live at most 7 days", "set timeout_seconds to 604800 or less"))
    return found


def _identity(spec: Mapping[str, Any]) -> Problems:
    if spec.get("tensorboard") and not spec.get("serviceAccount"):
        return [("a TensorBoard instance needs a service account", "set service_account")]
    return []
