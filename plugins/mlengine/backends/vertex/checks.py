"""Checks, before submission, for requests that Vertex AI would refuse, or accept and never run.

The finished request is checked, so that the raw pass-through is checked too. Only combinations that cannot work are
refused; those that are merely unwise are accepted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from mlengine.backends.vertex import accelerators, network_checks
from mlengine.backends.vertex.accelerators import Problems
from mlengine.backends.vertex.prices import DEFAULT_TIMEOUT_SECONDS
from mlengine.core import limits, vertex_machines
from mlengine.core.errors import BackendError
from mlengine.core.limits import Problem

_CONTEXT = re.compile(r"projects/[^/]+/locations/[^/]+/metadataStores/[^/]+/contexts/[^/]+")
# The location, region or zone in the name of a resource.
_REGION = re.compile(r"/(?:locations|regions|zones)/(?P<region>[a-z]+(?:-[a-z]+)+\d+)(?:-[a-z])?/")


def check(job_id: str, body: Mapping[str, Any], *, new_accelerators: bool = False) -> None:
    """Check a request.

    :param new_accelerators: whether to accept accelerators that the table does not have, on every machine.
    :raises BackendError: a combination cannot work; the message names it, and says what to change.
    """
    spec = body["jobSpec"]
    pools = [pool for pool in spec["workerPoolSpecs"] if pool]
    for problem, hint in (
        *_labels(body),
        *_chief(spec),
        *_replicas(pools),
        *[found for pool in pools for found in accelerators.of_pool(pool, new=new_accelerators)],
        *accelerators.tpu(pools, spec.get("scheduling", {}).get("strategy", "STANDARD")),
        *_scheduling(spec, pools),
        *_identity(spec),
        *network_checks.problems(spec, pools),
        *_experiment(spec),
    ):
        raise BackendError(f"job {job_id}: {problem}", hint=hint)


def _labels(body: Mapping[str, Any]) -> Problems:
    return _found("labels", limits.labels(body.get("labels", {})))


def _replicas(pools: list[Mapping[str, Any]]) -> Problems:
    """Check the replicas of all pools, whether they come from the job file, an option or ``raw``."""
    found: Problems = []
    for pool in pools:
        container = pool.get("containerSpec") or pool.get("pythonPackageSpec") or {}
        variables = {variable["name"]: str(variable.get("value", "")) for variable in container.get("env", ())}
        found += _found("replicaCount", limits.replica_count(int(pool.get("replicaCount", 0))))
        found += _found("env", limits.variables(variables))
        disk = pool.get("diskSpec", {}).get("bootDiskSizeGb")
        found += _found("bootDiskSizeGb", None if disk is None else limits.boot_disk_gb(int(disk)))
        found += _found("packageUris", limits.package_count(len(container.get("packageUris", ()))))
    return found


def _found(where: str, problem: Problem | None) -> Problems:
    return [] if problem is None else [(f"{where}: {problem.message}", problem.hint)]


def _chief(spec: Mapping[str, Any]) -> Problems:
    chief = spec["workerPoolSpecs"][0]
    found: Problems = []
    if int(chief.get("replicaCount", 0)) != 1:
        found.append(("the first worker pool is the chief's and has exactly one replica", "set its replicaCount to 1"))
    return found


def _scheduling(spec: Mapping[str, Any], pools: list[Mapping[str, Any]]) -> Problems:
    scheduling = spec.get("scheduling", {})
    wrong = [problem for name in ("timeout", "maxWaitDuration") for problem in _duration(name, scheduling.get(name))]
    if wrong:
        return wrong
    strategy = scheduling.get("strategy", "STANDARD")
    timeout = float(str(scheduling.get("timeout", f"{DEFAULT_TIMEOUT_SECONDS}s")).rstrip("s")) or math.inf
    affinities = [pool["machineSpec"].get("reservationAffinity", {}) for pool in pools]
    reserved = any(one.get("reservationAffinityType", "NO_RESERVATION") != "NO_RESERVATION" for one in affinities)
    persistent = spec.get("persistentResourceId")
    found: Problems = []
    if strategy in {"SPOT", "FLEX_START"} and (reserved or persistent):
        what = "a reservation" if reserved else "a persistent resource"
        found.append((f"{strategy} machines cannot come from {what}", f"drop {strategy.lower()}, or {what}"))
    if reserved and persistent:
        found.append(("machines of a persistent resource cannot come from a reservation", "remove one of them"))
    if strategy == "FLEX_START":
        found += _flex_start(pools, timeout)
    if scheduling.get("disableRetries") and scheduling.get("restartJobOnWorkerRestart"):
        found.append(
            ("disable_retries excludes restart_on_worker_restart", "set one of them: the service ignores the other")
        )
    if "maxWaitDuration" in scheduling and strategy != "FLEX_START":
        found.append(("maxWaitDuration is for flex-start only", "set flex_start, or max_wait_seconds in place of it"))
    return found


def _duration(name: str, value: str | None) -> Problems:
    """Check the format of a duration. ``0s`` is valid, and means no limit."""
    seconds = None if value is None else re.fullmatch(r"(-?[0-9]{1,18}(?:\.[0-9]+)?)s", value)
    if value is not None and seconds is None:
        return [(f"{name}: is not a duration: {value!r}", 'for example "7200s"')]
    number = float(seconds[1]) if seconds else 0.0
    return _found(f"{name} in seconds", limits.seconds(number) if number else None)


def _flex_start(pools: list[Mapping[str, Any]], timeout: float) -> Problems:
    found: Problems = []
    kinds = {pool["machineSpec"].get("acceleratorType") for pool in pools}
    if not kinds <= vertex_machines.flex_start():
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


def _experiment(spec: Mapping[str, Any]) -> Problems:
    """Check experiment and run. A run is a separate metadata context, whose id begins with that of its experiment."""
    experiment, run = spec.get("experiment"), spec.get("experimentRun")
    for field, name in (("experiment", experiment), ("experimentRun", run)):
        if name and not _CONTEXT.fullmatch(name):
            hint = "use projects/PROJECT/locations/REGION/metadataStores/default/contexts/NAME"
            return [(f"{field}: is not the full name of a metadata context: {name!r}", hint)]
    if experiment and spec.get("tensorboard"):
        # The API documents both fields. Google's SDK refuses them together, as an experiment has its own TensorBoard.
        return [("an experiment has a TensorBoard instance of its own", "drop tensorboard, or experiment")]
    if run and not experiment:
        return [("an experiment run needs its experiment", "set experiment too")]
    if run and not str(run).startswith(f"{experiment}-"):
        return [(f"{run} is not a run of {experiment}", f"the name of a run is {experiment}-RUN")]
    return []


def check_region(job_id: str, body: Mapping[str, Any], region: str) -> None:
    """Refuse resources of another region than the job's, as they can be used only within their region.

    :raises BackendError: a resource is in another region; the message names it.
    """
    spec = body["jobSpec"]
    named = {
        "tensorboard": spec.get("tensorboard"),
        "experiment": spec.get("experiment"),
        "encryption_key": body.get("encryptionSpec", {}).get("kmsKeyName"),
        "psc_interface": spec.get("pscInterfaceConfig", {}).get("networkAttachment"),
    }
    for pool in spec["workerPoolSpecs"]:
        for value in pool.get("machineSpec", {}).get("reservationAffinity", {}).get("values", ()):
            named[f"reservation {value}"] = value
    for name, value in named.items():
        found = _REGION.search(str(value or ""))
        if found and found["region"] != region:
            raise BackendError(
                f"job {job_id}: the job runs in {region}, and {name} is in {found['region']}: {value}",
                hint=f"name one in {region}; a fallback with a region can name its own",
            )
