"""The trigger of a deferred wait, in cases that need no bucket."""

from __future__ import annotations

import asyncio

from mlengine.core.job import JobHandle
from mlengine.jobs.polling import Poller
from mlengine.triggers.training_job import TrainingJobTrigger


def poller(name: str) -> Poller:
    handle = JobHandle("vertex", name, "j", 1, "gs://bucket/m/j")
    return TrainingJobTrigger(handle=handle.to_json(), gcp_conn_id=None)._poller(handle)


def test_jobs_of_two_regions_are_polled_independently() -> None:
    """During an outage of one region, the end of a job in another region is still noticed."""

    async def main() -> list[Poller]:
        names = ("europe-west4/customJobs/1", "europe-west4/customJobs/2", "us-central1/customJobs/3")
        return [poller(f"projects/p/locations/{name}") for name in names]

    first, second, elsewhere = asyncio.run(main())
    assert first is second
    assert first is not elsewhere


def test_a_job_with_an_invalid_name_is_polled_separately() -> None:
    async def main() -> list[Poller]:
        return [poller("projects/p/locations/r/customJobs/1"), poller("not a name")]

    valid, other = asyncio.run(main())
    assert valid is not other
