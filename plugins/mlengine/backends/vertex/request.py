"""Converts a submission to Vertex AI's ``CustomJob``, in JSON. No request is sent here.

The order of precedence, field by field: the fallback, :attr:`VertexOptions.raw`, the typed options, the job file, the
defaults.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlengine.backends import Submission
from mlengine.backends.vertex import accelerator_env, fallbacks, request_types
from mlengine.backends.vertex.options import VertexOptions
from mlengine.backends.vertex.pools import without_empty, worker_pool_specs, written_job
from mlengine.backends.vertex.start_command import start_command
from mlengine.core.errors import BackendError
from mlengine.core.expansion import escape
from mlengine.core.job_file.located import camel
from mlengine.core.spec import TrainingSpec

KEY_LABEL, ATTEMPT_LABEL = "mlengine-key", "mlengine-attempt"
_LABEL_LIMIT = 63


@dataclass(frozen=True)
class Request:
    """The body of a create call, and one note for each difference from the job file."""

    body: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def to_yaml(self) -> str:
        """The request as YAML for people, with the start command's name in place of its long source."""
        import yaml

        command = json.dumps(escape(start_command()))
        text = json.dumps(self.body).replace(command, json.dumps("<mlengine's start command>"))
        return str(yaml.safe_dump(json.loads(text), sort_keys=False, width=120))


def key_label(key: str) -> str:
    return f"k{key}"


def label_value(text: str) -> str:
    """``text`` as the value of a label: lower case letters of any language, digits, ``_`` and ``-``, at most 63."""
    return re.sub(r"[^\w-]", "_", text.lower())[:_LABEL_LIMIT]


def custom_job(submission: Submission, options: VertexOptions) -> Request:
    """The request that creates the job.

    :param options: the options of the job; those of the submission's fallback take precedence over them.
    :raises BackendError: ``raw`` sets a field that identifies the job, or a field has the wrong type.
    """
    _check_raw(submission.job_id, options.raw)
    options = fallbacks.options_of(options, submission.fallback)
    pools, notes = worker_pool_specs(submission, options)
    source = submission.spec.source
    asked = {
        "serviceAccount": options.service_account or source.get("serviceAccount"),
        "network": options.network or source.get("network"),
        "reservedIpRanges": list(options.reserved_ip_ranges),
        "pscInterfaceConfig": camel(options.psc_interface),
        "tensorboard": options.tensorboard,
        "experiment": options.experiment,
        "experimentRun": options.experiment_run,
        "enableWebAccess": options.web_access or source.get("enableWebAccess") or None,
        "enableDashboardAccess": options.dashboard_access or None,
        "persistentResourceId": options.persistent_resource,
    }
    job_spec = {
        **written_job(submission.spec),
        **without_empty(asked),
        "workerPoolSpecs": pools,
        "scheduling": _scheduling(submission, options),
        "baseOutputDirectory": {"outputUriPrefix": submission.job_dir},
    }
    body: dict[str, Any] = {
        "displayName": submission.job_id,
        "jobSpec": without_empty(job_spec),
        "labels": labels(submission, options),
    }
    written = source.get("encryptionConfig") or camel(source).get("encryptionSpec") or {}
    if key := options.encryption_key or written.get("kmsKeyName"):
        body["encryptionSpec"] = {"kmsKeyName": key}
    merged = merge(body, options.raw)
    request_types.check_complete(submission.job_id, merged)
    merged = fallbacks.apply(merged, options, submission.fallback)
    ignored = _ignored(submission.spec, options)
    return Request(accelerator_env.add_to(merged), (*notes, *ignored, *fallbacks.notes(options, submission.fallback)))


def _ignored(spec: TrainingSpec, options: VertexOptions) -> list[str]:
    """Notes about the scheduling fields of a job file in ML Engine's format that have no effect."""
    scheduling = spec.source.get("scheduling") or {}
    found = []
    if scheduling.get("priority"):
        found.append(f"scheduling.priority ({scheduling['priority']}) is ignored: Vertex AI has no priorities of jobs")
    if scheduling.get("resilientToWorkerRestart") is False and options.disable_retries:
        found.append("scheduling.resilientToWorkerRestart is ignored: disable_retries excludes restarts of the job")
    return found


def _check_raw(job_id: str, raw: Mapping[str, Any]) -> None:
    """Check the option ``raw``.

    :raises BackendError: a field has the wrong type, or the job would not be found again and be submitted twice.
    """
    request_types.check(job_id, raw, "raw")
    job_spec, labels = raw.get("jobSpec") or {}, raw.get("labels", {})
    if labels is None:
        raise BackendError(
            f"job {job_id}: raw removes the labels, by which the job is found again", hint="remove labels from raw"
        )
    snake = [name for name in (*raw, *job_spec) if "_" in name]
    if snake:
        raise BackendError(f"job {job_id}: raw has {snake[0]}", hint="write the API's names in camelCase, as jobSpec")
    for path, given in (
        ("displayName", raw),
        ("baseOutputDirectory", job_spec),
        (KEY_LABEL, labels),
        (ATTEMPT_LABEL, labels),
    ):
        if path in given:
            raise BackendError(
                f"job {job_id}: raw sets {path}, by which the job is found again",
                hint=f"remove {path} from raw; mlengine sets it",
            )


def labels(submission: Submission, options: VertexOptions) -> dict[str, str]:
    """The labels of a job: the users', then ours, so that nothing replaces the key by which a job is found again."""
    given = {**submission.spec.labels, **options.labels, **submission.labels}
    return {
        **{label_value(name): label_value(str(value)) for name, value in given.items()},
        KEY_LABEL: key_label(submission.key),
        ATTEMPT_LABEL: str(submission.attempt),
    }


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``over`` into ``base``: dicts key by key, lists of the same length item by item, all else is replaced.

    ``None`` removes a field, as ``null`` does in the API's JSON.
    """
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        if value is None:
            merged.pop(name, None)
        elif isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[name] = merge(old, value)
        elif isinstance(old, list) and isinstance(value, list) and len(old) == len(value):
            merged[name] = [
                merge(a, b) if isinstance(a, Mapping) and isinstance(b, Mapping) else _without_null(b)
                for a, b in zip(old, value, strict=True)
            ]
        else:
            merged[name] = _without_null(value)
    return merged


def _without_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_null(item) for name, item in value.items() if item is not None}
    return [_without_null(item) for item in value] if isinstance(value, list | tuple) else value


def max_wait_seconds(spec: TrainingSpec, options: VertexOptions) -> float | None:
    """The seconds that a job may wait for machines; infinity for no limit, ``None`` if none is given."""
    seconds: float | None = options.max_wait_seconds
    if seconds is None:
        seconds = spec.max_wait_seconds
    if seconds is None and _written(spec).get("maxWaitDuration"):
        seconds = 0  # the duration is 0s, no limit, which the spec cannot express
    return seconds or (None if seconds is None else math.inf)


def _written(spec: TrainingSpec) -> dict[str, Any]:
    """The scheduling of a job file in Vertex AI's format."""
    return dict(written_job(spec).get("scheduling") or {})


def _scheduling(submission: Submission, options: VertexOptions) -> dict[str, Any]:
    written = _written(submission.spec)
    timeout = options.timeout_seconds or submission.spec.max_running_seconds
    source = submission.spec.source.get("scheduling") or {}
    given = source.get("strategy") or written.get("strategy")
    # In ML Engine's format, LOW_COST requests machines that may be pre-empted.
    strategy = "SPOT" if given == "LOW_COST" and not written else given
    strategy = "FLEX_START" if options.flex_start else "SPOT" if options.spot else strategy
    # Only flex-start has this limit. With the other strategies, the waiting task cancels the job (LeavesWaitLimit).
    written.pop("maxWaitDuration", None)
    wait = max_wait_seconds(submission.spec, options) if strategy == "FLEX_START" else None
    asked = {
        "timeout": f"{timeout}s" if timeout else None,
        "maxWaitDuration": None if wait is None else "0s" if wait == math.inf else f"{wait:.0f}s",
        "strategy": strategy,
        "restartJobOnWorkerRestart": options.restart_on_worker_restart
        or (source.get("resilientToWorkerRestart") is False and not options.disable_retries)
        or None,
        "disableRetries": options.disable_retries or None,
    }
    return {**written, **without_empty(asked)}
