"""The module of a job that brings its packages by itself, checked before it is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlengine.core.job_file import worker_pools
from mlengine.core.spec import TrainingSpec
from mlengine.packaging.modules import check_module_in_packages
from mlengine.storage.client import Storage


def check_job_module(spec: TrainingSpec, storage: Storage, options: Mapping[str, Any]) -> None:
    """Check that the packages of ``spec``, as they are in the bucket, have the module that it runs.

    Not if the job runs in an image of the user's own, which may have the module.

    :param options: of the backend that it is for.
    :raises PackageError: the module is in none of them, with the modules that are.
    :raises StorageError: a package is missing, or cannot be read.
    """
    # Vertex AI's own format names an image for packages too: one of Google's.
    own_image = spec.pools[0].image_uri is not None and not worker_pools.is_vertex(spec.source)
    if spec.module and spec.package_uris and not own_image and not options.get("image_uri"):
        check_module_in_packages(spec.module, spec.package_uris, storage)
