"""The text by which a dry run shows a job."""

from __future__ import annotations

from collections.abc import Sequence

from mlengine.backends.ray.bundles import Bundle, describe
from mlengine.backends.ray.record import Stored


def request(stored: Stored, wanted: Sequence[Bundle]) -> str:
    """The submission and its placement group as YAML.

    :param wanted: one bundle for each replica.
    """
    import yaml

    submission = stored.submission
    replicas = [f"{role.value}-{index}" for role, index in submission.spec.replicas]
    plain = {
        "submission_id": stored.name,
        "job_id": submission.job_id,
        "job_dir": submission.job_dir,
        "placement": stored.settings.placement,
        "reserves": {name: describe(bundle) for name, bundle in zip(replicas, wanted, strict=True)},
        "spec": submission.spec.to_json(),
    }
    return str(yaml.safe_dump(plain, sort_keys=False))
