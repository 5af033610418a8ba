"""The differences between the inputs of two trainings. A submission compares its inputs with those of an existing job.

The comparison covers the fields of :func:`mlengine.core.inputs.inputs_digest`: package, dataset, module, arguments,
cluster, runtime, environment. The location of a job, its labels and its limits do not count, nor do the versions of
mlengine and Airflow.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlengine.core.spec import counted

# Fields of a spec that do not change the model, or are compared in another form.
_IGNORED = frozenset(
    {"args", "env", "package_uris", "pools"}
    | {"job_dir", "labels", "region", "scale_tier", "source", "ray", "max_running_seconds", "max_wait_seconds"}
)
_LONGEST = 200  # characters of one value in a message


@dataclass(frozen=True)
class Inputs:
    """The inputs of one training.

    :param spec: :meth:`mlengine.core.spec.TrainingSpec.to_json`.
    :param lineage: the ``inputs`` of the job's record: ``package`` and ``dataset``, each with its ``digest``, if known.
    """

    spec: Mapping[str, Any]
    lineage: Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One field that differs. Both values are strings."""

    field: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.field}: {_short(self.before)} → {_short(self.after)}"


def changes(before: Inputs, after: Inputs) -> list[Change]:
    """All fields that differ, in a fixed order; empty if the inputs are equal."""
    return [change for change in _compared(before, after) if change.before != change.after]


def describe(found: Sequence[Change]) -> str:
    """The changes in one line, for a log or an error."""
    return "; ".join(map(str, found))


def _compared(before: Inputs, after: Inputs) -> Iterator[Change]:
    yield Change("package", *_digests("package", before, after))
    yield Change("dataset", *_digests("dataset", before, after))
    names = sorted((before.spec.keys() | after.spec.keys()) - _IGNORED)
    for name in names:
        yield Change(name, _text(before.spec.get(name)), _text(after.spec.get(name)))
    yield Change("args", *_words(before.spec.get("args", ()), after.spec.get("args", ())))
    yield Change("cluster", *_clusters(before.spec.get("pools", ()), after.spec.get("pools", ())))
    yield from _variables(before.spec.get("env") or {}, after.spec.get("env") or {})


def _digests(kind: str, before: Inputs, after: Inputs) -> tuple[str, str]:
    """The digests of both inputs, or their URIs if one of the digests is not known."""
    old, new = (dict(one.lineage.get(kind) or {}) for one in (before, after))
    if old.get("digest") and new.get("digest"):
        if old["digest"] == new["digest"]:
            return "", ""
        return _content(old), _content(new)
    if kind == "package":
        return tuple(" ".join(one.spec.get("package_uris", ())) for one in (before, after))  # type: ignore[return-value]
    return str(old.get("uri") or "(none)"), str(new.get("uri") or "(none)")


def _content(lineage: Mapping[str, Any]) -> str:
    version, digest = str(lineage.get("version") or ""), str(lineage["digest"])[:12]
    return f"{version} ({digest})" if version else digest


def _words(before: Sequence[str], after: Sequence[str]) -> tuple[str, str]:
    """Both argument lists without their common start and end. A flag is not separated from its value."""
    old, new = [*map(str, before)], [*map(str, after)]
    if old == new:
        return "", ""
    shorter = min(len(old), len(new))
    start = next((at for at in range(shorter) if old[at] != new[at]), shorter)
    end = next((at for at in range(shorter - start) if old[-1 - at] != new[-1 - at]), shorter - start)
    if start and old[start - 1].startswith("-"):
        start -= 1
    return tuple(shlex.join(words[start : len(words) - end]) or "(none)" for words in (old, new))  # type: ignore[return-value]


def _clusters(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    old, new = (", ".join(map(_pool, pools)) for pools in (before, after))
    if old == new and before != after:  # the difference is in a field that the short form leaves out
        return _text(list(before)), _text(list(after))
    return old, new


def _pool(pool: Mapping[str, Any]) -> str:
    words = [str(pool[name]) for name in ("machine_type", "image_uri") if pool.get(name)]
    if pool.get("accelerator_type"):
        words.append(f"{pool.get('accelerator_count')} {pool['accelerator_type']}")
    return counted(pool["count"], pool["role"]) + (f" ({', '.join(words)})" if words else "")


def _variables(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    """The changed environment variables, by name only, because the values may be secrets."""
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            old = "set" if name in before else "not set"
            new = "not set" if name not in after else "set to another value" if name in before else "set"
            yield Change(f"environment variable {name}", old, new)


def _text(value: Any) -> str:
    if value is None or value == "":
        return "(none)"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
