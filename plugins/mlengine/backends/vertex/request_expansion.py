"""The arguments and environment variables of a request, in which the service expands ``$(VAR)``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from mlengine.backends import Submission
from mlengine.backends.vertex.options import VertexOptions
from mlengine.core.cluster import tf_config
from mlengine.core.expansion import escape, substitute
from mlengine.core.layout import JobDir
from mlengine.core.spec import Role

_ALONE = "127.0.0.1:2222"  # the address of a job's only replica, to which no other connects


class RequestExpansion:
    """The arguments and variables of one job, written so that the service expands them as the local backend does.

    :param our_start: whether our start command runs. It sets the ``AIP_`` variables itself, so references to them must
        not be replaced by the service's values.
    :param tensorboard: whether the job has a TensorBoard instance, so that event files belong where the service reads
        them.
    """

    def __init__(self, submission: Submission, *, our_start: bool = False, tensorboard: bool = False) -> None:
        self._submission = submission
        folder = JobDir(submission.job_dir.rstrip("/"))
        aip = {
            "AIP_MODEL_DIR": folder.model,
            "AIP_CHECKPOINT_DIR": folder.train,
            "AIP_TENSORBOARD_LOG_DIR": folder.logs if tensorboard else folder.train,
        }
        self._known = aip if our_start else {}

    def args(self, texts: Iterable[str]) -> list[str]:
        return [self._text(text) for text in texts]

    def env(self, options: VertexOptions, *, with_tf_config: bool = False) -> list[dict[str, Any]]:
        """The variables in the API's format. Those in the backend's options are already written for Vertex AI."""
        spec = self._submission.spec
        env = {"MLENGINE_ATTEMPT": str(self._submission.attempt)}
        config = single_tf_config(self._submission) if with_tf_config else None
        if config is not None:
            env["TF_CONFIG"] = escape(json.dumps(config))
        env |= {name: self._text(value) for name, value in spec.env.items()}
        env |= {name: substitute(str(value), self._known) for name, value in options.env.items()}
        return [{"name": name, "value": value} for name, value in env.items()]

    def _text(self, text: str) -> str:
        return substitute(text, self._known) if self._submission.spec.expand_variables else escape(text)


def single_tf_config(submission: Submission) -> dict[str, Any] | None:
    """The ``TF_CONFIG`` of a job of one replica, for which the service sets none; ``None`` if the job gets none."""
    spec = submission.spec
    if len(spec.replicas) > 1:
        return None
    return tf_config(spec, {Role.CHIEF: [_ALONE]}, Role.CHIEF, 0, job_dir=submission.job_dir) or None
