"""Checks before submission that a job's module is in its packages, if these are already in the bucket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlengine.core.job_file import worker_pools
from mlengine.core.spec import TrainingSpec
from mlengine.packaging.modules import check_module_in_packages
from mlengine.storage.client import Storage


def check_job_module(spec: TrainingSpec, storage: Storage, options: Mapping[str, Any]) -> None:
    """Check that the packages of ``spec`` in the bucket contain its module.

    Nothing is checked if the job runs in a custom image, because the image may contain the module.

    :param options: the options of the backend that runs the job.
    :raises PackageError: no package contains the module; the message lists the modules that exist.
    :raises StorageError: a package is missing, or cannot be read.
    """
    # A job file in Vertex AI's format also names an image for packages, which is one of Google's.
    own_image = spec.pools[0].image_uri is not None and not worker_pools.is_vertex(spec.source)
    if spec.module and spec.package_uris and not own_image and not options.get("image_uri"):
        check_module_in_packages(spec.module, spec.package_uris, storage)
