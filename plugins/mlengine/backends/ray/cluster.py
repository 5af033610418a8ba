"""The part of Ray that the driver uses: a placement group, and an actor in each of its bundles.

This module runs in the cluster only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from mlengine.backends.ray.bundles import Bundle, describe
from mlengine.backends.ray.replica_host import ReplicaHost

_NAMESPACE = "mlengine"
_CALL_SECONDS = 60.0
# Ray takes whole seconds: with a fraction of one, it does not wait, and may report a complete group as incomplete
# (findings/ray-placement-group-waits-whole-seconds.sh).
_RESERVE_SECONDS = 1


class LostError(Exception):
    """An actor, or its node, is gone. Only the driver raises and handles this error."""


class Cluster:
    """The reserved part of the Ray cluster.

    :param name: the name of the placement group.
    :param wanted: one bundle for each replica.
    :param strategy: Ray's strategy for the placement of the bundles.
    """

    def __init__(self, name: str, wanted: Sequence[Bundle], strategy: str) -> None:
        import ray

        self._ray: Any = ray
        self._name, self._wanted, self._strategy = name, wanted, strategy
        self._group: Any = None
        self._class: Any = ray.remote(ReplicaHost)

    def connect(self) -> None:
        """Connect this process to the cluster that it runs in."""
        self._ray.init(address="auto", namespace=_NAMESPACE, log_to_driver=False, logging_level="WARNING")

    def reserve(self) -> None:
        """Request the placement group. Ray releases it when this process ends, for whatever reason."""
        self._group = self._ray.util.placement_group(list(self._wanted), strategy=self._strategy, name=self._name)

    def reserved(self) -> bool:
        """Whether the placement group is complete; waits for at most a second."""
        return bool(self._group.wait(_RESERVE_SECONDS))

    def reason(self) -> str:
        """Ray's reason for the wait, and the resources that are free."""
        table = self._ray.util.placement_group_table(self._group)
        state = (table.get("stats") or {}).get("scheduling_state") or table.get("state")
        free = self._ray.available_resources()
        names = sorted({name for bundle in self._wanted for name in bundle})
        return (
            f"waiting for {len(self._wanted)} bundles ({_summary(self._wanted)}); Ray's scheduler says {state}; "
            f"free in the cluster: {describe({name: free.get(name, 0.0) for name in names})}"
        )

    def create(self, index: int, *arguments: Any) -> Any:
        """Create an actor in the bundle with this index. It starts when the bundle has a node."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        bundle = dict(self._wanted[index])
        options = {
            "num_cpus": bundle.pop("CPU", 0),
            "num_gpus": bundle.pop("GPU", 0),
            "memory": int(bundle.pop("memory", 0)) or None,
            "resources": bundle or None,
            "max_restarts": 0,
            "max_task_retries": 0,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                self._group, placement_group_bundle_index=index, placement_group_capture_child_tasks=False
            ),
        }
        return self._class.options(**options).remote(*arguments)

    def ready(self, references: Sequence[Any], seconds: float) -> list[Any]:
        """The calls that have a result or have failed, after all calls have ended or ``seconds`` have passed."""
        if not references:
            return []
        done, _ = self._ray.wait(list(references), num_returns=len(references), timeout=seconds)
        return list(done)

    def result(self, reference: Any) -> Any:
        """The result of a call to an actor.

        :raises LostError: the actor is gone.
        """
        from ray.exceptions import GetTimeoutError, RayActorError, RaySystemError

        try:
            return self._ray.get(reference, timeout=_CALL_SECONDS)
        except (RayActorError, RaySystemError, GetTimeoutError) as error:
            raise LostError(_first_line(error)) from error

    def kill(self, actors: Sequence[Any]) -> None:
        """End actors. Their processes end with them."""
        for actor in actors:
            with contextlib.suppress(Exception):  # the actor may be gone already, and the errors for that differ
                self._ray.kill(actor)

    def release(self) -> None:
        """Release the placement group."""
        if self._group is not None:
            with contextlib.suppress(Exception):  # Ray releases the group when this process ends
                self._ray.util.remove_placement_group(self._group)


def _summary(wanted: Sequence[Mapping[str, float]]) -> str:
    counts: dict[str, int] = {}
    for bundle in wanted:
        counts[describe(bundle)] = counts.get(describe(bundle), 0) + 1
    return "; ".join(f"{count} x {text}" for text, count in counts.items())


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:6])[:500] or type(error).__name__
