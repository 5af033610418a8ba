"""Builds the trainer's environments on each node of a job, one for each kind of accelerator.

This module runs in the driver.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlengine.backends.local.outcome import Outcome
from mlengine.backends.ray.group import EndedError, Group, Replica
from mlengine.core.job import FailureCause
from mlengine.core.spec import Role

_POLL_SECONDS = 0.1  # short, because an existing environment is found within a second


Digests = dict[tuple[str, str], str]  # by node and accelerator: Replica.place


def build(group: Group) -> tuple[Digests, list[str]]:
    """Build the environments: one replica for each node and accelerator builds the environment that they share.

    :return: the environments' digests, and the packages in the chief's environment.
    :raises EndedError: an environment cannot be built, or the job is to end.
    :raises LostError: a replica is gone.
    """
    builders = list({replica.place: replica for replica in reversed(group.replicas)}.values())
    for replica in builders:
        replica.running = True
    group.call(builders, "prepare")
    while any(replica.running for replica in builders):
        group.check_ended()
        for replica, poll in group.poll(builders, _POLL_SECONDS):
            for text in replica.lines.add(poll["output"], ended=poll["exit_code"] is not None):
                group.journal.say(f"{replica.node}: {text}" if len(builders) > 1 else text)
            if poll["exit_code"] is not None:
                replica.running, replica.exit_code = False, poll["exit_code"]
        group.check_lost()
    return _results(group, builders)


def _results(group: Group, builders: Sequence[Replica]) -> tuple[Digests, list[str]]:
    digests: Digests = {}
    pythons: dict[str, str] = {}
    packages: list[str] = []
    for replica, result in group.call(builders, "prepared"):
        if "digest" not in result:
            cause = FailureCause.TRAINER if result.get("retryable") is False else FailureCause.SERVICE
            message = result.get("error") or (
                f"the process that builds the environment ended with exit code {replica.exit_code}"
            )
            raise EndedError(Outcome.because(cause, f"{replica.node}: {message}"))
        digests[replica.place] = str(result["digest"])
        pythons[str(result["python"])] = replica.node
        if replica.role is Role.CHIEF:
            packages = list(result["packages"])
    if len(pythons) > 1:
        found = ", ".join(f"{version} on {node}" for version, node in sorted(pythons.items()))
        message = f"the nodes of the Ray cluster have different versions of Python: {found}"
        raise EndedError(Outcome.because(FailureCause.SERVICE, message))
    return digests, packages
