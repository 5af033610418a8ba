"""The project and the region of Google Cloud in a replica's environment, where Vertex AI does not set them.

Trainers for Vertex AI read ``CLOUD_ML_PROJECT_ID`` and ``CLOUD_ML_REGION`` to create clients of other services, such as
BigQuery; so does ``aiplatform.init()``. On Vertex AI the first one is the project's number, elsewhere its id. The
clients accept both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlengine import settings
from mlengine.backends import Submission


def located(submission: Submission, extra: Mapping[str, Any] | None = None) -> Submission:
    """The submission with the project and the region that a job on Vertex AI would have, as far as they are known.

    :param extra: the extra of the Airflow connection that is in use, if any.
    """
    project = settings.get("vertex_project", submission.project, extra) or os.environ.get("GOOGLE_CLOUD_PROJECT", "")
    region = settings.get("vertex_region", submission.region or submission.spec.region, extra)
    return replace(submission, project=project, region=region)


def cloud_variables(submission: Submission) -> dict[str, str]:
    """The variables of a replica. One that the job file sets, or whose value is not known, is omitted."""
    values = {"CLOUD_ML_PROJECT_ID": submission.project, "CLOUD_ML_REGION": submission.region}
    return {name: value for name, value in values.items() if value and name not in submission.spec.env}
